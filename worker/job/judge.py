"""Decides what happens next with a job, from its facts alone. Pure: no files, no clock, no Slurm commands.

Two questions, asked in turn. `observe`: what does the scheduler's answer add to the facts? `judge`: what is the next step?
Absence is not evidence, and time alone does not make it so: a network file system may show late what another host wrote, and
hide a name that was looked for in vain for as long as its folder does not change. So a file counts as missing
`visible_after` seconds after Slurm said that the attempt ended, and once its folder was looked at anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Optional, Union

from scheduler import JobView, Phase, SlurmJobId

from ..settings import Timing
from . import sentences
from .facts import Absent, Asked, Cancel, Declined, Ended, Intent, Stuck, Submission
from .outcome import Result
from .retry import is_final, larger, next_attempt_at
from .snapshot import AttemptFacts, JobFacts
from .spec import JobSpec, Resources, deadline_of

_CUT_OFF = ("node_failed", "lost")
"""Ends after which the job's processes may still run somewhere, unreachable for Slurm."""


_REQUEUED = "requeued"
"""Our word for why a started attempt waits."""
_NODE_REFUSED = "node refused"
"""Our word for why an attempt waits that a node was to begin, and did not."""


# --- what may happen next


@dataclass(frozen=True)
class Wait:
    why: str
    unclear: bool = False
    """Nobody knows yet whether Slurm has it."""
    held: Optional[Resources] = None
    """For something of its own, so that others go on: what it asks for, which Slurm declined."""


@dataclass(frozen=True)
class LookAnew:
    """Ask the file server what there is in the job's folder and in this attempt's: from what is missing there something would
    follow that can't be taken back."""

    attempt: int


@dataclass(frozen=True)
class Settle:
    """Ask its source whose it is: somebody else may have it too."""


@dataclass(frozen=True)
class LeaveToOthers:
    """It turned out to be somebody else's, or nobody's: it is put away, and neither run nor answered."""


@dataclass(frozen=True)
class Understand:
    """Read the message: it becomes a spec, or a rejection."""


@dataclass(frozen=True)
class Submit:
    attempt: int
    resources: Resources
    workload: str
    again: Optional[Intent] = None
    """Where it may have been submitted before, without a clear answer: the same again."""
    submission: int = 1
    """Which one of this attempt: those before were declined, and this one gets a group and a name of its own."""
    declined: Optional[Declined] = None
    """What Slurm said to the one before. It surely does not have it."""
    queue: str = field(default="", compare=False)
    claimed_at: float = field(default=0, compare=False)


@dataclass(frozen=True)
class Record:
    """Write this as the attempt's result; Slurm's word is all there is."""

    result: Result


@dataclass(frozen=True)
class GiveVerdict:
    """The worker left a result that it could not be sure of; this is what it came to."""

    result: Result


@dataclass(frozen=True)
class Conclude:
    """The attempt's result is the job's."""

    attempt: int


@dataclass(frozen=True)
class Deliver:
    """Send the stored reply: nobody else will."""


@dataclass(frozen=True)
class Close:
    """See to it that nothing of the attempt can begin any more. If nothing has, it came to `why`; None: to its end."""

    attempt: int
    why: Optional[Cancel]


@dataclass(frozen=True)
class CloseProgram:
    """The attempt has ended without a result, and nothing says that its program had begun: see to it that none will."""

    attempt: int


@dataclass(frozen=True)
class AskToCancel:
    attempt: int
    cancel: Cancel
    """What the attempt came to, if that works."""
    only_waiting: bool


@dataclass(frozen=True)
class Archive:
    pass


Step = Union[
    Wait,
    LookAnew,
    Settle,
    LeaveToOthers,
    Understand,
    Submit,
    Record,
    GiveVerdict,
    Conclude,
    Deliver,
    Close,
    CloseProgram,
    AskToCancel,
    Archive,
]


# --- what the scheduler's answer adds


Observed = Mapping[str, Union[Submission, Ended, Absent, Stuck, None]]
"""Facts to write, by the name of their file in the attempt's folder; None: that file is no longer true."""


def observe(
    a: AttemptFacts, seen: Sequence[JobView], clear: bool, timing: Timing, now: float, others: bool = False
) -> Observed:
    """What is new about an open attempt. `seen`: what the scheduler shows under its name; `clear`: all questions were
    answered, so that nothing seen means nothing there; `others`: it shows other elements of the attempt's array."""
    over = now >= _over_at(a, timing)
    view = _the_one_that_counts(a, [v for v in seen if not (over and v.remembered and v.phase is not Phase.ENDED)])
    if view is None:
        if a.surely_not_there:
            return {}
        return _not_seen(a, timing, now, others) if clear else {}
    observed: dict[str, Union[Submission, Ended, Absent, Stuck, None]] = {}
    if a.absent is not None:
        observed["absent"] = None
    if a.submission is None or (a.started is None and a.submission.slurm_id != view.slurm_id):
        observed["submission"] = Submission(slurm_id=view.slurm_id, at=now, adopted=True)
    if view.phase is Phase.ENDED and view.end is not None:
        at = view.ended_at if view.ended_at is not None else now
        observed["ended"] = Ended(view.end, view.state, min(at, now), view.exit_code, view.node, view.by,
                                  view.node_refused)  # fmt: skip
    reason = _why_it_never_starts(a, view)
    if reason and (a.stuck is None or a.stuck.reason != reason):
        observed["stuck"] = Stuck(reason=reason, since=now, words=view.hopeless)
    if not reason and a.stuck is not None and a.stuck.reason != _REQUEUED and view.phase is not Phase.ENDED:
        observed["stuck"] = None
    return observed


def _not_seen(a: AttemptFacts, timing: Timing, now: float, others: bool) -> Observed:
    """An element that is cancelled before it begins vanishes from squeue and accounting alike, out of an array that both
    still know (seen with Slurm 22.05). Nothing else takes one element away."""
    before = a.absent or Absent(since=now, answers=0)
    absent = Absent(before.since, before.answers + 1, now)
    if others and a.submission is not None and a.started is None and is_lost(replace(a, absent=absent), timing):
        return {"ended": Ended("cancelled", "CANCELLED", now)}
    return {"absent": absent}


def _over_at(a: AttemptFacts, timing: Timing) -> float:
    """When even the slowest attempt is over, whatever the history remembers."""
    if a.intent is None:
        return float("inf")
    begun = a.started.at if a.started else a.intent.at + timing.patience
    return begun + a.intent.resources.minutes * 60 + timing.lost_after


def _why_it_never_starts(a: AttemptFacts, view: JobView) -> str:
    """Empty where it may start. One that has started already, and now waits again, would find that and leave."""
    if view.phase is not Phase.WAITING:
        return ""
    if a.started is not None:
        return _REQUEUED
    if view.node_refused:
        return _NODE_REFUSED
    return view.reason if view.hopeless else ""


def strays(a: AttemptFacts, seen: Sequence[JobView]) -> list[SlurmJobId]:
    """Copies under names that were declined, which can't win started.json any more: another copy has it."""
    if a.started is None or not a.earlier:
        return []
    return [v.slurm_id for v in seen if v.phase is Phase.WAITING and v.slurm_id != a.started.slurm_id]


def _the_one_that_counts(a: AttemptFacts, seen: Sequence[JobView]) -> Optional[JobView]:
    """Of several Slurm jobs under one name (an sbatch that was repeated): the one that started, else one that is alive."""
    if a.started is not None:
        return next((view for view in seen if view.slurm_id == a.started.slurm_id), None)
    alive = [view for view in seen if view.phase is not Phase.ENDED]
    ours = [view for view in seen if view.slurm_id == a.slurm_id]
    return next(iter([*alive, *ours, *seen]), None)


# --- what is next


@dataclass(frozen=True)
class Clock:
    """Seconds since 1970: `now` by this host, `server` by the file server, which alone tells how old a file is."""

    now: float
    server: float


def judge(job: JobFacts, timing: Timing, max_wait: float, now: float, server_now: float) -> Step:
    """The next step for a job. `now`: this host's clock; `server_now`: the file server's, which alone tells how old a
    file is."""
    clock = Clock(now, server_now)
    if job.outcome is not None:
        return _after_outcome(job, timing, clock)
    if job.message.needs_settling and (job.settlement is None or not job.settlement.ours):
        return Settle() if job.settlement is None else LeaveToOthers()
    if job.spec is None and not any(a.what_counts for a in job.attempts):
        return Understand()
    if not job.attempts:
        return _submit(job, 1, max_wait, clock)
    return _during_attempt(job, job.attempts[-1], timing, max_wait, clock)


def _after_outcome(job: JobFacts, timing: Timing, clock: Clock) -> Step:
    assert job.outcome is not None
    step: Step = Archive()
    if not (job.delivered or job.undeliverable):
        if job.not_taken is not None and clock.now < job.not_taken.again_at:
            step = Wait(f"for the broker to take its answer: {job.not_taken.why}")
        else:
            step = Deliver() if job.outcome.by == "login" else _deliver_for_the_job(job, timing, clock)
    alive = [a for a in job.attempts if _alive(a, timing)]
    for a in alive:
        waits_or_runs = a.submission is not None and not a.closed
        if a.number != job.outcome.attempt and waits_or_runs and not isinstance(step, Deliver):
            return AskToCancel(
                a.number, Cancel("cancelled", "Another attempt has answered.", clock.now), only_waiting=False
            )
    return Wait("for Slurm to end it") if alive and isinstance(step, Archive) else step


def _deliver_for_the_job(job: JobFacts, timing: Timing, clock: Clock) -> Step:
    """Its worker won the outcome, so it publishes, and only when it surely is gone do we."""
    assert job.outcome is not None
    a = job.attempts[job.outcome.attempt - 1]
    if _alive(a, timing):
        return Wait("for the job to deliver its answer")
    if a.ended and a.ended.end not in _CUT_OFF:
        if not _all_visible(a, timing, clock):
            return Wait("for files to become visible")
        return Deliver() if job.looked_anew == a.number else LookAnew(a.number)
    # The node may be alive and only cut off from Slurm: then its worker may have answered just now.
    noted = clock.server - a.ended_noted if a.ended else timing.cut_off_after
    silent = min(noted, clock.server - job.outcome_at)
    if silent < timing.cut_off_after:
        return Wait("for a job that may be cut off to answer itself")
    return Deliver() if job.looked_anew == a.number else LookAnew(a.number)


def _submit(job: JobFacts, number: int, max_wait: float, clock: Clock) -> Step:
    """An attempt after others gets more than the one before had, if that was too little."""
    assert job.spec is not None
    why = _not_wanted(job, number, max_wait, clock)
    if why is not None:
        return Close(number, why)
    given, workload = _given(job, job.spec, number), job.spec.workload
    a = job.attempts[number - 1] if len(job.attempts) >= number else None
    if a is not None and a.declined is not None:
        return Submit(number, given, workload, None, len(a.intents) + 1, a.declined, job.message.queue, job.claimed_at)
    intent, submission = (a.intent, max(1, len(a.intents))) if a else (None, 1)
    return Submit(number, given, workload, intent, submission, None, job.message.queue, job.claimed_at)


def _not_wanted(job: JobFacts, number: int, max_wait: float, clock: Clock) -> Optional[Cancel]:
    """Why this attempt need not begin. The deadline is the job's: once it has begun, it has met it. But nobody waits for ever
    for another try."""
    if job.cancel_asked is not None:
        return Cancel("cancelled", _cancelled(job.cancel_asked), clock.now)
    expired = _expired(job, max_wait, clock) if number == 1 else _waited_in_vain(job, number, max_wait, clock)
    return Cancel("expired", expired, clock.now) if expired else None


def _waited_in_vain(job: JobFacts, number: int, max_wait: float, clock: Clock) -> Optional[str]:
    """Why another try is not waited for any longer: Slurm has had it for as long as the first one may wait. What keeps it from
    being submitted has a patience of its own."""
    intents = job.attempts[number - 1].intents if len(job.attempts) >= number else ()
    waited = clock.now - intents[0].at if intents else 0
    return sentences.retry_waited_too_long(max_wait) if intents and waited >= max_wait else None


def _was_in_vain(a: AttemptFacts) -> bool:
    """A further attempt that nobody waits for any longer, and that came to nothing: the end of the one before is what the
    job came to. It ran, so to tell that the job did not start would be untrue."""
    return a.number > 1 and a.cancel is not None and a.cancel.outcome == "expired"


def end_of_unread(job: JobFacts, max_wait: float, now: float, server_now: float) -> Optional[Result]:
    """What a job comes to that can't be read yet and waits for that; None where it goes on waiting."""
    why = _not_wanted(job, 1, max_wait, Clock(now, server_now))
    return Result(why.outcome, 1, why.reason, ended_at=now) if why is not None else None


def _cancelled(asked: Asked) -> str:
    return sentences.cancelled_by_operator(asked.reason)


def _given(job: JobFacts, spec: JobSpec, number: int) -> Resources:
    if number == 1:
        return spec.resources
    before = job.attempts[number - 2]
    return larger(_had(spec, before), before.what_counts.outcome if before.what_counts else "", spec)


def _during_attempt(job: JobFacts, a: AttemptFacts, timing: Timing, max_wait: float, clock: Clock) -> Step:
    result = a.what_counts
    if result is not None:
        return _after_result(job, a, result, timing, max_wait, clock)
    if a.closed:
        return Conclude(a.number - 1) if _was_in_vain(a) else Record(_of_closed(job, a, clock))
    return (
        _before_start(job, a, timing, max_wait, clock) if a.started is None else _while_running(job, a, timing, clock)
    )


def _before_start(job: JobFacts, a: AttemptFacts, timing: Timing, max_wait: float, clock: Clock) -> Step:
    """Nobody has seen it start, which proves nothing: before anything is said of it, it is closed."""
    if a.ended is not None:
        return Close(a.number, a.cancel)
    why = a.cancel or _not_wanted(job, a.number, max_wait, clock) or given_up(a, timing, clock)
    if why is not None:
        return Close(a.number, why)
    if a.intent is None:
        return _submit(job, a.number, max_wait, clock)
    if a.submission is None:
        return _unclear_submission(job, a, timing, max_wait, clock)
    return Wait("for the job to start or end")


def given_up(a: AttemptFacts, timing: Timing, clock: Clock) -> Optional[Cancel]:
    """Why it is not waited for any longer."""
    if a.stuck is not None and a.stuck.reason == _NODE_REFUSED:
        return Cancel("failed", sentences.node_refused(), clock.now, "start")
    if a.stuck is not None and clock.now - a.stuck.since >= timing.hopeless_after:
        reason = sentences.hopeless(a.stuck.words or a.stuck.reason)
        return Cancel("rejected", reason, clock.now)
    if a.submission is not None and is_lost(a, timing):
        return Cancel("lost", sentences.of_end("lost"), clock.now)
    return None


def _while_running(job: JobFacts, a: AttemptFacts, timing: Timing, clock: Clock) -> Step:
    if a.ended is not None:
        if not _all_visible(a, timing, clock):
            return Wait("for files to become visible")
        if job.looked_anew != a.number:
            return LookAnew(a.number)
        came_to = _from_end(job, a, a.ended)
        undecided = a.begun is None and a.started is not None and a.started.says_begun
        return CloseProgram(a.number) if undecided and came_to.outcome == "failed" else Record(came_to)
    if is_lost(a, timing):
        return Record(_lost(job, a, clock)) if job.looked_anew == a.number else LookAnew(a.number)
    if a.stuck is not None and a.stuck.reason == _REQUEUED:
        return _withdraw_requeued(a, clock)
    if job.cancel_asked is not None:
        cancel = a.cancel or Cancel("cancelled", _cancelled(job.cancel_asked), clock.now)
        return AskToCancel(a.number, cancel, only_waiting=False)
    return Wait("for the job to end")


def _unclear_submission(job: JobFacts, a: AttemptFacts, timing: Timing, max_wait: float, clock: Clock) -> Step:
    """sbatch gave no clear answer. Two clear answers of Slurm without it, in different passes, and time in between."""
    assert a.intent is not None
    if a.declined is not None:
        if a.surely_not_there:
            return _submit(job, a.number, max_wait, clock)
        return Wait("to see whether Slurm has it although it was declined", held=a.intent.resources)
    since = max(a.intent.at, a.absent.since if a.absent else 0)
    if a.absent is not None and a.absent.answers >= 2 and clock.now - since >= timing.adopt_after:
        return _submit(job, a.number, max_wait, clock)
    return Wait("to see whether the unclear submission was taken", unclear=True)


def _all_visible(a: AttemptFacts, timing: Timing, clock: Clock) -> bool:
    """Whether everything that the attempt wrote before its end can be seen here. This host's clock may be wrong, so both
    times are the file server's."""
    return clock.server - a.ended_noted >= timing.visible_after


def _alive(a: AttemptFacts, timing: Timing) -> bool:
    """Slurm may still tell of its end. Not of a job that it has forgotten, as it does early without accounting."""
    return a.open and not is_lost(a, timing)


def is_silent(a: AttemptFacts, timing: Timing, clock: Clock) -> bool:
    """Whether it has ended as far as Slurm knows, and long enough ago where Slurm may only have lost sight of it."""
    cut_off = a.ended is not None and a.ended.end in _CUT_OFF
    return not cut_off or clock.server - a.ended_noted >= timing.cut_off_after


def surely_over(a: AttemptFacts, timing: Timing, clock: Clock) -> bool:
    """Whether nothing of it writes any more, and all that it wrote can be seen."""
    return _all_visible(a, timing, clock) and is_silent(a, timing, clock)


def is_lost(a: AttemptFacts, timing: Timing) -> bool:
    """By what Slurm has said, and no clock: what was not asked again for long was not absent for long. Nor was what another
    pass missed before this one had submitted it."""
    if a.absent is None or a.absent.answers < 2:
        return False
    since = max(a.absent.since, a.submission.at if a.submission else 0)
    return a.absent.until - since >= timing.lost_after


def _lost(job: JobFacts, a: AttemptFacts, clock: Clock) -> Result:
    """What was asked to end, and is gone, was cancelled."""
    asked = job.cancel_asked
    outcome, reason = ("cancelled", _cancelled(asked)) if asked else ("lost", sentences.of_end("lost"))
    return Result(outcome, a.number, reason, slurm_job_id=a.slurm_id or "", ended_at=clock.now)


def _withdraw_requeued(a: AttemptFacts, clock: Clock) -> Step:
    """The scheduler took the attempt away and would run it again, or holds it for ever."""
    return AskToCancel(
        a.number, a.cancel or Cancel("node_failed", sentences.of_end("node_failed"), clock.now), only_waiting=True
    )


def _after_result(
    job: JobFacts, a: AttemptFacts, result: Result, timing: Timing, max_wait: float, clock: Clock
) -> Step:
    if a.verdict is None and result.needs_verdict:
        return _give_verdict(job, a, result, timing, clock)
    if job.spec is not None and not is_final(result, job.spec, _had(job.spec, a)):
        asked = job.cancel_asked is not None or (job.retry_asked and job.retry_asked.attempt == a.number)
        ready = asked or clock.now >= next_attempt_at(result, job.spec.retry)
        return _submit(job, a.number + 1, max_wait, clock) if ready else Wait("before the next attempt")
    if a.closed:
        return Conclude(a.number)
    if _alive(a, timing) and a.verdict is None:
        return Wait("for the job to answer")
    # The worker may have won outcome.json just now, where we do not see it yet; then our own attempt to will lose.
    if a.ended is not None and a.verdict is None and not _all_visible(a, timing, clock):
        return Wait("for files to become visible")
    return Conclude(a.number)


def _give_verdict(job: JobFacts, a: AttemptFacts, result: Result, timing: Timing, clock: Clock) -> Step:
    if a.ended is not None:
        return GiveVerdict(_verdict(job, a, result, a.ended))
    if is_lost(a, timing):
        return GiveVerdict(_lost(job, a, clock))
    if a.stuck is not None and a.stuck.reason == _REQUEUED:
        return _withdraw_requeued(a, clock)
    return Wait("for Slurm's verdict")


def _from_end(job: JobFacts, a: AttemptFacts, ended: Ended) -> Result:
    """What an attempt came to that ended without a result of its own."""
    requeued = a.stuck is not None and a.stuck.reason == _REQUEUED
    if ended.end == "cancelled" and a.cancel is not None and requeued:
        outcome, reason = a.cancel.outcome, a.cancel.reason
    elif ended.end == "cancelled" and job.cancel_asked is not None:
        outcome, reason = "cancelled", _cancelled(job.cancel_asked)
    elif a.started is None and ended.node_refused:
        outcome, reason = "failed", sentences.node_refused()
    else:
        outcome = "failed" if ended.end == "succeeded" else ended.end
        had, asked = (_had(job.spec, a), job.spec.resources) if job.spec else (None, None)
        if outcome == "timed_out" and had and a.started and ended.at - a.started.at < 0.9 * had.time_seconds:
            had = None  # an administrator has shortened it; nobody tells us to what
        reason = sentences.of_end(outcome, had, ended.exit_code, ended.by, asked)
        if outcome == "failed" and a.begun is not None:
            reason = sentences.without_result(ended.exit_code, begun=True) if a.begun else sentences.never_began()
    never_began = a.started is None or a.begun is False
    return Result(
        outcome=outcome,
        attempt=a.number,
        reason=reason,
        step="" if outcome != "failed" else "start" if never_began else "run",
        may_work_again=outcome == "failed" and (never_began or a.begun is True),
        node=ended.node,
        slurm_job_id=a.slurm_id or "",
        started_at=a.started.at if a.started else None,
        ended_at=ended.at,
    )


def _of_closed(job: JobFacts, a: AttemptFacts, clock: Clock) -> Result:
    """What an attempt came to that nobody can begin any more: the reason was on disk before it was closed."""
    if a.cancel is None:
        return _from_end(job, a, a.ended) if a.ended else _lost(job, a, clock)
    return Result(
        outcome=a.cancel.outcome,
        attempt=a.number,
        reason=a.cancel.reason,
        step=a.cancel.step,
        may_work_again=a.cancel.step == "start",
        slurm_job_id=a.slurm_id or "",
        ended_at=clock.now,
    )


def _verdict(job: JobFacts, a: AttemptFacts, result: Result, ended: Ended) -> Result:
    """A bad word of Slurm's overrides what the worker could not know; another one confirms what it thought.

    A worker that was told to stop, of which Slurm says that it ended normally, was taken away by neither a person nor a
    limit: the node, or an administrator's requeue.
    """
    if result.outcome != "cancelled" and ended.end in ("succeeded", "failed"):
        return replace(result, needs_verdict=False)
    told = _from_end(job, a, ended)
    if ended.end in ("succeeded", "failed"):
        told = replace(
            told, outcome="node_failed", step="", may_work_again=False, reason=sentences.of_end("node_failed")
        )
    return replace(told, started_at=result.started_at, exit_code=result.exit_code, signal=result.signal)


def _had(spec: JobSpec, a: AttemptFacts) -> Resources:
    return a.intent.resources if a.intent else spec.resources


def _expired(job: JobFacts, max_wait: float, clock: Clock) -> Optional[str]:
    """Why the job no longer needs to start; None where it does."""
    deadline = deadline_of(job.message.properties, job.claimed_at)
    if deadline is not None and clock.server >= deadline:
        return sentences.deadline_passed()
    if clock.server - job.claimed_at >= max_wait:
        return sentences.waited_too_long(max_wait)
    return None
