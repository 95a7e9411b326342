"""What the last days' jobs add up to: outcomes, waits, failures by cause and node; sizing.py has what they asked for. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional, TypeVar

from ..job.outcome import OUTCOMES
from .life import Stretch

UNKNOWN = "unknown"
"""An outcome of which no count tells."""
_MOST_GROUPS = 20
"""Causes, nodes and workloads that are listed; a requester must not make the page as long as it likes."""
_FEW = 3
"""Jobs of one cause that are named."""


Item = TypeVar("Item")
Key = TypeVar("Key")


# --- what is known of a job


@dataclass(frozen=True)
class Try:
    """One attempt; None where nobody knows."""

    outcome: str
    node: str
    asked_memory_mb: int
    asked_seconds: int
    waited: Optional[float] = None
    """Seconds from sbatch to its start."""
    seconds: Optional[float] = None
    """From its start to its end."""
    memory_mb: Optional[float] = None
    """The most that one process of it had."""


@dataclass(frozen=True)
class Past:
    """A job that has ended; times in seconds since 1970. `day`: when it was put away, in UTC; `cause`: of a failure."""

    job: str
    day: str
    workload: str
    outcome: str
    cause: str
    reason: str
    claimed_at: float
    ended_at: float
    queued: Optional[float] = None
    """Seconds in the jobs queue, where the message says when it was sent."""
    tries: tuple[Try, ...] = ()
    correlation_id: str = ""
    queue: str = ""
    asked: tuple[str, ...] = ()
    """Which of memory_mb and time its message asked for itself; the others are site.toml's."""
    whose: str = ""
    """Of a failure: who can do something about it, a word of blame.py."""
    life: tuple[Stretch, ...] = ()


# --- what they add up to


@dataclass(frozen=True)
class Day:
    """Jobs by outcome, those done by pilots among them."""

    day: str
    outcomes: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.outcomes.values())


@dataclass(frozen=True)
class Spread:
    """Of how many, the middle one, and the one that nine in ten do not exceed; in seconds."""

    count: int
    median: float
    p90: float


@dataclass(frozen=True)
class Waits:
    day: str
    queue: Optional[Spread]
    slurm: Optional[Spread]


@dataclass(frozen=True)
class Fit:
    """What jobs of one kind asked for and needed: of memory in MB, of time in seconds."""

    asked: int
    measured: int
    """Jobs of which the need is known, or known to be more than they had."""
    short: int
    """Those that ran short of what they had, at least once."""
    needed: Optional[float]
    """Enough for 95 % of the measured ones; None where nobody knows, because too many ran short."""
    most: Optional[float]
    """The most that is known of any."""
    enough: Optional[int]
    """What to ask for instead; None where there is no advice."""
    covers: int
    """So many of the measured ones would that have covered, with room to spare."""


@dataclass(frozen=True)
class Usage:
    """A workload's jobs that asked for the same. `asked`: for which of it their messages did, and not site.toml."""

    workload: str
    asked: tuple[str, ...]
    jobs: int
    memory: Fit
    time: Fit
    advice: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cause:
    cause: str
    jobs: int
    last_job: str
    last_reason: str
    last_at: float
    whose: str = ""
    last_jobs: tuple[str, ...] = ()
    """The last few, the latest first."""


@dataclass(frozen=True)
class Node:
    node: str
    attempts: int
    failed: int


@dataclass(frozen=True)
class Looked:
    """Of the jobs that were looked at."""

    jobs: int
    kept: int
    """How many there are, in the same days."""
    unreadable: int
    waits: list[Waits] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)


def looked(
    past: Sequence[Past], days: Sequence[str], kept: int, unreadable: int, usage: Sequence[Usage] = ()
) -> Looked:
    return Looked(
        jobs=len(past),
        kept=kept,
        unreadable=unreadable,
        waits=[_waits(day, [job for job in past if job.day == day]) for day in days],
        usage=list(usage),
        causes=_causes(past),
        nodes=_nodes(past),
    )


def by_day(days: Sequence[str], counted: Mapping[str, Mapping[str, int]], kept: Mapping[str, int]) -> list[Day]:
    """`counted`: by the passes; a pass that was killed has counted nothing, so what is `kept` beyond it is unknown."""
    made = []
    for day in days:
        outcomes: dict[str, int] = {}
        for word, number in counted.get(day, {}).items():
            _add(outcomes, word if word in OUTCOMES else UNKNOWN, number)
        _add(outcomes, UNKNOWN, kept.get(day, 0) - sum(outcomes.values()))
        made.append(Day(day, outcomes))
    return made


def _add(outcomes: dict[str, int], word: str, number: int) -> None:
    if number > 0:
        outcomes[word] = outcomes.get(word, 0) + number


def shares(sizes: Sequence[int], most: int) -> list[int]:
    """How many to look at of each, at most `most` together: all of the small ones, and evenly many of the others."""
    given, left = [0] * len(sizes), most
    smallest_first = sorted(range(len(sizes)), key=lambda i: sizes[i])
    for done, i in enumerate(smallest_first):
        given[i] = min(sizes[i], left // (len(sizes) - done))
        left -= given[i]
    return given


# --- waits


def _waits(day: str, past: Sequence[Past]) -> Waits:
    return Waits(
        day,
        spread(job.queued for job in past if job.queued is not None),
        spread(each.waited for job in past for each in job.tries if each.waited is not None),
    )


def spread(values: Iterable[float]) -> Optional[Spread]:
    found = sorted(values)
    return Spread(len(found), at_most(found, 0.5), at_most(found, 0.9)) if found else None


def at_most(ordered: Sequence[float], part: float) -> float:
    """The smallest of them that so large a part of them does not exceed."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


# --- failures


def _causes(past: Sequence[Past]) -> list[Cause]:
    made = []
    for (cause, whose), jobs in _grouped(((job.cause, job.whose), job) for job in past if job.cause).items():
        last = sorted(jobs, key=lambda job: job.ended_at, reverse=True)[:_FEW]
        ids = tuple(job.job for job in last)
        made.append(Cause(cause, len(jobs), last[0].job, last[0].reason, last[0].ended_at, whose, ids))
    return sorted(made, key=lambda each: (-each.jobs, each.cause, each.whose))[:_MOST_GROUPS]


def _nodes(past: Sequence[Past]) -> list[Node]:
    """Those on which something failed. What was cancelled is no fault of theirs."""
    tries = _grouped((each.node, each) for job in past for each in job.tries if each.node)
    made = [
        Node(node, len(those), sum(each.outcome not in ("succeeded", "cancelled") for each in those))
        for node, those in tries.items()
    ]
    return sorted((each for each in made if each.failed), key=lambda each: (-each.failed, each.node))[:_MOST_GROUPS]


def _grouped(pairs: Iterable[tuple[Key, Item]]) -> dict[Key, list[Item]]:
    groups: dict[Key, list[Item]] = {}
    for name, item in pairs:
        groups.setdefault(name, []).append(item)
    return groups


def cause_of(outcome: str, step: str = "", exit_code: Optional[int] = None, signal: Optional[int] = None) -> str:
    """A failure in few words; empty for a success."""
    if outcome in ("succeeded", ""):
        return ""
    parts = [f" in {step}" if step and outcome == "failed" else ""]
    if outcome == "failed" and signal:
        parts.append(f", signal {signal}")
    elif outcome == "failed" and exit_code:
        parts.append(f", exit code {exit_code}")
    return outcome.replace("_", " ") + "".join(parts)
