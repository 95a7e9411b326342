"""What lies in one folder, of any day, and is kept for a while: of each kind, when something ended, and whether it may go."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Optional, Protocol

from ..folder import paths
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..job.stage import NOT_OURS, REJECTED
from .days import outcome_of

Looked = Optional[tuple[float, int]]
"""When it ended, in seconds since 1970, and how many bytes count for it; None for what is to stay, or has just gone."""
_GROUP = re.compile(r".*-(\d{14}-[0-9a-f]{6})")


class Kind(Protocol):
    word: str
    place: Path

    def names(self) -> list[str]:
        """In order. Raises Damaged, and OSError."""

    def look(self, name: str) -> Looked: ...

    def may_go(self, name: str) -> bool:
        """Asked of what is old enough. Raises OSError."""

    def outcome(self, name: str) -> str:
        """What is to be known of its id when it is gone; empty where nothing is."""


class _InOneFolder:
    def __init__(self, word: str, place: Path) -> None:
        self.word = word
        self.place = place

    def names(self) -> list[str]:
        return [name for name in paths.names_in(self.place) if not name.startswith(".")]

    def look(self, name: str) -> Looked:
        """One look: of a message that was not run, its own bytes are what counts."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = os.stat(JobFolder(self.place / name).message.path)
            return found.st_mtime, found.st_size
        return None

    def may_go(self, name: str) -> bool:
        return True

    def outcome(self, name: str) -> str:
        return ""


class Rejected(_InOneFolder):
    def __init__(self, jobs: JobsFolder) -> None:
        super().__init__(REJECTED, jobs.rejected)

    def may_go(self, name: str) -> bool:
        """Only once its answer was confirmed: one that could not be sent lies here as well, and stays."""
        job = JobFolder(self.place / name)
        return job.delivered.is_there() and not job.undeliverable.is_there()

    def outcome(self, name: str) -> str:
        """One that was cancelled, or expired, before it could be read lies here as well."""
        return outcome_of(JobFolder(self.place / name))


class NotOurs(_InOneFolder):
    """Nobody was answered, and where it comes again it may be ours."""

    def __init__(self, jobs: JobsFolder) -> None:
        super().__init__(NOT_OURS, jobs.not_ours)


class HalfMade(_InOneFolder):
    """Reruns whose makers were killed: no job yet, so nobody waits for them."""

    def __init__(self, jobs: JobsFolder) -> None:
        super().__init__("half_made", jobs.new)

    def look(self, name: str) -> Looked:
        with contextlib.suppress(FileNotFoundError):
            return os.lstat(self.place / name).st_mtime, paths.size_of(self.place / name)
        return None


class LeftByScheduler(_InOneFolder):
    """Its word on how a job ended is needed until every member of the job's group is put away: the group's file goes last."""

    def __init__(self, jobs: JobsFolder, place: Path, ended: Callable[[str], Optional[tuple[str, float]]]) -> None:
        super().__init__("left_by_scheduler", place)
        self._jobs = jobs
        self._ended = ended

    def look(self, name: str) -> Looked:
        ended = self._ended(name)
        return (ended[1], paths.size_of(self.place / name)) if ended is not None else None

    def may_go(self, name: str) -> bool:
        ended = self._ended(name)
        group = _GROUP.fullmatch(ended[0]) if ended is not None else None
        return ended is not None and (group is None or not paths.is_there(self._jobs.group(group[1])))
