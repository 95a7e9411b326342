"""The last step before a program is started: that it has begun is on disk, or it does not begin.

A job that ended without a result is judged by this alone: begun, it is answered for good, because a program that may have run
for hours must not run again unasked; not begun, it is tried again. So begun.json is exclusive, as started.json is: the login
side claims it where it sees none (worker/folder/fence.py), and a worker that comes late, cut off from Slurm perhaps, finds it.
"""

from __future__ import annotations

import logging

from ..errors import StepFailed
from ..folder.facts import AttemptFolder
from ..job import sentences
from ..job.names import JobId
from .interrupt import Interrupts
from .patience import while_the_disk_is_away

log = logging.getLogger(__name__)


def note_begun(job_id: JobId, attempt: AttemptFolder, patience: float, interrupts: Interrupts) -> None:
    """Raises StepFailed where the disk takes nothing for `patience` seconds, or where the login side was first.

    The one durable write of a job that is made for this alone: a link to started.json, whose content is on disk, and a sync of
    the folder. Neither may be left out: without the sync a power failure of a machine that has the disk itself takes the name
    away, after the program has run for hours.
    """
    try:
        first = while_the_disk_is_away(
            "the program waits",
            patience,
            lambda: attempt.begun.claim_as(attempt.started),
            lambda _: True,
            interrupts.allowed,
        )
    except OSError as error:
        raise StepFailed("start", sentences.disk_away(error.strerror or ""), may_work_again=True) from None
    if not first:
        log.warning("this attempt was closed, its program is not started job=%s attempt=%d", job_id, attempt.number)
        raise StepFailed("start", sentences.never_began(), may_work_again=True)
