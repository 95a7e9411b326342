"""What a process keeps of its own: what it has said already, and whether it was told to end."""

from __future__ import annotations

import logging
import os
from pathlib import Path


class Stop:
    """Once it is asked for, nothing new is begun."""

    def __init__(self) -> None:
        self.asked = False


class Notices:
    """A watch says what is wrong once, and not in each pass."""

    def __init__(self, watching: bool = False) -> None:
        self.watching = watching
        """One process for many passes: it keeps what works, and asks Slurm by the clock."""
        self.each_pass = logging.DEBUG if watching else logging.INFO
        """The level of what would be said again in each pass: fit for one a minute, and not for a process that watches."""
        self._times: dict[str, int] = {}
        self._words: dict[str, str] = {}

    def is_new(self, job_id: str, times: int) -> bool:
        """Whether this process has not said it of the job yet."""
        before, self._times[job_id] = self._times.get(job_id), times
        return before != times

    def is_news(self, about: str, words: str) -> bool:
        """Whether this process has not said it yet, or has said something else since."""
        before, self._words[about] = self._words.get(about), words
        return before != words

    def is_over(self, about: str) -> None:
        """What comes next about it is news again."""
        self._words.pop(about, None)

    def forget_gone(self, active: Path) -> None:
        """Jobs that are no longer in this folder."""
        if self._times:
            names = set(os.listdir(active))
            self._times = {job_id: times for job_id, times in self._times.items() if job_id in names}
