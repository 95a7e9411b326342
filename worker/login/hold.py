"""A job that waits for its own workload, and for nothing else: it takes no place, and in the end it is answered truly."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..folder import answer, fence, paths
from ..folder.facts import JobFolder
from ..folder.snapshot import read_attempt
from ..job import sentences
from ..job.facts import Cancel, Held
from ..job.outcome import Result

if TYPE_CHECKING:
    from .reconcile import Standing
    from .tools import Tools

log = logging.getLogger(__name__)


def hold(tools: Tools, job: JobFolder, number: int, queue: str, standing: Standing, why: str) -> bool:
    """For a job that would be submitted now. True where it has its result instead, after `patience`."""
    held = job.held.read()
    if held is None:
        held = Held(why, tools.now())
        job.held.write(held)
        log.warning("held: its workload can't be begun job=%s why=%r", job.id, why)
    waited = tools.now() - held.since
    if waited >= tools.config.site.timing.patience and _answer(tools, job, number, waited):
        return True
    standing.stopped.setdefault(why, why)
    standing.hold(job.id, queue)
    return False


def let_go(job: JobFolder) -> None:
    """Its workload is there."""
    job.held.remove()
    log.info("no longer held job=%s", job.id)


def _answer(tools: Tools, job: JobFolder, number: int, waited: float) -> bool:
    """False where the attempt has begun after all: it may have been submitted before, without a clear answer."""
    attempt, reason = job.attempt(number), sentences.installation_at_fault(waited)
    paths.make_folder(attempt.path)
    if read_attempt(attempt).intents and not fence.close(attempt, Cancel("failed", reason, tools.now()), tools.now()):
        return False
    answer.record(attempt, Result("failed", number, reason, step="submit", ended_at=tools.now()))
    return True
