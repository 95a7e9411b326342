"""What the last days' jobs add up to: outcomes, waits, asked against used, failures by cause and node. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Callable, Optional, TypeVar

from ..job.outcome import OUTCOMES
from ..job.sentences import duration

UNKNOWN = "unknown"
"""An outcome of which no count tells."""
_ENOUGH = 10
"""Attempts of a workload below which its use says nothing."""
_FAR = 0.5
"""Where the most that was used is below this part of what was asked for, less would do."""
_ROOM = 1.5
"""What is advised, against the most that was used."""
_MEMORY = (
    *(100, 250, 500, 750, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 12_000, 16_000, 24_000, 32_000, 48_000, 64_000),
    *(96_000, 128_000, 192_000, 256_000, 384_000, 512_000, 768_000, 1_000_000),
)
_MIN, _H, _D = 60, 3600, 86400
_TIMES = (
    *(1 * _MIN, 2 * _MIN, 5 * _MIN, 10 * _MIN, 15 * _MIN, 20 * _MIN, 30 * _MIN, 45 * _MIN),
    *(
        1 * _H,
        2 * _H,
        3 * _H,
        4 * _H,
        6 * _H,
        8 * _H,
        12 * _H,
        18 * _H,
        1 * _D,
        2 * _D,
        3 * _D,
        5 * _D,
        7 * _D,
        14 * _D,
    ),
)
"""Round values, in MB and in seconds, that people would write into a site file."""
_MOST_GROUPS = 20
"""Causes, nodes and workloads that are listed; a requester must not make the page as long as it likes."""

Item = TypeVar("Item")


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
class Usage:
    """What a workload's attempts asked for (the middle one) and used (the most of any)."""

    workload: str
    attempts: int
    asked_memory_mb: int
    most_memory_mb: Optional[float]
    asked_seconds: int
    longest_seconds: Optional[float]
    advice: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cause:
    cause: str
    jobs: int
    last_job: str
    last_reason: str
    last_at: float


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


def looked(past: Sequence[Past], days: Sequence[str], kept: int, unreadable: int) -> Looked:
    return Looked(
        jobs=len(past),
        kept=kept,
        unreadable=unreadable,
        waits=[_waits(day, [job for job in past if job.day == day]) for day in days],
        usage=_usage(past),
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


# --- asked and used


def _usage(past: Sequence[Past]) -> list[Usage]:
    tries = _grouped((job.workload, each) for job in past if job.workload for each in job.tries)
    often = sorted(tries.items(), key=lambda item: (-len(item[1]), item[0]))
    return [_of_workload(name, those) for name, those in often[:_MOST_GROUPS]]


def _of_workload(name: str, tries: Sequence[Try]) -> Usage:
    memory = [each.memory_mb for each in tries if each.memory_mb]
    seconds = [each.seconds for each in tries if each.seconds is not None]
    asked_memory = int(at_most(sorted(each.asked_memory_mb for each in tries), 0.5))
    asked_seconds = int(at_most(sorted(each.asked_seconds for each in tries), 0.5))
    advice = [
        _advice_on(name, asked_memory, memory, _ended(tries, "out_of_memory"), _MEMORY, megabytes, "memory"),
        _advice_on(name, asked_seconds, seconds, _ended(tries, "timed_out"), _TIMES, duration, "time"),
    ]
    return Usage(
        name, len(tries), asked_memory, max(memory, default=None), asked_seconds, max(seconds, default=None),
        tuple(words for words in advice if words),
    )  # fmt: skip


def _ended(tries: Sequence[Try], outcome: str) -> int:
    return sum(each.outcome == outcome for each in tries)


_TOO_LITTLE = {"memory": "ran out of memory", "time": "reached the time limit"}
_MOST = {"memory": "the largest process had at most", "time": "the longest took"}


def _advice_on(name: str, asked: int, used: Sequence[float], short: int, round_values: Sequence[int],
               words: Callable[[float], str], what: str) -> str:  # fmt: skip
    """Nothing where few have run, or where what was asked for fits."""
    if short:
        times = "once" if short == 1 else f"{short} times"
        return (
            f"{name} {_TOO_LITTLE[what]} {times}: it asks for {words(asked)}, which is too little for some of its jobs."
        )
    if len(used) < _ENOUGH or max(used) > _FAR * asked:
        return ""
    enough = next((value for value in round_values if value >= _ROOM * max(used)), asked)
    if enough >= asked:
        return ""
    return (
        f"{name} asks for {words(asked)}, and in {len(used)} attempts {_MOST[what]} {words(max(used))}: "
        f"{words(enough)} would do."
    )


def megabytes(count: float) -> str:
    return f"{count / 1000:.3g} GB" if count >= 1000 else f"{count:.3g} MB"


# --- failures


def _causes(past: Sequence[Past]) -> list[Cause]:
    made = []
    for cause, jobs in _grouped((job.cause, job) for job in past if job.cause).items():
        last = max(jobs, key=lambda job: job.ended_at)
        made.append(Cause(cause, len(jobs), last.job, last.reason, last.ended_at))
    return sorted(made, key=lambda each: (-each.jobs, each.cause))[:_MOST_GROUPS]


def _nodes(past: Sequence[Past]) -> list[Node]:
    """Those on which something failed. What was cancelled is no fault of theirs."""
    tries = _grouped((each.node, each) for job in past for each in job.tries if each.node)
    made = [
        Node(node, len(those), sum(each.outcome not in ("succeeded", "cancelled") for each in those))
        for node, those in tries.items()
    ]
    return sorted((each for each in made if each.failed), key=lambda each: (-each.failed, each.node))[:_MOST_GROUPS]


def _grouped(pairs: Iterable[tuple[str, Item]]) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = {}
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


def advice(usage: Sequence[Usage]) -> Iterator[str]:
    for each in usage:
        yield from each.advice
