"""All facts of one job, read at once: what the judge decides on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .. import folder
from ..errors import Damaged
from ..facts import (
    FORMAT,
    Absent,
    Asked,
    Cancel,
    Declined,
    Delivered,
    Ended,
    Intent,
    Message,
    NotTaken,
    Outcome,
    Started,
    Stuck,
    Submission,
    Undeliverable,
    read_spec,
    result_in,
)
from ..folder import AttemptFolder, JobFolder, read
from ..outcome import Result
from ..spec import JobSpec


@dataclass(frozen=True)
class AttemptFacts:
    number: int
    intent: Optional[Intent] = None
    """The last one."""
    earlier: tuple[Intent, ...] = ()
    """Those whose submissions were declined: a copy may turn up under their names all the same."""
    declined: Optional[Declined] = None
    """What Slurm said to the last one, if it was no."""
    submission: Optional[Submission] = None
    started: Optional[Started] = None
    """None also where it was closed."""
    closed: bool = False
    """The login side has won started.json: nothing of this attempt can begin any more."""
    begun: Optional[bool] = None
    """Where it ended without a result: whether its program had begun. None while nobody knows, and of older workers."""
    result: Optional[Result] = None
    verdict: Optional[Result] = None
    ended: Optional[Ended] = None
    ended_noted: float = 0
    """When ended.json was written, by the file server's clock."""
    absent: Optional[Absent] = None
    stuck: Optional[Stuck] = None
    cancel: Optional[Cancel] = None

    @property
    def open(self) -> bool:
        """Slurm may still have something to tell about it."""
        outcome = self.what_counts.outcome if self.what_counts else ""
        given_up = outcome == "lost" or (outcome == "rejected" and self.submission is None)
        never_there = self.closed and self.surely_not_there
        return self.intent is not None and self.ended is None and not given_up and not never_there

    @property
    def intents(self) -> tuple[Intent, ...]:
        return self.earlier if self.intent is None else (*self.earlier, self.intent)

    @property
    def in_slurm(self) -> bool:
        return self.open and (self.submission is not None or self.started is not None)

    @property
    def surely_not_there(self) -> bool:
        """Slurm declined it, and has not shown it in two clear answers since."""
        never_seen = self.submission is None and self.started is None
        return never_seen and self.declined is not None and self.absent is not None and self.absent.answers >= 2

    @property
    def what_counts(self) -> Optional[Result]:
        """Where the worker could not know what it came to, the verdict does."""
        return self.verdict or self.result

    @property
    def slurm_id(self) -> Optional[str]:
        """The copy that started is the one that counts, whatever sbatch answered."""
        fact = self.started or self.submission
        return fact.slurm_id if fact else None


@dataclass(frozen=True)
class JobFacts:
    message: Message
    claimed_at: float
    """When message.json was written, by the file server's clock."""
    spec: Optional[JobSpec] = None
    attempts: tuple[AttemptFacts, ...] = ()
    outcome: Optional[Outcome] = None
    outcome_at: float = 0
    """When outcome.json was written, by the file server's clock."""
    not_taken: Optional[NotTaken] = None
    cancel_asked: Optional[Asked] = None
    retry_asked: Optional[Asked] = None
    delivered: bool = False
    undeliverable: bool = False
    looked_anew: int = 0
    """The attempt whose folder, and the job's, was looked at anew before these were read: what is missing is not there."""

    @property
    def in_flight(self) -> bool:
        return self.outcome is None


def read_facts(job: JobFolder, look_anew: int = 0) -> Optional[JobFacts]:
    """None for a folder that is not claimed yet. `look_anew`: an attempt of which what is missing has to be sure. Raises
    Damaged."""
    if look_anew:
        for path in (job.path, job.attempt(look_anew).path):
            folder.look_anew(path)
    message = read(Message, job.message)
    if message is None:
        return None
    if message.format != FORMAT:
        raise Damaged(f"{job.message} has format {message.format}; this version knows {FORMAT}")
    outcome = read(Outcome, job.outcome)
    facts = JobFacts(
        message=message,
        claimed_at=job.message.stat().st_mtime,
        spec=read_spec(job),
        attempts=tuple(read_attempt(job.attempt(number)) for number in job.attempt_numbers()),
        outcome=outcome,
        outcome_at=job.outcome.stat().st_mtime if outcome else 0,
        not_taken=read(NotTaken, job.unroutable) if outcome else None,
        cancel_asked=read(Asked, job.cancel_asked),
        retry_asked=read(Asked, job.retry_asked),
        delivered=read(Delivered, job.delivered) is not None,
        undeliverable=read(Undeliverable, job.undeliverable) is not None,
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
    ended, started = read(Ended, attempt.ended), read(Started, attempt.started)
    closed = started is not None and started.closed
    intents, declined = _read_intents(attempt)
    result = result_in(attempt, attempt.result)
    facts = AttemptFacts(
        number=attempt.number,
        intent=intents[-1] if intents else None,
        earlier=tuple(intents[:-1]),
        declined=declined,
        submission=read(Submission, attempt.submission),
        started=None if closed else started,
        closed=closed,
        begun=_read_begun(attempt) if ended and started and started.says_begun and result is None else None,
        result=result,
        verdict=result_in(attempt, attempt.verdict),
        ended=ended,
        ended_noted=attempt.ended.stat().st_mtime if ended else 0,
        absent=read(Absent, attempt.absent),
        stuck=read(Stuck, attempt.stuck),
        cancel=read(Cancel, attempt.cancel),
    )
    if facts.intent is None:
        folder.names_in(attempt.path)  # Damaged, where something else is in its place
        seen = facts.submission or facts.started or ended or facts.absent or facts.stuck
        if seen or folder.is_there(attempt.declined(1)):
            raise Damaged(f"{attempt.intent} is gone, though the attempt was submitted")
    return facts


def _read_begun(attempt: AttemptFolder) -> Optional[bool]:
    """Looked for only where it decides."""
    begun = read(Started, attempt.begun)
    return None if begun is None else not begun.closed


def _read_intents(attempt: AttemptFolder) -> tuple[list[Intent], Optional[Declined]]:
    """Each but the first follows one that was declined; and what became of the last."""
    intents: list[Intent] = []
    declined: Optional[Declined] = None
    while (intent := read(Intent, attempt.intent_of(len(intents) + 1))) is not None:
        intents.append(intent)
        declined = read(Declined, attempt.declined(len(intents)))
        if declined is None:
            break
    return intents, declined
