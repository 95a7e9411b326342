"""The jobs that an operator means: by id, by its beginning, by filters; and no file is opened that need not be."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.worker.examples import NOW
from tests.worker.login.situations import job, outcome, result, started, submitted
from tests.worker.operate.ground import jobs_in, put
from worker.folder.jobs import JobsFolder
from worker.operate import places
from worker.operate.places import Wanted, choose


@pytest.fixture
def jobs(tmp_path: Path) -> JobsFolder:
    made = jobs_in(tmp_path)
    put(made, "aa11", job(submitted()))
    put(made, "aa22", job(started()))
    put(made, "bb33", job(spec=None))
    put(made, "cc44", job(started(result=result("failed")), outcome=outcome("job", word="failed")), "done/2026-11-20")
    put(made, "cc55", job(started(result=result()), outcome=outcome("job")), "done/2026-11-21")
    put(made, "dd66", job(spec=None), "rejected")
    put(made, "ee77", job(started(), outcome=outcome("job")), "undelivered")
    return made


def ids(jobs: JobsFolder, *names: str, **filters: Any) -> tuple[list[str], list[str]]:
    found, unknown = choose(jobs, Wanted(names, **filters), time.time())
    return [each.job.id for each in found], unknown


def test_nothing_named_means_every_active_job(jobs: JobsFolder) -> None:
    assert ids(jobs) == (["aa11", "aa22", "bb33"], [])


def test_a_job_is_named_by_its_id_or_by_a_beginning_that_only_it_has(jobs: JobsFolder) -> None:
    assert ids(jobs, "aa11", "b", "cc4", "d", "ee77") == (["aa11", "bb33", "cc44", "dd66", "ee77"], [])
    assert ids(jobs, "aa", "zz", "aa11") == (["aa11"], ["aa", "zz"])


def test_an_id_that_begins_another_one_s_is_that_job(jobs: JobsFolder) -> None:
    put(jobs, "aa11-2", job())

    assert ids(jobs, "aa11") == (["aa11"], [])


@pytest.mark.parametrize("name", ["../active/aa11", "./aa11", "a*", "", ".", "..", "/", "aa11/attempts"])
def test_a_name_is_no_path_and_no_pattern(jobs: JobsFolder, name: str) -> None:
    assert ids(jobs, name) == ([], [name])


@pytest.mark.parametrize(("filters", "expected"), [
    ({"states": ("pending",)}, ["aa11"]),
    ({"states": ("pending", "running")}, ["aa11", "aa22"]),
    ({"states": ("done",)}, ["cc55", "cc44"]),
    ({"states": ("rejected",)}, ["dd66"]),
    ({"states": ("claimed", "undelivered")}, ["bb33", "ee77"]),
    ({"outcome": "failed"}, ["cc44"]),
    ({"outcome": "succeeded"}, ["ee77", "cc55"]),
    ({"workload": "copy"}, ["aa11", "aa22"]),
    ({"workload": "other"}, []),
    ({"queue": "jobs"}, ["aa11", "aa22", "bb33"]),
    ({"queue": "other"}, []),
])  # fmt: skip
def test_filters_choose_by_what_is_known_of_a_job(
    jobs: JobsFolder, filters: dict[str, Any], expected: list[str]
) -> None:
    assert ids(jobs, **filters) == (expected, [])


def test_age_is_counted_from_the_claim(jobs: JobsFolder) -> None:
    os.utime(jobs.active / "aa11" / "message.json", (NOW, time.time() - 7200))

    assert ids(jobs, older_than=3600)[0] == ["aa11"]
    assert ids(jobs, newer_than=3600)[0] == ["aa22", "bb33"]


def test_counting_and_listing_open_no_file_of_a_job_that_is_not_asked_for(
    jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(Path, "read_bytes", lambda self: opened.append(self))

    assert len([*places.active(jobs)]) == 3
    assert places.count(jobs.done / "2026-11-20") == 1
    assert ids(jobs, states=("running", "done"))[0] == ["aa22", "cc55", "cc44"]

    assert opened == []
