"""What `check.py test` says: each step as it comes, or as JSON in the end."""

from __future__ import annotations

import json
import logging
import time
from typing import Optional

from . import screen
from .small_job import Failed


class Heard(logging.Handler):
    """The last thing that a pass complained of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


class Told:
    """What is said: each step as it comes, or as JSON in the end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._begun = time.monotonic()
        self._steps: list[dict[str, object]] = []
        self._once: set[str] = set()
        self.job = ""
        self.left_behind = "Nothing was left behind"

    def step(self, name: str, words: str, once: bool = False) -> None:
        if once and name in self._once:
            return
        self._once.add(name)
        seconds = time.monotonic() - self._begun
        self._steps.append({"step": name, "words": words, "seconds": round(seconds, 1)})
        if not self._as_json:
            print(f"{seconds:6.1f} s  {name:11}  {screen.plain(words, 1000)}", flush=True)

    def well(self) -> None:
        if self._as_json:
            self._print(None)
        else:
            print(f"All is well: one job went all the way in {time.monotonic() - self._begun:.0f} s.")

    def failed(self, failed: Failed) -> None:
        if self._as_json:
            self._print({"step": failed.step, "found": failed.found, "fix": failed.fix})
            return
        seconds = time.monotonic() - self._begun
        print(f"{seconds:6.1f} s  {failed.step:11}  FAILED: {screen.plain(failed.found, 1000)}.")
        print(failed.fix)

    def _print(self, failed: Optional[dict[str, str]]) -> None:
        told = {"well": failed is None, "job": self.job, "steps": self._steps, "failed": failed}
        print(json.dumps(told, indent=1))
