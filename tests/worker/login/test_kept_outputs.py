"""Outputs that no answer carried: kept until they are too old, or too many; of delivered jobs alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from worker.folder.facts import JobFolder
from worker.folder.jobs import JobsFolder
from worker.job.facts import Delivered
from worker.login import kept_outputs
from worker.settings import Limits, Queue, Seconds, Site, Timing

DAY = 86400.0
NOW = 20_000 * DAY  # 2024-10-04
SITE = Site((Queue("jobs", "copy"),), {}, limits=Limits(kept_bytes=100), timing=Timing(keep_outputs=Seconds(7 * DAY)))


@pytest.fixture
def jobs(tmp_path: Path) -> JobsFolder:
    jobs = JobsFolder(tmp_path)
    jobs.prepare()
    return jobs


def put_away(jobs: JobsFolder, name: str, size: int, day: str = "2024-10-04", site: Site = SITE) -> Path:
    """As a pass does; returns where its outputs are."""
    place = jobs.done / day
    outputs = place / name / "attempts" / "1" / "outputs"
    outputs.mkdir(parents=True)
    (outputs / "00_Model").write_bytes(b"x" * size)
    job = JobFolder(place / name)
    job.delivered.write(Delivered("answers", NOW))
    assert kept_outputs.size_of(job) == size
    kept_outputs.note(jobs, place, job, size, site, NOW)
    return outputs


def test_the_oldest_make_room_for_one_that_comes(jobs: JobsFolder) -> None:
    outputs = [
        put_away(jobs, name, 40, day) for name, day in (("b", "2024-10-02"), ("a", "2024-10-03"), ("c", "2024-10-04"))
    ]

    assert [path.exists() for path in outputs] == [False, True, True]
    assert (outputs[0].parents[2] / "delivered.json").exists(), "that it was done stays known"


def test_those_of_a_day_go_in_the_order_in_which_they_came(jobs: JobsFolder) -> None:
    outputs = [put_away(jobs, name, 30) for name in "bacd"]

    assert [path.exists() for path in outputs] == [False, True, True, True]


def test_what_is_too_old_goes_whatever_its_size(jobs: JobsFolder) -> None:
    old, younger = put_away(jobs, "a", 1, "2024-09-26"), put_away(jobs, "b", 1, "2024-09-28")

    kept_outputs.sweep(jobs, SITE, NOW)

    assert (old.exists(), younger.exists()) == (False, True)


def test_a_job_without_any_is_not_listed(jobs: JobsFolder) -> None:
    (jobs.done / "2024-10-04" / "a" / "attempts" / "1").mkdir(parents=True)

    job = JobFolder(jobs.done / "2024-10-04" / "a")
    assert kept_outputs.size_of(job) == 0
    kept_outputs.note(jobs, jobs.done / "2024-10-04", job, 0, SITE, NOW)
    assert not (jobs.done / "2024-10-04" / ".outputs").exists()


def test_a_list_that_was_damaged_removes_nothing_that_it_does_not_name(jobs: JobsFolder, tmp_path: Path) -> None:
    kept = put_away(jobs, "a", 30)
    (tmp_path / "attempts" / "1" / "outputs").mkdir(parents=True)
    (jobs.done / "2024-10-04" / ".outputs").write_bytes(b"99 ../..\n99 \xff\nx a\n-1 a\n99\n 5 a\n")

    kept_outputs.sweep(jobs, replace(SITE, limits=Limits(kept_bytes=0)), NOW)

    assert kept.exists() and (tmp_path / "attempts" / "1" / "outputs").exists()


def test_a_job_that_was_taken_out_meanwhile_is_passed_over(jobs: JobsFolder) -> None:
    put_away(jobs, "a", 60)
    (jobs.done / "2024-10-04" / "a").rename(jobs.active / "a")

    later = put_away(jobs, "b", 60)

    assert later.exists() and (jobs.active / "a" / "attempts" / "1" / "outputs").exists()
