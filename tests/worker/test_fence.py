"""An attempt is closed or begun, never both, and everybody sees which."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.worker.examples import NOW, SPEC
from worker.errors import Damaged
from worker.folder import fence, paths
from worker.folder.facts import AttemptFolder, JobFolder, is_running, read_started
from worker.folder.jobs import JobsFolder
from worker.folder.outline import stage_at
from worker.folder.records import Fact
from worker.folder.snapshot import read_attempt
from worker.in_job import run
from worker.in_job.steps import Placement
from worker.job.facts import Cancel, Intent, Started
from worker.job.names import JobId
from worker.operate.timeline import _attempt

EXPIRED = Cancel("expired", "The job's deadline passed before it could start.", NOW)
CANCELLED = Cancel("cancelled", "Somebody cancelled it.", NOW + 1)
PLACE = Placement("7", 0, "n1", True)


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    jobs = JobsFolder(tmp_path)
    jobs.prepare()
    job = jobs.job(JobId("job"))
    paths.make_folder(job.attempt(1).path)
    job.attempt(1).intent.write(Intent("1", "bf-here-1", 0, SPEC.resources, NOW))
    return job


@pytest.fixture
def attempt(job: JobFolder) -> AttemptFolder:
    return job.attempt(1)


def test_who_finds_an_attempt_closed_does_not_begin_it(
    job: JobFolder, attempt: AttemptFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert fence.close(attempt, EXPIRED, NOW)

    started = run._start(job, attempt, PLACE)

    assert started is None and not attempt.result.path.exists()
    assert caplog.messages == ["this attempt was closed, leaving job=job attempt=1"]


def test_an_attempt_that_has_begun_is_not_closed(job: JobFolder, attempt: AttemptFolder) -> None:
    started = run._start(job, attempt, PLACE)

    assert not fence.close(attempt, EXPIRED, NOW)
    assert read_attempt(attempt).started == started and not read_attempt(attempt).closed


def test_closing_may_be_repeated_and_the_first_reason_stays(attempt: AttemptFolder) -> None:
    assert fence.close(attempt, EXPIRED, NOW) and fence.close(attempt, CANCELLED, NOW + 1)

    assert read_attempt(attempt).cancel == EXPIRED


def test_the_reason_is_on_disk_before_the_attempt_is_closed(
    attempt: AttemptFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(paths, "crash_point", lambda step: seen.append((step, attempt.cancel.path.exists())))

    fence.close(attempt, EXPIRED, NOW)

    assert ("before started.json", True) in seen


def test_one_that_was_never_intended_can_be_closed_too(job: JobFolder) -> None:
    assert fence.close(job.attempt(2), None, NOW)

    assert read_attempt(job.attempt(2)).closed and read_attempt(job.attempt(2)).cancel is None


def test_what_cannot_be_read_is_neither_closed_nor_begun(attempt: AttemptFolder) -> None:
    attempt.started.path.write_text("{")

    with pytest.raises(Damaged):
        fence.close(attempt, EXPIRED, NOW)


def test_a_closed_attempt_is_nowhere_shown_as_running(job: JobFolder, attempt: AttemptFolder) -> None:
    Fact(job.message.path, Cancel).write(EXPIRED)  # only its name counts here
    fence.close(attempt, EXPIRED, NOW)

    facts, shown = read_attempt(attempt), stage_at(str(job.path))

    assert facts.closed and facts.started is None and facts.slurm_id is None
    assert read_started(attempt) is None and not is_running(attempt)
    assert shown is not None and shown.word == "cancelling"
    assert [event.what for event in _attempt(attempt)] == ["sbatch", "withdrawn", "closed"]


def test_one_that_runs_on_a_node_named_login_is_not_closed(attempt: AttemptFolder) -> None:
    attempt.started.claim(Started("local-1", 0, "login", NOW))

    assert not fence.close(attempt, EXPIRED, NOW)
    assert is_running(attempt)
