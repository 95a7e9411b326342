"""Each fact of a job, declared once: its name, what it says, and whether several may try to write it.

Facts are written once, whole, by one side; what they say stands in job/facts.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Optional, Union

from ..errors import Damaged
from ..job.facts import (
    Absent,
    Acked,
    Again,
    Asked,
    Cancel,
    Cluster,
    Declined,
    Delivered,
    Ended,
    Group,
    Held,
    Intent,
    Kept,
    LargestAnswer,
    Message,
    NotTaken,
    Origin,
    Outcome,
    Paused,
    Progress,
    Settlement,
    SiteFault,
    Started,
    Stuck,
    Submission,
    Transfer,
    Undeliverable,
    Unfit,
)
from ..job.names import JobId
from ..job.outcome import Reply, Result
from ..job.spec import JobSpec
from . import paths
from .jobs import JobsFolder
from .records import Exclusive, Fact, exclusive, fact, place


@dataclass(frozen=True)
class _StoredReply:
    """A reply without its body, which lies beside it."""

    routing_key: str
    correlation_id: Union[str, bytes, None]
    type: str
    message_id: str
    timestamp: int
    expiration_ms: int
    headers: Mapping[str, Any] = field(default_factory=dict)
    content_type: str = "application/json"


class _ResultOfAttempt(Exclusive[Result]):
    """Damaged also where it is not of this attempt."""

    __slots__ = ()

    def read(self) -> Optional[Result]:
        result = super().read()
        if result is not None and str(result.attempt) != self.path.parent.name:
            raise Damaged(f"{self.path} is not what was written there (it is of attempt {result.attempt})")
        return result


class AttemptFolder:
    """`attempts/<n>/`: one try at running the job."""

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.number = number

    intent = exclusive("intent.json", Intent)
    submission = fact("submission.json", Submission)
    started = exclusive("started.json", Started)
    begun = exclusive("begun.json", Started)
    cancel = fact("cancel.json", Cancel)
    ended = fact("ended.json", Ended)
    absent = fact("absent.json", Absent)
    stuck = fact("stuck.json", Stuck)
    unfit = fact("unfit.json", Unfit)
    progress = fact("progress.json", Progress)
    kept = fact("kept.json", Kept)
    transfer = fact("transfer.json", Transfer)
    token = place("token")
    log = place("job.log")
    slurm_log = place("slurm.log")
    work = place("work")
    outputs = place("outputs")

    @property
    def result(self) -> Exclusive[Result]:
        return _ResultOfAttempt(self.path / "result.json", Result)

    @property
    def late_result(self) -> Fact[Result]:
        return _ResultOfAttempt(self.path / "late_result.json", Result)

    @property
    def verdict(self) -> Fact[Result]:
        return _ResultOfAttempt(self.path / "verdict.json", Result)

    def intent_of(self, submission: int) -> Exclusive[Intent]:
        """Of the first submission, or of one that followed where an earlier one was declined."""
        return self.intent if submission == 1 else Exclusive(self.path / f"intent-{submission}.json", Intent)

    def declined(self, submission: int) -> Fact[Declined]:
        return Fact(self.path / f"declined-{submission}.json", Declined)

    def reply_body(self, stem: str) -> Path:
        return self.path / f"{stem}.bin"

    def reply_properties(self, stem: str) -> Exclusive[_StoredReply]:
        return Exclusive(self.path / f"{stem}.json", _StoredReply)


class JobFolder:
    """One job: `jobs/active/<job id>/`, later in done, rejected or undelivered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = JobId(path.name)

    message = exclusive("message.json", Message)
    acked = fact("acked.json", Acked)
    settled = exclusive("settled.json", Settlement)
    spec = fact("spec.json", JobSpec)
    outcome = exclusive("outcome.json", Outcome)
    delivered = fact("delivered.json", Delivered)
    unroutable = fact("unroutable.json", NotTaken)
    undeliverable = fact("undeliverable.json", Undeliverable)
    cancel_asked = fact("cancel_asked.json", Asked)
    retry_asked = fact("retry_asked.json", Asked)
    origin = fact("origin.json", Origin)
    held = fact("held.json", Held)
    site = place("site.toml")
    attempts = place("attempts")

    def attempt(self, number: int) -> AttemptFolder:
        return AttemptFolder(self.attempts / str(number), number)

    def again(self, number: int) -> Exclusive[Again]:
        return Exclusive(self.path / f"again-{number}.json", Again)

    def attempt_numbers(self) -> list[int]:
        """Raises Damaged."""
        return sorted(int(name) for name in paths.names_in(self.attempts) if paths.is_number(name))


# --- of the installation


def site_fault_of(jobs: JobsFolder) -> Fact[SiteFault]:
    return Fact(jobs.site_fault, SiteFault)


def paused_of(jobs: JobsFolder) -> Exclusive[Paused]:
    return Exclusive(jobs.paused, Paused)


def cluster_of(jobs: JobsFolder) -> Fact[Cluster]:
    return Fact(jobs.cluster, Cluster)


def largest_answer_of(jobs: JobsFolder) -> Fact[LargestAnswer]:
    return Fact(jobs.largest_answer, LargestAnswer)


def group_of(jobs: JobsFolder, name: str) -> Fact[Group]:
    return Fact(jobs.group(name), Group)


# --- what belongs together


def read_result(attempt: AttemptFolder) -> Optional[Result]:
    """What the attempt came to. Where the worker could not know, the login side's verdict is what counts."""
    return attempt.verdict.read() or attempt.result.read()


def read_started(attempt: AttemptFolder) -> Optional[Started]:
    """Where and when it began to run; None also for an attempt that was closed, because it never will."""
    started = attempt.started.read()
    return None if started is None or started.closed else started


def is_running(attempt: AttemptFolder) -> bool:
    """For people; one that can't be read has begun."""
    try:
        begun = read_started(attempt) is not None
    except (Damaged, OSError):
        begun = True
    return begun and not attempt.ended.path.exists()


def read_progress(attempt: AttemptFolder) -> Optional[Progress]:
    """For people; one that can't be read is none."""
    try:
        return attempt.progress.read()
    except (Damaged, OSError):
        return None


def restore(kept: Kept, job: JobFolder, attempt: AttemptFolder, listed: Collection[str] = ()) -> list[str]:
    """Writes what is gone of these facts, and returns their names. Not the message: what becomes of it decides whether
    there is a job. `listed`: names that are there."""
    spec, intent, started = job.spec, attempt.intent, attempt.started
    gone = [fact.name for fact in (spec, intent, started) if fact.name not in listed and not fact.is_there()]
    if spec.name in gone:
        spec.write(kept.spec)
    if intent.name in gone:
        intent.write(kept.intent)
    if started.name in gone:
        started.write(kept.started)
    return gone


def write_reply(attempt: AttemptFolder, stem: str, reply: Reply) -> bool:
    """Stores the reply's properties; its body is in `reply_body(stem)` already.

    Those that are there stay (False): the reply may have been sent with them, and a second copy has to be equal.
    """
    known = {f.name: getattr(reply, f.name) for f in fields(_StoredReply)}
    return attempt.reply_properties(stem).claim(_StoredReply(**known))


def read_reply(attempt: AttemptFolder, stem: str, properties: Optional[Reply] = None) -> Reply:
    """The exact reply as it was stored. `properties`: for who has just stored them. Raises Damaged."""
    stored = properties or attempt.reply_properties(stem).read()
    if stored is None:
        raise Damaged(f"the reply {stem} is missing")
    body = attempt.reply_body(stem).read_bytes()
    return Reply(body=body, **{f.name: getattr(stored, f.name) for f in fields(_StoredReply)})
