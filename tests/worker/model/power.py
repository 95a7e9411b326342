"""What stops a process of the product in the middle: its moments, what may happen at each, and what the dead leave behind."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

from tests.worker.model.cluster import SlurmJob

Event = tuple[Any, ...]
"""The name of one of World's methods, and its arguments."""
LATER_THAN_ANY_STORY = 1_780_000_000
"""The time of a file that was written by the real clock. The stories' own clock is years behind it."""


class PowerFailure(BaseException):
    """Not an Exception, so that nothing in the product handles it."""


@dataclass(frozen=True)
class Trouble:
    """What happens to a process at one of its moments. `at`: its number, or a part of its name. `kind`: crash, drops (the
    broker closes the connection), full (the disk), told to stop (a worker), meanwhile (`events`)."""

    at: Union[int, str]
    kind: str
    events: tuple[Event, ...] = ()


@dataclass
class Process:
    """A pass or a worker that runs now."""

    kind: str
    troubles: tuple[Trouble, ...]
    slurm_job: Optional[SlurmJob] = None
    moments: int = 0
    killed: bool = False
    left_behind: Optional[Path] = None
    _struck: list[Trouble] = field(default_factory=list)

    def next_troubles(self, step: str) -> list[Trouble]:
        self.moments += 1
        return [trouble for trouble in self.troubles if self._is_now(trouble, step)]

    def _is_now(self, trouble: Trouble, step: str) -> bool:
        """Once: of a name, the first moment counts."""
        if isinstance(trouble.at, int):
            return trouble.at == self.moments
        if trouble.at not in step or trouble in self._struck:
            return False
        self._struck.append(trouble)
        return True

    def die(self, jobs: Path) -> None:
        """The dead tidy nothing up: their `finally` runs, and its work is undone by `bury`."""
        self.left_behind = jobs.with_name(f"{jobs.name}.{len(list(jobs.parent.iterdir()))}")
        shutil.copytree(jobs, self.left_behind, symlinks=True)
        raise PowerFailure(self.kind)

    def bury(self, jobs: Path) -> None:
        if self.left_behind is not None:
            shutil.rmtree(jobs)
            os.rename(self.left_behind, jobs)
