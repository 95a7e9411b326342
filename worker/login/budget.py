"""How many Slurm commands may still be used: a token bucket in one small file between passes, and a count by kind.

Sites limit how often a user may ask Slurm. When the bucket is empty, nothing fails: the work waits for the next pass. Work
that had to wait is not overtaken: what has had its turn more recently leaves it as many commands as it needs.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..build import open_scheduler, traits
from ..errors import Damaged
from ..folder.jobs import JobsFolder
from ..folder.paths import contents, write_note
from ..settings import Site

if TYPE_CHECKING:
    from scheduler import Scheduler

LEAST_AT_ONCE = 3
"""What the longest piece of work needs: a submission takes squeue, scontrol and sbatch."""
LOOK = 2
"""squeue, and sacct for those that it no longer shows."""


class Spent(Exception):
    """The bucket is empty: this has to wait."""


@dataclass
class _Bucket:
    """What the file holds."""

    tokens: float
    at: float
    turns: dict[str, int] = field(default_factory=dict)
    """When each kind of work had its last turn: a count and no time, for clocks are set."""
    waiting: dict[str, int] = field(default_factory=dict)
    """Work that was refused, and how many commands it needs..."""
    asked: list[str] = field(default_factory=list)
    """...of which these have asked in this pass; what no longer asks waits no more."""


class Budget:
    """`rate` tokens a second, at most `burst` of them. The file is no fact: without it, the bucket is full."""

    counts = True
    """Whether commands are run at all."""

    def __init__(self, file: Path, rate: float, burst: int) -> None:
        self._file, self._rate, self._burst = file, rate, burst
        self.used: Counter[str] = Counter()
        self.seconds: dict[str, float] = defaultdict(float)

    def left(self) -> int:
        """How many commands may be used now."""
        return int(self._read().tokens)

    def in_words(self) -> str:
        """How many of each kind were used, for the log."""
        return " ".join(f"{name}={times}" for name, times in sorted(self.used.items()))

    def forget_used(self) -> dict[str, int]:
        """What was used since this was asked last."""
        used = dict(self.used)
        self.used.clear()
        self.seconds.clear()
        return used

    # --- whose turn it is

    def begin_pass(self) -> None:
        bucket = self._read()
        if bucket.waiting or bucket.asked:
            bucket.waiting = {work: needs for work, needs in bucket.waiting.items() if work in bucket.asked}
            bucket.asked = []
            self._write(bucket)

    def could(self, work: str, needs: int) -> bool:
        """Whether this work may use so many commands now, and leaves enough for all that has waited longer."""
        return self._suffices(self._read(), work, needs)

    def may(self, work: str, needs: int) -> bool:
        """The same. If not, it waits from now on, and its turn comes."""
        bucket = self._read()
        suffices = self._suffices(bucket, work, needs)
        if suffices and work in bucket.waiting:
            del bucket.waiting[work]
            self._write(bucket)
        elif not suffices and (bucket.waiting.get(work) != needs or work not in bucket.asked):
            bucket.waiting[work] = needs
            bucket.asked = sorted({*bucket.asked, work})
            self._write(bucket)
        return suffices

    def begin(self, work: str, needs: int) -> None:
        """The same, and this is its turn. Raises Spent."""
        if not self.may(work, needs):
            raise Spent(work)
        self.had_turn(work)

    def leave_enough(self, needs: int) -> None:
        """For what people ask: it is no work, and takes nothing that work waits for. Raises Spent."""
        bucket = self._read()
        if bucket.tokens < needs + sum(bucket.waiting.values()):
            raise Spent("for people")

    def had_turn(self, work: str) -> None:
        bucket = self._read()
        latest = max(bucket.turns.values(), default=0)
        if not latest or bucket.turns.get(work) != latest:
            bucket.turns[work] = latest + 1
            self._write(bucket)

    def _suffices(self, bucket: _Bucket, work: str, needs: int) -> bool:
        """Work that has never had a turn comes first; of several, a submission."""

        def rank(of: str) -> tuple[int, bool, str]:
            return bucket.turns.get(of, 0), of != "submit", of

        ahead = sum(n for other, n in bucket.waiting.items() if rank(other) < rank(work))
        return bucket.tokens >= needs + ahead

    # --- the tokens

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
        """Raises Spent."""
        bucket = self._read()
        if bucket.tokens < 1:
            raise Spent(command)
        self.used[command] += 1
        bucket.tokens -= 1
        self._write(bucket)

    def _read(self) -> _Bucket:
        """As it is now. Nothing of a file that is damaged."""
        now = time.time()
        with contextlib.suppress(
            Damaged, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ArithmeticError
        ):
            kept = json.loads(contents(self._file) or b"")
            tokens, at = float(kept["tokens"]), float(kept["at"])
            turns = {str(work): int(turn) for work, turn in kept.get("turns", {}).items()}
            waiting = {str(work): int(needs) for work, needs in kept.get("waiting", {}).items()}
            if math.isfinite(tokens) and math.isfinite(at):
                filled = min(float(self._burst), tokens + max(0.0, now - at) * self._rate)
                bucket = _Bucket(max(0.0, filled), now, turns, waiting, [str(work) for work in kept.get("asked", [])])
                if now < at:  # the clock was set back: it fills from now on, and not only when that time comes again
                    with contextlib.suppress(OSError):
                        self._write(bucket)
                return bucket
        return _Bucket(float(self._burst), now)

    def _write(self, bucket: _Bucket) -> None:
        """Not synced: after a power failure a few commands more do no harm."""
        write_note(self._file, json.dumps(asdict(bucket)))


class Unlimited(Budget):
    """Of a scheduler that runs no commands: everybody may always ask it."""

    counts = False

    def __init__(self) -> None:
        super().__init__(Path(os.devnull), 0, sys.maxsize)

    def _read(self) -> _Bucket:
        return _Bucket(sys.maxsize, time.time())

    def _write(self, bucket: _Bucket) -> None:
        """There is nothing to note."""


def budget_of(site: Site, jobs: JobsFolder) -> Budget:
    s = site.slurm
    limited = traits(site).runs_commands
    return Budget(jobs.budget, s.commands_per_second, s.commands_at_once) if limited else Unlimited()


def scheduler_for_people(site: Site, jobs: JobsFolder, commands: int) -> Scheduler:
    """For questions that take so many commands, where so many are left over. Raises Spent, and so do its methods."""
    budget = budget_of(site, jobs)
    budget.leave_enough(commands)
    return open_scheduler(site, budget.spent_on)
