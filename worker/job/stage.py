"""Where a job stands: one function from what its folder shows to a stage, and all the words for stages. Pure.

A stage is told by which facts are there, and since when by the time of the one that tells it, so that ten thousand jobs cost
a listing or two and one time each. What a fact says is asked for only where its presence does not tell.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Callable, Literal, Optional

from .outcome import Result
from .retry import is_final
from .snapshot import AttemptFacts
from .spec import JobSpec, Resources

STATES: Mapping[str, str] = {
    "claimed": "on disk and safe; not submitted yet (explain says what it waits for)",
    "held": "waits for its workload, which can't be started: something in the installation is missing (explain says what)",
    "unclear": "sbatch gave no clear answer; the next passes find out whether Slurm has it",
    "declined": "Slurm declines jobs like it for now; it is tried again, and explain has Slurm's words",
    "pending": "submitted; waits in Slurm",
    "running": "works on a compute node",
    "cancelling": "is to end: Slurm will be asked in the next pass, or has been and has not yet said that it is gone",
    "ending": "has ended; its outcome is settled as soon as all of its files can be seen",
    "retrying": "an attempt has ended, and another one follows",
    "answering": "has its outcome; the answer is on its way",
    "unanswered": "has its outcome, but no queue takes the answer (fix the queue, then resend)",
    "closing": "answered; goes to jobs/done as soon as Slurm too says that it has ended",
    "damaged": "its folder can't be read, so it is left alone until somebody repairs it",
}
ENDED_STATES: Mapping[str, str] = {
    "done": "answered and put away, kept for keep_done",
    "rejected": "the message was no valid job, and its sender was told so; see replay",
    "undelivered": "no queue took its answer within give_up_after; see resend",
    "not_ours": "somebody else had taken it as well, or its sender took it back: neither run nor answered",
}
BATCH_STATES: Mapping[str, str] = {
    "todo": "claimed, in a batch that no pilot has taken yet",
    "locked": "in a batch that a pilot has taken; it may have answered some of them",
    "ended": "in a batch that came back; the next pass looks at it",
    "error": "answered, and not with a success",
    "done": "answered with a success",
}
RETRYING, DAMAGED = "retrying", "damaged"
UNSENT = ("answering", "unanswered")
DONE, REJECTED, UNDELIVERED, NOT_OURS = ENDED_STATES
TODO, LOCKED, ENDED, ERROR, _ = BATCH_STATES
IN_OPEN_BATCHES = (TODO, LOCKED, ENDED)
OUTCOME_WORDS: Mapping[str, str] = {
    "succeeded": "all went well; its outputs are the answer, or were uploaded",
    "rejected": "no valid job, more than the site allows, or Slurm can never run it",
    "failed": "a step failed: fetch, run (exit code or signal), pack, deliver; or it could not be submitted within patience",
    "out_of_memory": "it used more memory than it was given",
    "timed_out": "it reached its time limit",
    "node_failed": "its node failed, more often than the retry policy allows",
    "preempted": "Slurm took its place for a more urgent job, more often than the retry policy allows",
    "cancelled": "somebody cancelled it",
    "expired": "it did not start before its deadline or max_wait",
    "lost": "Slurm no longer knows it",
}


def words_in_help() -> str:
    """Every word that a reader of the table meets."""

    def block(title: str, words: Mapping[str, str]) -> str:
        return "\n".join([f"{title}:", *(f"  {word:14} {meaning}" for word, meaning in words.items())])

    return "\n\n".join([
        block("states of an active job", STATES), block("states of one that was put away", ENDED_STATES),
        block("outcomes", OUTCOME_WORDS),
    ])  # fmt: skip


# --- what it is told by

# fmt: off
Mark = Literal[
    "message", "spec", "attempts", "held", "cancel_asked", "outcome", "delivered", "undeliverable", "not_taken",
    "intent", "declined", "submission", "started", "cancel", "ended", "result",
    "folder", "attempt",
]
# fmt: on
"""Facts of a job, facts of its last attempt, and the folders of both. `declined` is Slurm's answer to the last submission."""


@dataclass(frozen=True)
class Outline:
    """What a job's folder shows before any of its files is opened."""

    place: str
    """Where it lies: ACTIVE, or one of ENDED_STATES."""
    marks: Collection[Mark]
    """What is there. Of an attempt there is nothing where the job has its outcome, or was put away."""
    attempt: int
    """The last one, 0 for none."""
    written_at: Callable[[Mark], float]
    """When this was written or changed, in seconds since 1970, by the file server's clock."""
    goes_on: Callable[[], bool]
    """Whether another attempt follows the last one's result: only what files say tells this."""


@dataclass(frozen=True)
class Stage:
    """`since`: seconds since 1970, by the file server's clock; `attempt`: the last one, 0 for none."""

    word: str
    since: float
    attempt: int = 0


ACTIVE = "active"
_OF_THE_ANSWER: tuple[tuple[Mark, str], ...] = (
    ("delivered", "closing"),
    ("undeliverable", "closing"),
    ("not_taken", "unanswered"),
    ("outcome", "answering"),
)
_OF_AN_ATTEMPT: tuple[tuple[Mark, str], ...] = (
    ("ended", "ending"),
    ("cancel", "cancelling"),
    ("started", "running"),
    ("submission", "pending"),
    ("declined", "declined"),
    ("intent", "unclear"),
)
"""The first of these facts that is there tells, unless there is a result. An attempt that was closed has its started.json too,
and always cancel.json or ended.json, which come before it."""
_MAY_BE_HELD = ("claimed", "unclear", "retrying")


def stage_of(outline: Outline) -> Optional[Stage]:
    """None where its message has not come yet."""
    if outline.place != ACTIVE:
        return _put_away(outline)
    if "message" not in outline.marks:
        begun = any(mark in outline.marks for mark in ("attempts", "spec", "outcome"))
        return damaged(outline.written_at("folder")) if begun else None
    if "outcome" in outline.marks:
        mark, word = next((mark, word) for mark, word in _OF_THE_ANSWER if mark in outline.marks)
    else:
        mark, word = _before_its_outcome(outline)
    return Stage(word, outline.written_at(mark), outline.attempt)


def damaged(since: float) -> Stage:
    """Of a job whose folder can't be read."""
    return Stage(DAMAGED, since)


def _put_away(outline: Outline) -> Optional[Stage]:
    told_by: tuple[Mark, ...] = ("delivered", "undeliverable", "message")
    if "message" not in outline.marks:
        return None
    return Stage(outline.place, outline.written_at(next(m for m in told_by if m in outline.marks)), outline.attempt)


def _before_its_outcome(outline: Outline) -> tuple[Mark, str]:
    """Its word, and what tells it."""
    mark, word = _of_the_attempt(outline) if outline.attempt else ("message", "claimed")
    if "cancel_asked" in outline.marks and word != "ending":
        return "cancel_asked", "cancelling"
    if "held" in outline.marks and word in _MAY_BE_HELD:
        return "held", "held"
    return mark, word


def _of_the_attempt(outline: Outline) -> tuple[Mark, str]:
    if "result" in outline.marks:
        return "result", RETRYING if outline.goes_on() else "ending"
    for mark, word in _OF_AN_ATTEMPT:
        if mark in outline.marks:
            return mark, word
    return "attempt", "claimed" if outline.attempt == 1 else RETRYING


def goes_on(result: Optional[Result], spec: Optional[JobSpec], had: Optional[Resources]) -> bool:
    """Whether another attempt follows one with this result. `had`: what it was given, where that is known."""
    if result is None or spec is None or result.needs_verdict:
        return False
    return not is_final(result, spec, had or spec.resources)


# --- pilots, and the jobs in their batches


def stage_in_batch(place: str, claimed_at: float, started_at: Optional[float], result: Optional[Result]) -> Stage:
    """Of a job in a batch that lies in this folder: one of IN_OPEN_BATCHES, or any other, if the batch is through."""
    came_to = DONE if result is not None and result.outcome == "succeeded" else ERROR
    ended_at = result.ended_at if result else None
    return Stage(place if place in IN_OPEN_BATCHES else came_to, ended_at or started_at or claimed_at)


def stage_of_pilot(facts: AttemptFacts, written_at: Callable[[Mark], float]) -> Stage:
    """Of a pilot, which is no job, but has an attempt like one."""
    if facts.ended is not None:
        return Stage(f"ended ({facts.ended.state})", facts.ended.at, facts.number)
    if facts.started is not None:
        return Stage("running", facts.started.at, facts.number)
    if facts.closed:
        return Stage("withdrawn", written_at("started"), facts.number)
    if facts.submission is not None:
        return Stage("waiting in Slurm", facts.submission.at, facts.number)
    return Stage("being submitted", facts.intent.at if facts.intent else written_at("folder"), facts.number)
