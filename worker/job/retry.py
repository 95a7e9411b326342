"""When an attempt's end is not the job's end, and what the next attempt gets. Pure.

More of the same would be wrong where the attempt itself was too small: after `out_of_memory` the next one gets twice the
memory, after `timed_out` twice the time, as far as the queue's caps go.
"""

from __future__ import annotations

from dataclasses import replace

from ..settings import RetryPolicy
from .outcome import Result
from .spec import JobSpec, Resources

NO_RESULT = "no_result"
"""In a policy: jobs whose program had begun and that ended without a result."""


def is_final(result: Result, spec: JobSpec, had: Resources) -> bool:
    """Whether this attempt's result is the job's. `had`: what the attempt was given."""
    if result.attempt >= spec.retry.attempts or not _allowed(result, spec.retry):
        return True
    return result.outcome in ("out_of_memory", "timed_out") and larger(had, result.outcome, spec) == had


def _allowed(result: Result, policy: RetryPolicy) -> bool:
    """A step that failed is tried again only where its cause may pass. Of `run` that is so where no result was left: then
    the program may have done its work, and the site has to ask for it by another word."""
    if result.outcome == "failed":
        word = NO_RESULT if result.step == "run" else result.step
        return result.may_work_again and word in policy.on
    return result.outcome in policy.on


def next_attempt_at(result: Result, policy: RetryPolicy) -> float:
    """The earliest time for the attempt after this one, in seconds since 1970."""
    return (result.ended_at or 0) + policy.wait * float(2 ** (result.attempt - 1))


def larger(had: Resources, outcome: str, spec: JobSpec) -> Resources:
    """What the attempt after one with this outcome gets; `had` itself where that was enough, or is all there is."""
    caps = spec.caps
    if outcome == "out_of_memory" and had.memory_mb < caps.memory_mb:
        memory_mb = min(2 * had.memory_mb, caps.memory_mb)
        return replace(had, memory_mb=memory_mb, gres=caps.gres(memory_mb, had.gres))
    if outcome == "timed_out" and had.time_seconds < caps.time_seconds:
        return replace(had, time_seconds=min(2 * had.time_seconds, caps.time_seconds))
    return had
