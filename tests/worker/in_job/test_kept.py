"""What a worker does at its end where the job's files were taken away while it ran."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.worker.examples import SPEC
from worker.folder import paths
from worker.folder.facts import JobFolder
from worker.folder.jobs import JobsFolder
from worker.in_job.run import _put_back
from worker.job.facts import Intent, Kept, Message, Started
from worker.job.names import JobId

KEPT = Kept(
    Message(1, "jobs", "{}", 2, {"reply_to": "answers"}, 1.0), time.time() - 3600, SPEC,
    Intent("g", "bf-here-g", 0, SPEC.resources, 1.0), Started("7", 0, "n1", 2.0),
)  # fmt: skip


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    jobs = JobsFolder(tmp_path)
    jobs.prepare()
    job = jobs.job(JobId("a" * 32))
    paths.make_folder(job.attempt(1).path)
    job.message.write(KEPT.message)
    job.spec.write(SPEC)
    job.attempt(1).intent.write(KEPT.intent)
    job.attempt(1).started.write(KEPT.started)
    return job


def _listed(job: JobFolder) -> set[str]:
    return {*os.listdir(job.path), *os.listdir(job.attempt(1).path)}


def test_what_a_listing_does_not_show_yet_is_not_taken_for_gone(job: JobFolder) -> None:
    before = {path: path.stat().st_mtime_ns for path in job.path.rglob("*.json")}

    assert _put_back(job, job.attempt(1), KEPT, set())

    assert {path: path.stat().st_mtime_ns for path in job.path.rglob("*.json")} == before


def test_nothing_is_written_where_nothing_is_gone(job: JobFolder) -> None:
    before = {path: path.stat().st_mtime_ns for path in job.path.rglob("*.json")}

    assert _put_back(job, job.attempt(1), KEPT, _listed(job))

    assert {path: path.stat().st_mtime_ns for path in job.path.rglob("*.json")} == before


@pytest.mark.parametrize("gone", ["spec.json", "attempts/1/intent.json", "attempts/1/started.json"])
def test_what_is_gone_beside_the_message_is_written_again(job: JobFolder, gone: str) -> None:
    before = (job.path / gone).read_bytes()
    (job.path / gone).unlink()

    assert _put_back(job, job.attempt(1), KEPT, _listed(job))

    assert (job.path / gone).read_bytes() == before and not job.attempt(1).kept.path.exists()


@pytest.mark.parametrize("gone", ["the message", "all"])
def test_without_its_message_all_is_left_for_the_login_side_and_no_active_job_is_made(
    job: JobFolder, gone: str
) -> None:
    """The job may have been put away meanwhile: to make it active again would answer it twice."""
    for path in [job.message.path] if gone == "the message" else list(job.path.rglob("*.json")):
        os.unlink(path)

    assert not _put_back(job, job.attempt(1), KEPT, _listed(job))

    assert job.attempt(1).kept.read() == KEPT and not job.message.path.exists()
