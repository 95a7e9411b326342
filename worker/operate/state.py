"""Where a job stands, told by the names of its files: a file is opened only where its name does not tell."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from ..errors import Damaged
from ..facts import Intent, read_result, read_spec
from ..folder import JobFolder, read
from ..retry import is_final

STATES: Mapping[str, str] = {
    "claimed": "on disk and safe; not submitted yet (explain says what it waits for)",
    "unclear": "sbatch gave no clear answer; the next passes find out whether Slurm has it",
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


def state_of(job: JobFolder) -> Optional[State]:
    """Of an active job; None for a folder whose message has not come yet, or that has just moved away."""
    try:
        return _state_of(job)
    except FileNotFoundError:
        return None
    except (Damaged, OSError):
        return State("damaged", _changed(str(job.path)))


def _state_of(job: JobFolder) -> Optional[State]:
    names = set(os.listdir(job.path))
    if job.message.name not in names:
        return None
    numbers = job.attempt_numbers() if job.attempts.name in names else []
    number = numbers[-1] if numbers else 0
    if job.outcome.name in names:
        for file, word in ((job.delivered, "closing"), (job.undeliverable, "closing"), (job.unroutable, "unanswered")):
            if file.name in names:
                return State(word, _changed(str(file)), number)
        return State("answering", _changed(str(job.outcome)), number)
    state = _during_attempt(job, number) if numbers else State("claimed", _changed(str(job.message)))
    if job.cancel_asked.name in names and state.word != "ending":
        return State("cancelling", _changed(str(job.cancel_asked)), number)
    return state


def _during_attempt(job: JobFolder, number: int) -> State:
    a = job.attempt(number)
    names = set(os.listdir(a.path))
    for file, word in (
        (a.result, ""), (a.ended, "ending"), (a.cancel, "cancelling"), (a.started, "running"),
        (a.submission, "pending"), (a.intent, "unclear"),
    ):  # fmt: skip
        if file.name in names:
            return State(word or _after_result(job, number), _changed(str(file)), number)
    return State("claimed" if number == 1 else "retrying", _changed(str(a.path)), number)


def _after_result(job: JobFolder, number: int) -> str:
    attempt, spec = job.attempt(number), read_spec(job)
    result, intent = read_result(attempt), read(Intent, attempt.intent)
    if result is None or spec is None or result.needs_verdict:
        return "ending"
    return "ending" if is_final(result, spec, intent.resources if intent else spec.resources) else "retrying"


def _changed(path: str) -> float:
    return os.stat(path).st_mtime
