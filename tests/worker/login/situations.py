"""Builds the facts of a job in a few words, for tests of what is decided on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional, Union

from scheduler import JobView, Phase, SlurmJobId
from slurm import states
from tests.worker.examples import NOW, SPEC
from worker.job.facts import Ended, Intent, Message, Outcome, Started, Submission
from worker.job.judge import Close
from worker.job.outcome import Result
from worker.job.snapshot import AttemptFacts, JobFacts
from worker.job.spec import JobSpec

NAME = "bf-here-1"
LONG_AGO = NOW - 20_000


def message(claimed_at: float = LONG_AGO, **properties: Union[str, bytes, int, None]) -> Message:
    return Message(1, "jobs", "{}", 2, {"reply_to": "answers", "correlation_id": "c", **properties}, claimed_at)


def job(*attempts: AttemptFacts, spec: Optional[JobSpec] = SPEC, claimed_at: float = LONG_AGO, outcome_at: float = 0,
        properties: Optional[dict[str, Any]] = None, **more: Any) -> JobFacts:  # fmt: skip
    told = message(claimed_at, **(properties or {}))
    answered = more.get("outcome")
    more.setdefault("looked_anew", answered.attempt if answered else len(attempts))
    return JobFacts(told, claimed_at, spec, attempts, outcome_at=outcome_at, **more)


def intended(number: int = 1, at: float = LONG_AGO, **more: Any) -> AttemptFacts:
    """sbatch was called and said nothing clear."""
    noted = more["ended"].at if more.get("ended") else 0
    return AttemptFacts(number, intent=Intent("1", NAME, 0, SPEC.resources, at), **{"ended_noted": noted, **more})


def submitted(number: int = 1, slurm_id: str = "7", **more: Any) -> AttemptFacts:
    return intended(number, submission=Submission(slurm_id, LONG_AGO), **more)


def started(number: int = 1, slurm_id: str = "7", **more: Any) -> AttemptFacts:
    return submitted(number, slurm_id, started=Started(slurm_id, 0, "n1", LONG_AGO + 100), **more)


def after(facts: JobFacts, step: Close) -> JobFacts:
    """When that step has closed the attempt."""
    before = list(facts.attempts[: step.attempt - 1])
    known = facts.attempts[step.attempt - 1] if len(facts.attempts) >= step.attempt else AttemptFacts(step.attempt)
    return replace(facts, attempts=(*before, replace(known, closed=True, cancel=known.cancel or step.why)))


def ended(end: str, ago: float = 1000, by: str = "", exit_code: str = "0:0") -> Ended:
    return Ended(end, end.upper(), NOW - ago, exit_code, "n1", by)


def result(outcome: str = "succeeded", attempt: int = 1, **more: Any) -> Result:
    return Result(outcome, attempt, **{"ended_at": NOW - 1000, **more})


def outcome(by: str, attempt: int = 1, word: str = "succeeded") -> Outcome:
    return Outcome(word, attempt, "reply-1", by, NOW - 1000)


def seen(
    state: str, slurm_id: str = "7", reason: str = "", ended_at: Optional[float] = NOW - 1000, **more: str
) -> JobView:
    """A row of Slurm's."""
    (view,) = states.parse_squeue(f"{slurm_id}|{state}|N/A|{reason}|n1|{NAME}\n")
    over = view.phase is Phase.ENDED
    return JobView(SlurmJobId(slurm_id), NAME, view.phase, state, view.end, reason, ended_at if over else None, node="n1",
                   **more)  # type: ignore[arg-type]  # fmt: skip
