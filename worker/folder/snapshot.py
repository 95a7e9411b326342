"""Reads all facts of one job at once."""

from __future__ import annotations

from typing import Optional

from ..errors import Damaged
from ..job.facts import FORMAT, Declined, Intent
from ..job.snapshot import AttemptFacts, JobFacts
from . import paths
from .facts import AttemptFolder, JobFolder


def read_facts(job: JobFolder, look_anew: int = 0) -> Optional[JobFacts]:
    """None for a folder that is not claimed yet. `look_anew`: an attempt of which what is missing has to be sure. Raises
    Damaged."""
    if look_anew:
        for path in (job.path, job.attempt(look_anew).path):
            paths.look_anew(path)
    message = job.message.read()
    if message is None:
        return None
    if message.format != FORMAT:
        raise Damaged(f"{job.message} has format {message.format}; this version knows {FORMAT}")
    outcome = job.outcome.read()
    facts = JobFacts(
        message=message,
        claimed_at=job.message.written_at(),
        spec=job.spec.read(),
        attempts=tuple(read_attempt(job.attempt(number)) for number in job.attempt_numbers()),
        outcome=outcome,
        outcome_at=job.outcome.written_at() if outcome else 0,
        not_taken=job.unroutable.read() if outcome else None,
        cancel_asked=job.cancel_asked.read(),
        retry_asked=job.retry_asked.read(),
        delivered=job.delivered.read() is not None,
        undeliverable=job.undeliverable.read() is not None,
        looked_anew=look_anew,
    )
    _raise_if_one_is_gone(job, facts)
    return facts


def _raise_if_one_is_gone(job: JobFolder, facts: JobFacts) -> None:
    """Facts are written in an order: where a later one is there and an earlier one is not, that was lost, and what follows
    from its absence would be untrue: a second run, or a second answer."""
    for place, a in enumerate(facts.attempts, 1):
        if a.number != place:
            raise Damaged(f"{job.attempt(place).path} is gone")
    if facts.outcome is None:
        if facts.delivered or facts.undeliverable:
            raise Damaged(f"{job.outcome} is gone, though its answer was sent or given up")
    elif not 1 <= facts.outcome.attempt <= len(facts.attempts):
        raise Damaged(f"{job.attempt(facts.outcome.attempt).path} is gone, which {job.outcome.name} names")


def read_attempt(attempt: AttemptFolder) -> AttemptFacts:
    ended, started = attempt.ended.read(), attempt.started.read()
    closed = started is not None and started.closed
    intents, declined = _read_intents(attempt)
    result = attempt.result.read()
    facts = AttemptFacts(
        number=attempt.number,
        intent=intents[-1] if intents else None,
        earlier=tuple(intents[:-1]),
        declined=declined,
        submission=attempt.submission.read(),
        started=None if closed else started,
        closed=closed,
        begun=_read_begun(attempt) if ended and started and started.says_begun and result is None else None,
        result=result,
        verdict=attempt.verdict.read(),
        ended=ended,
        ended_noted=attempt.ended.written_at() if ended else 0,
        absent=attempt.absent.read(),
        stuck=attempt.stuck.read(),
        cancel=attempt.cancel.read(),
    )
    if facts.intent is None:
        paths.names_in(attempt.path)  # Damaged, where something else is in its place
        seen = facts.submission or facts.started or ended or facts.absent or facts.stuck
        if seen or attempt.declined(1).is_there():
            raise Damaged(f"{attempt.intent} is gone, though the attempt was submitted")
    return facts


def _read_begun(attempt: AttemptFolder) -> Optional[bool]:
    """Looked for only where it decides."""
    begun = attempt.begun.read()
    return None if begun is None else not begun.closed


def _read_intents(attempt: AttemptFolder) -> tuple[list[Intent], Optional[Declined]]:
    """Each but the first follows one that was declined; and what became of the last."""
    intents: list[Intent] = []
    declined: Optional[Declined] = None
    while (intent := attempt.intent_of(len(intents) + 1).read()) is not None:
        intents.append(intent)
        declined = attempt.declined(len(intents)).read()
        if declined is None:
            break
    return intents, declined
