"""A program begins where it is on disk that it does, and nowhere else."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.examples import NOW
from worker.errors import StepFailed
from worker.folder import fence, paths
from worker.folder.facts import AttemptFolder
from worker.in_job.begin import note_begun
from worker.in_job.interrupt import Interrupted, Interrupts
from worker.job.facts import Started
from worker.job.names import JobId

JOB = JobId("job")
STARTED = Started("7", 0, "n1", NOW, says_begun=True)


@pytest.fixture
def attempt(tmp_path: Path) -> AttemptFolder:
    made = AttemptFolder(tmp_path, 1)
    made.started.claim(STARTED)
    return made


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    with Interrupts(3600) as made:
        yield made


def fail(patch: pytest.MonkeyPatch, times: int, stands: bool = False) -> list[float]:
    """The disk is away for so many links, of which the first `stands` all the same; returns how long was waited each time."""
    link, left, waited = os.link, [times], list[float]()

    def away(source: Path, target: Path) -> None:
        if left[0] == 0:
            return link(source, target)
        if stands and left[0] == times:
            link(source, target)
        left[0] -= 1
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    clock = time.monotonic()
    patch.setattr(os, "link", away)
    patch.setattr(time, "sleep", waited.append)
    patch.setattr(time, "monotonic", lambda: clock + sum(waited))
    return waited


def test_that_a_program_begins_is_one_link_to_what_is_on_disk(
    attempt: AttemptFolder, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(paths, "sync_folder", synced.append)

    note_begun(JOB, attempt, 120, interrupts)

    assert attempt.begun.read() == STARTED and attempt.begun.path.samefile(attempt.started.path)
    assert synced == [attempt.path] and sorted(os.listdir(attempt.path)) == ["begun.json", "started.json"]


def test_whose_attempt_was_closed_is_not_started(attempt: AttemptFolder, interrupts: Interrupts) -> None:
    assert fence.close_program(attempt, NOW)

    with pytest.raises(StepFailed, match="ended before its program could begin") as failed:
        note_begun(JOB, attempt, 120, interrupts)

    assert (failed.value.step, failed.value.may_work_again) == ("start", True)
    assert fence.close_program(attempt, NOW), "as often as it is asked"


def test_what_has_begun_is_not_closed(attempt: AttemptFolder, interrupts: Interrupts) -> None:
    note_begun(JOB, attempt, 120, interrupts)

    assert not fence.close_program(attempt, NOW)


@pytest.mark.parametrize("stands", [False, True])
def test_a_disk_that_comes_back_in_time_is_waited_for(
    attempt: AttemptFolder, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch, stands: bool
) -> None:
    """A link may stand although its answer was lost."""
    waited = fail(monkeypatch, 5, stands)

    note_begun(JOB, attempt, 120, interrupts)

    assert len(waited) == 5 and attempt.begun.path.exists()


def test_a_disk_that_stays_away_keeps_the_program_from_starting(
    attempt: AttemptFolder, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waited = fail(monkeypatch, 10**6)

    with pytest.raises(StepFailed, match="disk could not be used .Connection timed out") as failed:
        note_begun(JOB, attempt, 120, interrupts)

    assert (failed.value.step, failed.value.may_work_again) == ("start", True)
    assert sum(waited) == 120 and len(caplog.records) == 1


def test_the_time_limit_goes_on_while_the_disk_is_waited_for(
    attempt: AttemptFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Interrupts(60) as interrupts:
        waited = fail(monkeypatch, 10**6)

        with pytest.raises(Interrupted) as interrupted:
            note_begun(JOB, attempt, 3600, interrupts)

    assert interrupted.value.by_clock and sum(waited) == 60
