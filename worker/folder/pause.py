"""Whether somebody has paused this installation: what a pass goes by, and what people are shown.

Passes go on all the same: what runs is looked after, answers leave, and deadlines and `max_wait` go on.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, replace
from typing import Optional

from ..errors import Damaged
from ..job.facts import Paused
from ..job.names import JobId
from . import paths
from .facts import paused_of
from .jobs import JobsFolder

_BELL = JobId("paused")
"""Wakes a watch that would sleep until a message comes."""


@dataclass(frozen=True)
class Pause:
    """No new message is taken. `at`: seconds since 1970; `by`: user@host."""

    at: float
    submit: bool
    """Whether nothing that is claimed is submitted either."""
    by: str = ""
    reason: str = ""
    damaged: str = ""
    """Why its file can't be read. Then it stops all that a pause can stop: a job that waits is never wrong."""

    @property
    def what(self) -> str:
        claimed = ", and nothing that is claimed is submitted" if self.submit else ""
        return f"no new message is taken{claimed}"

    @property
    def sentence(self) -> str:
        """Without its full stop."""
        if self.damaged:
            return f"{self.what}, because the file that says who paused this can't be read: {self.damaged}"
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.at))
        return f"paused by {self.by} since {since}{f' ({self.reason})' if self.reason else ''}: {self.what}"


def look(jobs: JobsFolder) -> Optional[Pause]:
    """None where nobody has. Raises OSError where the disk is away."""
    try:
        said = paused_of(jobs).read()
    except Damaged as error:
        return Pause(os.lstat(jobs.paused).st_mtime, True, damaged=str(error))
    return None if said is None else Pause(said.at, said.submit, said.by, said.reason)


def seen(jobs: JobsFolder) -> Optional[Pause]:
    """For people; None where the disk does not say."""
    with contextlib.suppress(OSError):
        return look(jobs)
    return None


def begin(jobs: JobsFolder, by: str, submit: bool, reason: str) -> bool:
    """False where somebody has done so already, and this adds nothing. Raises OSError."""
    fact, said = paused_of(jobs), Paused(by, time.time(), submit, reason)
    if fact.claim(said):
        jobs.ring(_BELL)
        return True
    before = look(jobs)
    if before is not None and not before.damaged and (before.submit or not submit):
        return False
    if before is not None and before.damaged:
        paths.put_aside(fact.path)
    fact.write(replace(said, reason=reason or (before.reason if before is not None else "")))
    jobs.ring(_BELL)
    return True


def end(jobs: JobsFolder) -> Optional[Pause]:
    """What was ended; None where nothing was paused. Raises OSError."""
    before = look(jobs)
    if before is not None:
        paused_of(jobs).remove()
        paths.sync_folder(jobs.active)
        jobs.ring(_BELL)
    return before
