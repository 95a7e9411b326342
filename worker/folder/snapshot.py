"""Reads all facts of one job at once."""

from __future__ import annotations

from typing import Optional

from ..errors import Damaged
from ..job.facts import FORMAT, WITH_SOURCE, Declined, Intent
from ..job.snapshot import AttemptFacts, JobFacts
from . import paths
from .facts import AttemptFolder, JobFolder
from .records import Listed


def read_facts(job: JobFolder, look_anew: int = 0) -> Optional[JobFacts]:
    """None for a folder that is not claimed yet. `look_anew`: an attempt of which what is missing has to be sure. Raises
    Damaged."""
    if look_anew:
        for path in (job.path, job.attempt(look_anew).path):
            paths.look_anew(path)
    listed = Listed(job.path)
    message = listed.read(job.message)
    if message is None:
        return None
    if message.format not in (FORMAT, WITH_SOURCE):
        raise Damaged(f"{job.message} has format {message.format}; this version knows {FORMAT} and {WITH_SOURCE}")
    outcome = listed.read(job.outcome)
    facts = JobFacts(
        message=message,
        claimed_at=listed.written_at(job.message),
        settlement=listed.read(job.settled) if message.needs_settling else None,
        spec=listed.read(job.spec),
        attempts=tuple(read_attempt(job.attempt(number)) for number in _numbers(job, listed)),
        outcome=outcome,
        outcome_at=listed.written_at(job.outcome),
        not_taken=listed.read(job.unroutable) if outcome else None,
        cancel_asked=listed.read(job.cancel_asked),
        retry_asked=listed.read(job.retry_asked),
        delivered=listed.read(job.delivered) is not None,
        undeliverable=listed.read(job.undeliverable) is not None,
        held=job.held.name in listed.names,
        looked_anew=look_anew,
    )
    _raise_if_one_is_gone(job, facts)
    return facts


def _numbers(job: JobFolder, listed: Listed) -> list[int]:
    return job.attempt_numbers() if job.attempts.name in listed.names else []


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
    listed = Listed(attempt.path)
    ended, started = listed.read(attempt.ended), listed.read(attempt.started)
    closed = started is not None and started.closed
    intents, declined = _read_intents(attempt, listed)
    result = listed.read(attempt.result)
    facts = AttemptFacts(
        number=attempt.number,
        intent=intents[-1] if intents else None,
        earlier=tuple(intents[:-1]),
        declined=declined,
        submission=listed.read(attempt.submission),
        started=None if closed else started,
        closed=closed,
        begun=_read_begun(attempt, listed) if ended and started and started.says_begun and result is None else None,
        result=result,
        verdict=listed.read(attempt.verdict),
        ended=ended,
        ended_noted=listed.written_at(attempt.ended),
        absent=listed.read(attempt.absent),
        stuck=listed.read(attempt.stuck),
        cancel=listed.read(attempt.cancel),
    )
    if facts.intent is None:
        seen = facts.submission or facts.started or ended or facts.absent or facts.stuck
        if seen or attempt.declined(1).name in listed.names:
            raise Damaged(f"{attempt.intent} is gone, though the attempt was submitted")
    return facts


def _read_begun(attempt: AttemptFolder, listed: Listed) -> Optional[bool]:
    """Looked for only where it decides."""
    begun = listed.read(attempt.begun)
    return None if begun is None else not begun.closed


def _read_intents(attempt: AttemptFolder, listed: Listed) -> tuple[list[Intent], Optional[Declined]]:
    """Each but the first follows one that was declined; and what became of the last."""
    intents: list[Intent] = []
    declined: Optional[Declined] = None
    while (intent := listed.read(attempt.intent_of(len(intents) + 1))) is not None:
        intents.append(intent)
        declined = listed.read(attempt.declined(len(intents)))
        if declined is None:
            break
    return intents, declined
