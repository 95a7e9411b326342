"""What `check.py test` says: each step as it comes, or as JSON in the end."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import Optional

from .. import as_json
from . import screen
from .small_job import Failed


class Heard(logging.Handler):
    """The last thing that a pass complained of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


@dataclass(frozen=True)
class Step:
    step: str
    """Its name."""
    words: str
    seconds: float
    """Since the command began."""


@dataclass(frozen=True)
class Failure:
    step: str
    """The name of the step that failed."""
    found: str
    fix: str


@dataclass(frozen=True)
class Shown:
    """What --json prints."""

    well: bool
    """Whether one job went all the way."""
    job: str
    steps: list[Step]
    """In the order of time."""
    failed: Optional[Failure]
    """null where nothing did."""


class Told:
    """What is said: each step as it comes, or as JSON in the end."""

    def __init__(self, in_json: bool) -> None:
        self._in_json = in_json
        self._begun = time.monotonic()
        self._steps: list[Step] = []
        self._once: set[str] = set()
        self.job = ""
        self.left_behind = "Nothing was left behind"

    def step(self, name: str, words: str, once: bool = False) -> None:
        if once and name in self._once:
            return
        self._once.add(name)
        seconds = time.monotonic() - self._begun
        self._steps.append(Step(name, words, round(seconds, 1)))
        if not self._in_json:
            print(f"{seconds:6.1f} s  {name:11}  {screen.plain(words, 1000)}", flush=True)

    def well(self) -> None:
        if self._in_json:
            self._print(None, os.EX_OK)
        else:
            print(f"All is well: one job went all the way in {time.monotonic() - self._begun:.0f} s.")

    def failed(self, failed: Failed) -> None:
        if self._in_json:
            self._print(Failure(failed.step, failed.found, failed.fix), failed.code)
            return
        seconds = time.monotonic() - self._begun
        print(f"{seconds:6.1f} s  {failed.step:11}  FAILED: {screen.plain(failed.found, 1000)}.")
        print(failed.fix)

    def _print(self, failed: Optional[Failure], code: int) -> None:
        as_json.show(Shown(failed is None, self.job, self._steps, failed), code)
