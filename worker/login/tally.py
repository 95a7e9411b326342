"""What the passes have seen, added up: jobs by outcome, seconds per step, bytes, Slurm commands. For people and metrics.

A sum, not a fact: a pass that is killed before its end counts nothing, and where the file is damaged or gone, counting
begins anew. Whatever must be true is read from the jobs' own folders.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Optional

from ..errors import Damaged
from ..folder import paths
from ..folder.facts import JobFolder
from ..folder.records import Fact
from ..job.outcome import Result, Used
from ..job.snapshot import AttemptFacts, JobFacts

BUCKETS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 86400.0, 3 * 86400.0)
"""Upper ends in seconds; from a small download to a long wait in Slurm."""
STEPS = ("wait", "fetch", "run", "pack", "answer")
"""wait: from sbatch to the start; answer: from the outcome to the broker's confirm."""


@dataclass(frozen=True)
class Ended:
    """What is counted of one job that was put away."""

    day: str
    outcome: str
    workload: str
    seconds: Sequence[tuple[str, float]] = ()
    input_bytes: int = 0
    output_bytes: int = 0
    attempts: int = 0


@dataclass
class Uncounted:
    """What passes have seen that is not in the tally yet."""

    jobs: list[Ended] = field(default_factory=list)
    """Those that were put away."""
    redelivered: int = 0
    """Messages that came again: each was got before, and went back."""


@dataclass(frozen=True)
class Spread:
    """How many were in each bucket (the last one is beyond them all), and all together."""

    counts: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)
    sum: float = 0.0

    def plus(self, seconds: float) -> Spread:
        at = bisect.bisect_left(BUCKETS, seconds)
        counts = tuple(count + (i == at) for i, count in enumerate(self.counts))
        return Spread(counts, self.sum + seconds)


@dataclass(frozen=True)
class Commands:
    count: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Tally:
    """Keys of two parts are "<word> <workload>": no outcome and no step has a blank in it."""

    jobs: Mapping[str, int] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)
    steps: Mapping[str, Spread] = field(default_factory=dict)
    bytes: Mapping[str, int] = field(default_factory=dict)
    commands: Mapping[str, Commands] = field(default_factory=dict)
    days: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Jobs put away on a day, by outcome."""
    last_success: float = 0.0
    redelivered: int = 0
    """Messages that had gone back to their queue."""


def read(path: Path) -> Tally:
    try:
        tally = Fact(path, Tally).read()
    except (Damaged, OSError):
        tally = None
    if tally is None or any(len(spread.counts) != len(BUCKETS) + 1 for spread in tally.steps.values()):
        return Tally()
    return tally


def write(path: Path, tally: Tally) -> None:
    """Not synced: losing it is harmless. Raises OSError."""
    paths.write_note(path, json.dumps(asdict(tally)))


def add(tally: Tally, ended: Sequence[Ended], used: Mapping[str, int], seconds: Mapping[str, float]) -> Tally:
    """With what one pass has seen."""
    jobs, attempts, sizes, steps = dict(tally.jobs), dict(tally.attempts), dict(tally.bytes), dict(tally.steps)
    days = {day: dict(counts) for day, counts in tally.days.items()}
    for each in ended:
        _count(jobs, f"{each.outcome} {each.workload}")
        _count(attempts, each.workload, each.attempts)
        _count(sizes, f"in {each.workload}", each.input_bytes)
        _count(sizes, f"out {each.workload}", each.output_bytes)
        _count(days.setdefault(each.day, {}), each.outcome)
        for step, took in each.seconds:
            key = f"{step} {each.workload}"
            steps[key] = steps.get(key, Spread()).plus(took)
    commands = dict(tally.commands)
    for name, times in used.items():
        before = commands.get(name, Commands())
        commands[name] = Commands(before.count + times, before.seconds + seconds.get(name, 0.0))
    return replace(tally, jobs=jobs, attempts=attempts, bytes=sizes, steps=steps, commands=commands, days=days)


def without_old_days(tally: Tally, kept: Sequence[str]) -> Tally:
    """Days of which no job is left say nothing any more."""
    latest = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86400))
    return replace(tally, days={day: counts for day, counts in tally.days.items() if day in kept or day >= latest})


def _count(counts: dict[str, int], key: str, more: int = 1) -> None:
    counts[key] = counts.get(key, 0) + more


# --- of one job


def ended(job: JobFolder, facts: JobFacts, now: float) -> Ended:
    """To be called before the job is put away. What can't be read is left out."""
    outcome = facts.outcome.outcome if facts.outcome else "unknown"
    results = [a.what_counts for a in facts.attempts if a.what_counts]
    uses = [result.used for result in results if result.used]
    return Ended(
        day=time.strftime("%Y-%m-%d", time.gmtime(now)),
        outcome=outcome,
        workload=facts.spec.workload if facts.spec else "",
        seconds=[*(each for a in facts.attempts for each in _seconds(a)), *_answered(job, facts)],
        input_bytes=sum(used.input_bytes for used in uses),
        output_bytes=sum(output.size for result in results for output in result.outputs.values()),
        attempts=sum(a.intent is not None for a in facts.attempts),
    )


def of_a_pilot(workload: str, result: Result, now: float) -> Ended:
    """A job that a pilot has answered; nobody noted how long it waited."""
    return Ended(
        day=time.strftime("%Y-%m-%d", time.gmtime(now)),
        outcome=result.outcome,
        workload=workload,
        seconds=list(_of_steps(result.used)),
        input_bytes=result.used.input_bytes if result.used else 0,
        output_bytes=sum(output.size for output in result.outputs.values()),
        attempts=1,
    )


def _seconds(a: AttemptFacts) -> Iterator[tuple[str, float]]:
    if a.intent is not None and a.started is not None:
        yield "wait", max(0.0, a.started.at - a.intent.at)
    yield from _of_steps(a.what_counts.used if a.what_counts else None)


def _of_steps(used: Optional[Used]) -> Iterator[tuple[str, float]]:
    if used is not None:
        yield from ((step, seconds) for step, seconds in used.steps.items() if step in STEPS)


def _answered(job: JobFolder, facts: JobFacts) -> Iterator[tuple[str, float]]:
    with contextlib.suppress(Damaged, OSError):
        delivered = job.delivered.read()
        if delivered is not None and delivered.to and facts.outcome is not None:
            yield "answer", max(0.0, delivered.at - facts.outcome.at)
