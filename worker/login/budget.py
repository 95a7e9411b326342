"""How many Slurm commands may still be used: a token bucket in one small file between passes, and a count by kind.

Sites limit how often a user may ask Slurm. When the bucket is empty, nothing fails: the work waits for the next pass.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from slurm import BatchRequest, Informant, JobView, Outlook, Scheduler, SlurmJobId, Usage


class Spent(Exception):
    """The bucket is empty: this has to wait."""


class Rationed:
    """A scheduler that takes a token before each command. Its methods raise Spent besides their own errors."""

    def __init__(self, scheduler: Scheduler, budget: Budget) -> None:
        self._scheduler, self._budget = scheduler, budget

    def submit(self, request: BatchRequest) -> SlurmJobId:
        with self._budget.spent_on("sbatch"):
            return self._scheduler.submit(request)

    def objection(self, request: BatchRequest) -> str:
        with self._budget.spent_on("sbatch"):
            return self._scheduler.objection(request)

    def largest_array(self) -> int:
        with self._budget.spent_on("scontrol"):
            return self._scheduler.largest_array()

    def queue(self) -> Sequence[JobView]:
        with self._budget.spent_on("squeue"):
            return self._scheduler.queue()

    def history(self, names: Sequence[str], since: float) -> Sequence[JobView]:
        with self._budget.spent_on("sacct"):
            return self._scheduler.history(names, since)

    def cancel(self, ids: Sequence[SlurmJobId], only_waiting: bool = False) -> None:
        with self._budget.spent_on("scancel"):
            self._scheduler.cancel(ids, only_waiting)


class RationedInformant(Rationed):
    """The same for what is asked for people."""

    def __init__(self, scheduler: Informant, budget: Budget) -> None:
        super().__init__(scheduler, budget)
        self._informant = scheduler

    def usage(self, slurm_id: SlurmJobId) -> Optional[Usage]:
        with self._budget.spent_on("sacct"):
            return self._informant.usage(slurm_id)

    def outlook(self, slurm_id: SlurmJobId) -> Optional[Outlook]:
        self._budget.take("squeue")
        self._budget.take("sinfo")
        return self._informant.outlook(slurm_id)


class Budget:
    """`rate` tokens a second, at most `burst` of them. The file is no fact: without it, the bucket is full."""

    def __init__(self, file: Path, rate: float, burst: int) -> None:
        self._file, self._rate, self._burst = file, rate, burst
        self.used: Counter[str] = Counter()
        self.seconds: dict[str, float] = defaultdict(float)

    def left(self) -> int:
        """How many commands may be used now."""
        return int(self._tokens())

    @contextlib.contextmanager
    def spent_on(self, command: str) -> Iterator[None]:
        """Takes a token, and notes how long the command took. Raises Spent."""
        self.take(command)
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[command] += time.monotonic() - begun

    def take(self, command: str) -> None:
        """Raises Spent. The file is not synced: after a power failure a few commands more do no harm."""
        tokens = self._tokens()
        if tokens < 1:
            raise Spent(command)
        self.used[command] += 1
        aside = self._file.with_name(f".{self._file.name}.{os.getpid():08d}")
        aside.write_text(json.dumps({"tokens": tokens - 1, "at": time.time()}))
        os.replace(aside, self._file)

    def _tokens(self) -> float:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self._file.read_text())
            # A clock that was set back must not leave us without tokens.
            passed = max(0.0, time.time() - float(kept["at"]))
            return min(float(self._burst), float(kept["tokens"]) + passed * self._rate)
        return float(self._burst)
