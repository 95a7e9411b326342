"""Goes on with uploads whose worker ended before all had arrived: for a while in each pass, until nothing more is taken."""

from __future__ import annotations

import logging
import time

from ..errors import Transient
from ..folder.facts import AttemptFolder, JobFolder
from ..job import sentences
from ..job.outcome import Result
from ..transfer import Undelivered, answer_delivered, answer_undelivered, moved_at, upload
from .tools import Tools

log = logging.getLogger(__name__)

_SLICE = 20.0
"""Seconds of each pass, for all of them together."""
_LOOK = 1.0
"""Seconds between two looks whether the lease is still ours."""


class _LaterOn(Exception):
    """Others wait for this pass."""


def conclude(tools: Tools, job: JobFolder, attempt: AttemptFolder, result: Result) -> bool:
    """Whether the job has its outcome now. Raises Transient only for what is not the receiver's."""
    config, asked = tools.config, job.cancel_asked.read()
    if asked is not None:
        words = sentences.cancelled_by_operator(asked.reason)
        answer_undelivered(config, job, attempt, result, "cancelled", words, "login")
        return True
    until = tools.uploads_until = tools.uploads_until or time.monotonic() + _SLICE

    looked = float("-inf")

    def go_on() -> None:
        nonlocal looked
        now = time.monotonic()
        if now >= until or tools.stopping:
            raise _LaterOn
        if now - looked >= _LOOK:
            looked = now
            tools.check_lease()

    try:
        go_on()
        transfer = upload(config, job, attempt, result, go_on)
    except _LaterOn:
        return False
    except Undelivered as undelivered:
        answer_undelivered(config, job, attempt, result, "failed", str(undelivered), "login")
        return True
    except Transient as error:
        return _wait(tools, job, attempt, result, str(error))
    answer_delivered(config, job, attempt, result, transfer, "login")
    return True


def _wait(tools: Tools, job: JobFolder, attempt: AttemptFolder, result: Result, why: str) -> bool:
    patience = tools.config.site.results.upload_patience
    if tools.now() - moved_at(attempt, result) < patience:
        log.warning("outputs not taken, kept and sent again job=%s why=%r", job.id, why)
        return False
    words = sentences.outputs_not_taken(patience)
    log.error("outputs given up job=%s why=%r", job.id, why)
    answer_undelivered(tools.config, job, attempt, result, "failed", words, "login")
    return True
