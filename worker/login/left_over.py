"""An active folder without a message: what becomes of it.

Mostly a message was about to be claimed, or a worker that was cut off wrote once more into a folder that had been put away.
But where the job had begun, and is nowhere else, a file was lost: to a purge of scratch space, say. Then somebody waits for
an answer, so the folder is never deleted. The worker leaves what it had read at its start (`Kept`), and the job goes on.
"""

from __future__ import annotations

import contextlib
import logging

from ..errors import Damaged
from ..folder import done_ids, paths
from ..folder.batches import Pool
from ..folder.facts import JobFolder, restore
from ..folder.jobs import JobsFolder
from ..folder.moves import remove_unclaimed
from ..job.facts import Kept
from ..job.names import JobId
from ..settings import Config
from .ids import Ids

log = logging.getLogger(__name__)

_UNCLAIMED_AFTER = 3600.0
"""Seconds after which a folder without a message is removed: its redelivery would have come."""
_ID_OF_A_BATCH = 32


def restored(config: Config, jobs: JobsFolder, job: JobFolder, server_now: float) -> bool:
    """Whether the message is there again. `server_now`: by the file server's clock. Raises Damaged where it is lost, and
    OSError."""
    if not paths.names_in(job.path):
        return _remove_if_old(job, server_now)
    if not _had_begun(job) or _is_elsewhere(config, jobs, job.id):
        return _remove_if_old(job, server_now)
    for number in reversed(job.attempt_numbers()):
        kept = job.attempt(number).kept.read()
        if kept is not None:
            _restore(job, number, kept)
            return True
    raise Damaged(f"{job.message} is gone, and so is the answer that somebody waits for")


def _had_begun(job: JobFolder) -> bool:
    return paths.is_there(job.attempts) or any(fact.is_there() for fact in (job.spec, job.outcome, job.acked))


def _is_elsewhere(config: Config, jobs: JobsFolder, job_id: JobId) -> bool:
    """It was put away, or a batch has it: then this is what a late worker left, or a pass that was killed."""
    if jobs.find(job_id) is not None or done_ids.outcome_of(jobs, job_id):
        return True
    for queue in config.site.queues:
        pool = Pool(jobs, queue.name)
        if paths.is_folder(pool.path):
            done = Ids(pool.path / "ids").known([job_id] if len(job_id) == _ID_OF_A_BATCH else [])
            if done or job_id in pool.open_ids():
                return True
    return False


def _remove_if_old(job: JobFolder, server_now: float) -> bool:
    with contextlib.suppress(FileNotFoundError):
        if server_now - job.path.stat().st_mtime > _UNCLAIMED_AFTER:
            remove_unclaimed(job)
    return False


def _restore(job: JobFolder, number: int, kept: Kept) -> None:
    """The message comes last: without it this is done once more."""
    attempt = job.attempt(number)
    restore(kept, job, attempt)
    with job.message.prepared(kept.message, at=kept.claimed_at) as commit:
        commit()
    log.warning("files of the job were lost, its worker had kept what they said job=%s", job.id)
