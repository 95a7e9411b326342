"""What a pass says of it that somebody has paused this installation."""

from __future__ import annotations

import logging
import os

from ..folder import pause
from ..folder.jobs import JobsFolder
from ..folder.pause import Pause

log = logging.getLogger(__name__)


def report(found: Pause, news: bool = True) -> int:
    """The exit code of a pass with nothing else to report: that somebody wants it so is no fault. `news`: whether this
    process has not said it yet."""
    if found.damaged:
        log.log(logging.ERROR if news else logging.DEBUG,
                "paused by a file that can't be read; docs/symptoms.md what=%r", found.damaged)  # fmt: skip
        return os.EX_DATAERR
    what = "no message is taken, nothing is submitted" if found.submit else "no message is taken"
    log.log(logging.INFO if news else logging.DEBUG,
            "paused, %s by=%s since=%.0f why=%r", what, found.by, found.at, found.reason)  # fmt: skip
    return os.EX_OK


def report_idle(jobs: JobsFolder) -> int:
    """For a pass that has nothing else to do. Where it was ended in this moment, the next pass takes messages."""
    found = pause.look(jobs)
    return os.EX_OK if found is None else report(found)
