"""A job that waits for its own workload, and for nothing else: it takes no place, and in the end it is answered truly."""

from __future__ import annotations

import logging
import time

from ..folder import answer, fence, paths
from ..folder.facts import JobFolder
from ..folder.snapshot import read_attempt
from ..job import sentences
from ..job.facts import Cancel, Held
from ..job.outcome import Result
from .pass_state import PassState

log = logging.getLogger(__name__)


def hold(state: PassState, job: JobFolder, number: int, queue: str, why: str, patience: float) -> bool:
    """For a job that would be submitted now. True where it has its result instead, after `patience` seconds."""
    held = job.held.read()
    if held is None:
        held = Held(why, time.time())
        job.held.write(held)
        log.warning("held: its workload can't be begun job=%s why=%r", job.id, why)
    waited = time.time() - held.since
    if waited >= patience and _answer(job, number, waited):
        return True
    state.faults.stopped.setdefault(why, why)
    state.places.hold(job.id, queue)
    return False


def let_go(job: JobFolder) -> None:
    """Its workload is there."""
    job.held.remove()
    log.info("no longer held job=%s", job.id)


def _answer(job: JobFolder, number: int, waited: float) -> bool:
    """False where the attempt has begun after all: it may have been submitted before, without a clear answer."""
    attempt, reason = job.attempt(number), sentences.installation_at_fault(waited)
    paths.make_folder(attempt.path)
    if read_attempt(attempt).intents and not fence.close(attempt, Cancel("failed", reason, time.time()), time.time()):
        return False
    answer.record(attempt, Result("failed", number, reason, step="submit", ended_at=time.time()))
    return True
