"""All facts of one job: what the judge decides on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .facts import (
    Absent,
    Asked,
    Cancel,
    Declined,
    Ended,
    Intent,
    Message,
    NotTaken,
    Outcome,
    Settlement,
    Started,
    Stuck,
    Submission,
)
from .outcome import Result
from .spec import JobSpec


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
    held: bool = False
    """It waited for its workload's installation."""
    settlement: Optional[Settlement] = None
    """None also where the message needs none."""
    looked_anew: int = 0
    """The attempt whose folder, and the job's, was looked at anew before these were read: what is missing is not there."""

    @property
    def in_flight(self) -> bool:
        return self.outcome is None
