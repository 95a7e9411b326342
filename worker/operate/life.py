"""A job's life as stretches that follow one another: waiting, fetching, running, packing, answering. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from ..job.snapshot import AttemptFacts, JobFacts

STEPS = ("wait", "fetch", "run", "pack", "answer")


@dataclass(frozen=True)
class Stretch:
    """One of STEPS, and how many seconds it took."""

    step: str
    seconds: float


def life(facts: JobFacts, begun_at: float, answered_at: Optional[float]) -> tuple[Stretch, ...]:
    """`begun_at`: when the message was sent, or claimed where nobody says when it was sent; `answered_at`: when the broker had
    the answer, None where it never did. Times are of several hosts' clocks: a stretch is never below 0."""
    made: list[Stretch] = []
    at = begun_at
    for a in facts.attempts:
        if a.started is not None:
            made.append(Stretch("wait", a.started.at - at))
            worked, at = _worked(a, a.started.at)
            made += worked
    outcome = facts.outcome
    if outcome is not None and not made:
        made.append(Stretch("wait", outcome.at - at))
        at = max(at, outcome.at)
    if answered_at is not None:
        made.append(Stretch("answer", answered_at - at))
    return tuple(Stretch(each.step, max(0.0, each.seconds)) for each in made)


def _worked(a: AttemptFacts, at: float) -> tuple[Sequence[Stretch], float]:
    """What an attempt that started at `at` did, and when it was through with that."""
    result = a.what_counts
    known = result.used.steps if result is not None and result.used is not None else {}
    stretches = [Stretch(step, known[step]) for step in ("fetch", "run", "pack") if step in known]
    if stretches:
        return stretches, at + sum(each.seconds for each in stretches)
    ends = [result.ended_at if result else None, a.ended.at if a.ended else None]
    end = next((each for each in ends if each is not None), at)  # its worker was killed, and left no measure
    return [Stretch("run", end - at)], max(at, end)
