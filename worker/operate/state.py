"""Where a job stands, told by the names of its files: a file is opened only where its name does not tell."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..errors import Damaged
from ..folder.facts import JobFolder, read_result
from ..folder.paths import is_number
from ..job.retry import is_final

STATES: Mapping[str, str] = {
    "claimed": "on disk and safe; not submitted yet (explain says what it waits for)",
    "held": "waits for its workload, which can't be begun: something of the installation is missing (explain says what)",
    "unclear": "sbatch gave no clear answer; the next passes find out whether Slurm has it",
    "declined": "Slurm declines jobs like it for now; it is tried again, and explain has Slurm's words",
    "pending": "submitted; waits in Slurm",
    "running": "works on a compute node",
    "cancelling": "shall end: the next pass asks Slurm, or has asked, and Slurm has not yet said that it is gone",
    "ending": "has ended; what it came to is settled as soon as all of its files can be seen",
    "retrying": "an attempt has ended, and another one follows",
    "answering": "has its outcome; the answer is on its way",
    "unanswered": "has its outcome, but no queue takes the answer (mend the queue, then resend)",
    "closing": "answered; goes to jobs/done as soon as Slurm too says that it has ended",
    "damaged": "its folder can't be read, so it is left alone until somebody mends it",
}
ENDED_STATES: Mapping[str, str] = {
    "done": "answered and put away, kept for keep_done",
    "rejected": "the message was no valid job, and was answered so; see replay",
    "undelivered": "no queue took its answer in give_up_after; see resend",
}
OUTCOME_WORDS: Mapping[str, str] = {
    "succeeded": "the outputs were sent",
    "rejected": "no valid job, more than the site allows, or Slurm can never run it",
    "failed": "a step failed: fetch, run (exit code or signal), pack; or it could not be submitted for patience",
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


@dataclass(frozen=True)
class State:
    """`since`: seconds since 1970, by the file server's clock; `attempt`: the last one, 0 for none."""

    word: str
    since: float
    attempt: int = 0


_JOB = JobFolder(Path("job"))
_ATTEMPT = _JOB.attempt(1)
_OF_THE_ANSWER = (
    (_JOB.delivered.name, "closing"),
    (_JOB.undeliverable.name, "closing"),
    (_JOB.unroutable.name, "unanswered"),
    (_JOB.outcome.name, "answering"),
)
_OF_AN_ATTEMPT = (
    (_ATTEMPT.result.name, ""),
    (_ATTEMPT.ended.name, "ending"),
    (_ATTEMPT.cancel.name, "cancelling"),
    (_ATTEMPT.started.name, "running"),
    (_ATTEMPT.submission.name, "pending"),
    (_ATTEMPT.intent.name, "unclear"),
)
"""The first of these files that is there tells; the word for a result depends on what is in it. One that was closed has its
started.json too, and always cancel.json or ended.json, which come before it."""


def state_of(path: str) -> Optional[State]:
    """Of the active job in this folder; None where its message has not come yet, or it has just moved away.

    Paths are plain text here, because there may be ten thousand jobs, and a JobFolder is two dozen objects.
    """
    try:
        return _state_of(path)
    except FileNotFoundError:
        return None
    except (Damaged, OSError):
        return State("damaged", _changed(path))


def _state_of(path: str) -> Optional[State]:
    names = set(os.listdir(path))
    if _JOB.message.name not in names:
        begun = names & {_JOB.attempts.name, _JOB.spec.name, _JOB.outcome.name}
        return State("damaged", _changed(path)) if begun else None
    numbers = [name for name in os.listdir(f"{path}/attempts") if is_number(name)] if "attempts" in names else []
    number = max(map(int, numbers), default=0)
    if _JOB.outcome.name in names:
        file, word = next((file, word) for file, word in _OF_THE_ANSWER if file in names)
        return State(word, _changed(f"{path}/{file}"), number)
    state = _during_attempt(path, number) if number else State("claimed", _changed(f"{path}/{_JOB.message.name}"))
    if _JOB.held.name in names and state.word in ("claimed", "unclear", "retrying"):
        state = State("held", _changed(f"{path}/{_JOB.held.name}"), number)
    if _JOB.cancel_asked.name in names and state.word != "ending":
        return State("cancelling", _changed(f"{path}/{_JOB.cancel_asked.name}"), number)
    return state


def _during_attempt(path: str, number: int) -> State:
    attempt = f"{path}/attempts/{number}"
    names = set(os.listdir(attempt))
    for file, word in _OF_AN_ATTEMPT:
        if file in names:
            if word == "unclear" and _is_declined(names):
                word, file = "declined", _ATTEMPT.declined(_submissions(names)).name
            return State(word or _after_result(JobFolder(Path(path)), number), _changed(f"{attempt}/{file}"), number)
    return State("claimed" if number == 1 else "retrying", _changed(attempt), number)


def _submissions(names: Collection[str]) -> int:
    """How often it was to be submitted: each time but the first is an intent with a number."""
    return 1 + sum(name.startswith("intent-") for name in names)


def _is_declined(names: Collection[str]) -> bool:
    return _ATTEMPT.declined(_submissions(names)).name in names


def _after_result(job: JobFolder, number: int) -> str:
    attempt, spec = job.attempt(number), job.spec.read()
    result, intent = read_result(attempt), attempt.intent.read()
    if result is None or spec is None or result.needs_verdict:
        return "ending"
    return "ending" if is_final(result, spec, intent.resources if intent else spec.resources) else "retrying"


def _changed(path: str) -> float:
    return os.lstat(path).st_mtime
