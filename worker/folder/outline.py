"""What a job's folder shows of where it stands: names and times. A file is opened only where its name does not tell.

Paths are plain text here, because there may be ten thousand jobs, and most of their names are never opened.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from ..errors import Damaged
from ..job import stage
from ..job.stage import ACTIVE, Mark, Outline, Stage
from .facts import JobFolder, read_result
from .paths import is_number

_JOB = JobFolder(Path("job"))
_ATTEMPT = _JOB.attempt(1)
_ATTEMPTS = _JOB.attempts.name
_OF_A_JOB: Mapping[str, Mark] = {
    _JOB.message.name: "message",
    _JOB.spec.name: "spec",
    _JOB.attempts.name: "attempts",
    _JOB.held.name: "held",
    _JOB.cancel_asked.name: "cancel_asked",
    _JOB.outcome.name: "outcome",
    _JOB.delivered.name: "delivered",
    _JOB.undeliverable.name: "undeliverable",
    _JOB.unroutable.name: "not_taken",
}
_OF_AN_ATTEMPT: Mapping[str, Mark] = {
    _ATTEMPT.intent.name: "intent",
    _ATTEMPT.submission.name: "submission",
    _ATTEMPT.started.name: "started",
    _ATTEMPT.cancel.name: "cancel",
    _ATTEMPT.ended.name: "ended",
    _ATTEMPT.result.name: "result",
}


def stage_at(path: str) -> Optional[Stage]:
    """Where the active job in this folder stands; None where its message has not come yet, or it has just moved away."""
    try:
        return stage.stage_of(_Folder(path, ACTIVE).outline())
    except FileNotFoundError:
        return None
    except (Damaged, OSError):
        return stage.damaged(os.lstat(path).st_mtime)


def stage_put_away(path: str, word: str) -> Optional[Stage]:
    """The same of a job that was put away as `word` says; None also where it can't be read."""
    try:
        return stage.stage_of(_Folder(path, word).outline())
    except OSError:
        return None


class _Folder:
    """A job's folder, listed."""

    __slots__ = ("_attempt", "_files", "_path", "_place")

    def __init__(self, path: str, place: str) -> None:
        """Raises OSError."""
        self._path, self._place = path, place
        self._files: dict[Mark, str] = {_OF_A_JOB[name]: name for name in os.listdir(path) if name in _OF_A_JOB}
        self._files["folder"] = ""
        self._attempt = self._last_attempt() if "attempts" in self._files else 0
        if self._attempt and place == ACTIVE and "outcome" not in self._files:
            self._list_attempt(f"{_ATTEMPTS}/{self._attempt}")

    def outline(self) -> Outline:
        return Outline(self._place, self._files.keys(), self._attempt, self._written_at, self._goes_on)

    def _last_attempt(self) -> int:
        return max(map(int, filter(is_number, os.listdir(f"{self._path}/{_ATTEMPTS}"))), default=0)

    def _list_attempt(self, folder: str) -> None:
        names = os.listdir(f"{self._path}/{folder}")
        self._files.update((_OF_AN_ATTEMPT[name], f"{folder}/{name}") for name in names if name in _OF_AN_ATTEMPT)
        self._files["attempt"] = folder
        declined = _ATTEMPT.declined(1 + sum(name.startswith("intent-") for name in names)).name
        if "intent" in self._files and declined in names:  # each submission but the first has an intent with a number
            self._files["declined"] = f"{folder}/{declined}"

    def _written_at(self, mark: Mark) -> float:
        return os.lstat(f"{self._path}/{self._files[mark]}").st_mtime

    def _goes_on(self) -> bool:
        """Raises Damaged, and OSError."""
        job = JobFolder(Path(self._path))
        attempt, spec = job.attempt(self._attempt), job.spec.read()
        result, intent = read_result(attempt), attempt.intent.read()
        return stage.goes_on(result, spec, intent.resources if intent else None)
