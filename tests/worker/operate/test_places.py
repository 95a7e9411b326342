"""The jobs that an operator means: by id, by its beginning, by filters; and no file is opened that need not be."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.worker.examples import NOW, config_for
from tests.worker.login.situations import job, outcome, result, started, submitted
from tests.worker.operate.ground import jobs_in, put
from worker.folder.jobs import JobsFolder
from worker.folder.outline import stage_put_away
from worker.job.facts import Delivered
from worker.operate import places
from worker.operate.naming import choose
from worker.operate.places import Wanted


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
    config = config_for(jobs.path.parent, changes={"jobs_dir": jobs.path})
    found = choose(config, jobs, Wanted(names, **filters), time.time())
    return [each.job.id for each in found.jobs], [each.word for each in found.unclear]


def test_nothing_named_means_every_active_job(jobs: JobsFolder) -> None:
    assert ids(jobs) == (["aa11", "aa22", "bb33"], [])


def test_a_job_is_named_by_its_id_or_by_a_beginning_that_only_it_has(jobs: JobsFolder) -> None:
    assert ids(jobs, "aa11", "b", "cc4", "d", "ee77") == (["aa11", "bb33", "cc44", "dd66", "ee77"], [])
    assert ids(jobs, "aa", "zz", "aa11") == (["aa11"], ["aa", "zz"])


def test_an_id_that_begins_another_one_s_is_that_job(jobs: JobsFolder) -> None:
    put(jobs, "aa111", job())

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


def test_those_that_were_put_away_come_with_the_last_one_first_however_often_their_folders_were_changed_since(
    jobs: JobsFolder,
) -> None:
    for name, at in (("cc71", 300), ("cc72", 100), ("cc73", 500)):
        put(
            jobs,
            name,
            job(started(), outcome=outcome("job")),
            "done/2026-11-22",
            ("delivered.json", Delivered("", NOW)),
        )
        place = jobs.done / "2026-11-22" / name
        os.utime(place / "delivered.json", (at, at))
        os.utime(place, (at, at))
    os.utime(jobs.done / "2026-11-22" / "cc72", (900, 900))  # it was run again, which its folder says

    assert ids(jobs, states=("done",))[0] == ["cc73", "cc71", "cc72", "cc55", "cc44"]


def test_of_a_day_no_more_jobs_are_looked_at_than_are_wanted(jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        put(jobs, f"d{number}", job(started(), outcome=outcome("job")), "done/2026-11-22")
        for path in (jobs.done / "2026-11-22" / f"d{number}" / "message.json", jobs.done / "2026-11-22" / f"d{number}"):
            os.utime(path, (number, number))
    looked_at: list[str] = []
    look = stage_put_away

    def noted(path: str, word: str) -> object:
        looked_at.append(path)
        return look(path, word)

    monkeypatch.setattr(places, "stage_put_away", noted)

    first = next(places.put_away(jobs, ["done"]))

    assert first.job.id == "d49" and len(looked_at) == 1


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
