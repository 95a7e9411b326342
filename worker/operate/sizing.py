"""What jobs asked for against what they needed, and what to write into site.toml instead. Pure.

What a job needed is known where it succeeded. Where it ran short it needed more than it had, and nobody knows how much: it
counts against what it asked for, and against every figure that is no larger. Nothing is advised that the jobs looked at do not
bear out, and each figure comes with how many of them it would have covered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Callable, Optional

from ..job.sentences import duration
from ..settings import ResourceRules
from .history import Fit, Past, Try, Usage, at_most

_MOST_PART = 0.95
"""What is advised covers so large a part of a workload's jobs."""
_ENOUGH = 10
"""Jobs of one kind below which their use says nothing."""
_FAR = 0.5
"""Less is advised only where it is at most this part of what is asked for."""
_SHORT = 0.05
"""More is advised where a larger part of the jobs ran short."""
_ROOM = 1.25
"""To spare beyond the need; of time, a job is stopped up to a fifth of its limit early."""
_MOST_GROUPS = 20
_MIN, _H, _D = 60, 3600, 86400
_MEMORY = (
    *(100, 250, 500, 750, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 12_000, 16_000, 24_000, 32_000, 48_000, 64_000),
    *(96_000, 128_000, 192_000, 256_000, 384_000, 512_000, 768_000, 1_000_000),
)
_TIMES = tuple(
    [count * _MIN for count in (1, 2, 5, 10, 15, 20, 30, 45)]
    + [count * _H for count in (1, 2, 3, 4, 6, 8, 12, 18)]
    + [count * _D for count in (1, 2, 3, 5, 7, 14)]
)
"""Round values, in MB and in seconds, that people would write into a site file."""
_STEPS_MB = ((10_000, 1000), (1000, 100), (100, 10))
_STEPS = ((2 * _D, _D // 10), (2 * _H, _H // 10), (2 * _MIN, _MIN))
"""From this size on, in whole steps of so much."""


def megabytes(count: float) -> str:
    return f"{f'{count / 1000:.1f}'.removesuffix('.0')} GB" if count >= 1000 else f"{count:.0f} MB"


def _no_finer(count: float, steps: Sequence[tuple[int, int]]) -> float:
    """Not below it, and no more precise than people ask for: from each size on, in whole steps of this."""
    step = next((step for size, step in steps if count >= size), 1)
    return float(math.ceil(count / step) * step)


@dataclass(frozen=True)
class Kind:
    """Of what is asked for: memory or time."""

    name: str
    """As a message and site.toml have it."""
    short: str
    """The outcome of a job that ran short of it."""
    ran_short: str
    rounds: Sequence[int]
    steps: Sequence[tuple[int, int]]
    words: Callable[[float], str]
    asked: Callable[[Try], int]
    used: Callable[[Try], Optional[float]]
    measure: str


MEMORY = Kind("memory_mb", "out_of_memory", "ran out of memory", _MEMORY, _STEPS_MB, megabytes, lambda t: t.asked_memory_mb,
              lambda t: t.memory_mb or None, " in their largest process")  # fmt: skip
TIME = Kind("time", "timed_out", "reached the time limit", _TIMES, _STEPS, duration, lambda t: t.asked_seconds,
            lambda t: t.seconds, "")  # fmt: skip


def need(job: Past, kind: Kind) -> Optional[float]:
    """What would have been enough for it: infinity where it ran short of the most it got, None where nobody knows."""
    if not job.tries:
        return None
    too_little = max((kind.asked(each) for each in job.tries if each.outcome == kind.short), default=0)
    if job.outcome == kind.short:
        return math.inf
    used = kind.used(job.tries[-1])
    return max(used, too_little * 1.01) if job.outcome == "succeeded" and used is not None else None


def fit(jobs: Sequence[Past], kind: Kind) -> Fit:
    """Of jobs that asked for the same."""
    asked = kind.asked(jobs[0].tries[0])
    needs = sorted(value for job in jobs if (value := need(job, kind)) is not None)
    short = sum(any(each.outcome == kind.short for each in job.tries) for job in jobs)
    seen = [value for value in needs if value < math.inf]
    covering = at_most(needs, _MOST_PART) if needs else math.inf
    known = _no_finer(covering, kind.steps) if covering < math.inf else None
    enough = None if len(needs) < _ENOUGH or known is None else _other(asked, known, short / len(needs), kind)
    covers = sum(value * _ROOM <= enough for value in needs) if enough else 0
    return Fit(asked, len(needs), short, known, max(seen, default=None), enough, covers)


def _other(asked: int, needed: float, short: float, kind: Kind) -> Optional[int]:
    """What to ask for instead; None where what is asked for will do."""
    enough = next((value for value in kind.rounds if value >= _ROOM * needed), None)
    if enough is None:
        return None
    less, more = enough <= _FAR * asked, enough > asked and short > _SHORT
    return enough if less or more else None


# --- by workload and shape


def usage(past: Sequence[Past]) -> list[Usage]:
    """The most frequent first: each workload, once for each amount that its jobs asked for."""
    groups: dict[tuple[str, int, int, tuple[str, ...]], list[Past]] = {}
    for job in past:
        if job.workload and job.tries:
            first = job.tries[0]
            groups.setdefault((job.workload, first.asked_memory_mb, first.asked_seconds, job.asked), []).append(job)
    often = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [_usage(name, asked, jobs) for (name, _, _, asked), jobs in often[:_MOST_GROUPS]]


def _usage(name: str, asked: tuple[str, ...], jobs: Sequence[Past]) -> Usage:
    memory, time = fit(jobs, MEMORY), fit(jobs, TIME)
    said = [_sentence(name, each, kind) for each, kind in ((memory, MEMORY), (time, TIME))]
    return Usage(name, asked, len(jobs), memory, time, tuple(words for words in said if words))


def _sentence(name: str, fit: Fit, kind: Kind) -> str:
    """Nothing where few have run, or where what was asked for fits."""
    asks = f"{name} with {kind.words(fit.asked)}: {fit.short} of {fit.measured} jobs {kind.ran_short}"
    if fit.enough is not None and fit.needed is not None:
        begin = f"{asks}. " if fit.short else f"{name} with {kind.words(fit.asked)}: "
        return (
            f"{begin}95 % of {fit.measured} jobs needed at most {kind.words(fit.needed)}{kind.measure}. "
            f"{kind.words(fit.enough)} would have covered {fit.covers} of them, with a quarter to spare."
        )
    if fit.measured >= _ENOUGH and fit.short > _SHORT * fit.measured:
        return f"{asks}, so how much would do is not known yet. Give more, then look again."
    return ""


def advice(usage: Sequence[Usage]) -> Iterator[str]:
    for each in usage:
        yield from each.advice


# --- as lines of site.toml


def site_lines(past: Sequence[Past], rules: Mapping[str, ResourceRules]) -> list[str]:
    """For the defaults of each queue, from those of its jobs that got them. `rules`: by the queue's name."""
    made = []
    for queue, has in rules.items():
        jobs = [job for job in past if job.queue == queue and job.workload and job.tries]
        lines = [
            *_line(jobs, MEMORY, has.memory_mb, has.max_memory_mb, str),
            *_line(jobs, TIME, int(has.time), int(has.max_time), _as_written),
        ]
        if lines:
            made += [f'# below name = "{queue}"', "[queues.resources]", *lines]
    return made


def _line(jobs: Sequence[Past], kind: Kind, now: int, most: int, written: Callable[[int], str]) -> Iterator[str]:
    """It has to do for each workload that the queue has, also for those that have run seldom."""
    got_it = [job for job in jobs if kind.name not in job.asked and kind.asked(job.tries[0]) == now]
    by_workload: dict[str, list[float]] = {}
    for job in got_it:
        value = need(job, kind)
        if value is not None:
            by_workload.setdefault(job.workload, []).append(value)
    needs = [value for each in by_workload.values() for value in each]
    if len(needs) < _ENOUGH:
        return
    short = sum(any(each.outcome == kind.short for each in job.tries) for job in got_it)
    covering = max(at_most(sorted(each), _MOST_PART if len(each) >= _ENOUGH else 1) for each in by_workload.values())
    if covering == math.inf:
        if short > _SHORT * len(needs):
            twice = next((value for value in kind.rounds if value >= 2 * now), 2 * now)
            words = (
                f"{written(now)} now, of which {short} of {len(needs)} jobs ran short; a guess: look again afterwards"
            )
            yield from _written(kind, twice, most, written, words)
        return
    enough = _other(now, covering, short / len(needs), kind)
    if enough is not None:
        covers = sum(value * _ROOM <= enough for value in needs)
        words = f"{written(now)} now; this would have covered {covers} of {len(needs)} jobs"
        yield from _written(kind, enough, most, written, words)


def _written(kind: Kind, value: int, most: int, written: Callable[[int], str], words: str) -> Iterator[str]:
    yield f"{kind.name} = {written(value)}  # {words}"
    if value > most:
        yield f"max_{kind.name} = {written(value)}  # {written(most)} now"


def _as_written(seconds: int) -> str:
    size, unit = next(
        (size, unit) for size, unit in ((_D, "d"), (_H, "h"), (_MIN, "min"), (1, "s")) if seconds % size == 0
    )
    return f'"{seconds // size}{unit}"'
