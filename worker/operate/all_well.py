"""Is all well, or what is away since when: in one sentence, and in a line for each thing that is not well. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from ..job.sentences import counted

if TYPE_CHECKING:
    from .status import Standing

_RECENT = 600.0
"""Seconds: cron starts a pass every minute or few; doctor too goes by this."""
_UNSENT_TOO_LONG = 900.0
_AWAY: Mapping[str, str] = {
    "login": "The API has refused our login",
    "api": "The API has been away",
    "slurm": "Slurm has been away",
    "disk": "The disk has been away",
}


@dataclass(frozen=True)
class Finding:
    """What is not well. `words`: without a full stop; `grave`: nothing is taken, or nothing goes out; `since`: in seconds
    since 1970, None where nobody knows; `detail`: what was found, and what to do."""

    words: str
    grave: bool
    since: Optional[float] = None
    detail: str = ""


def findings(now: Standing) -> list[Finding]:
    """The gravest first."""
    return sorted([*_away(now), *_passes(now), *_paused(now), *_kept(now)], key=lambda each: not each.grave)


def _away(now: Standing) -> Iterator[Finding]:
    fault = now.site_fault
    if fault is not None:
        words = _AWAY.get(fault.kind, f"{fault.kind} has been away")
        yield Finding(words, True, fault.since, f"Jobs wait, and no message is taken. {fault.words}")
    for who, why in (("RabbitMQ", now.broker_away), ("Slurm", now.slurm_away)):
        if why and not (fault is not None and fault.kind == who.lower()):
            yield Finding(f"{who} gives no answer", True, None, why)


def _passes(now: Standing) -> Iterator[Finding]:
    last = now.last_pass
    if last is None:
        yield Finding("No pass has run yet", True, None, "Is run_check in the crontab? ./check.py doctor says.")
    elif now.at - last.at > _RECENT:
        found = "the one on {} has given no sign of life" if last.running else "the last one ended on {}"
        yield Finding(
            "No pass has run", True, last.at,
            f"{found.format(last.host).capitalize()}. See the end of logs/run_check.log, and whether cron runs.",
        )  # fmt: skip


def _paused(now: Standing) -> Iterator[Finding]:
    """As it was meant, perhaps by somebody who has forgotten it since."""
    if now.paused is not None:
        words = f"{now.paused.sentence}. ./check.py resume ends this."
        yield Finding("This installation is paused", bool(now.paused.damaged), now.paused.at, words)


def _kept(now: Standing) -> Iterator[Finding]:
    for queue, why in now.queue_faults.items():
        yield Finding(f"The queue {queue} can't be read", True, None, why)
    for name, why in now.stopped.items():
        yield Finding(f"The workload {name} is stopped", False, None, why)
    for words in now.declined:
        yield Finding("Slurm declines some jobs", False, None, words)
    unanswered, damaged = now.active.get("unanswered", 0), now.active.get("damaged", 0)
    since = now.oldest_unanswered_since
    if unanswered:
        yield Finding(
            f"{counted(unanswered, 'answer')} can't be sent", False, since,
            "No queue takes them yet; they are sent again by themselves.",
        )  # fmt: skip
    elif since is not None and now.at - since > _UNSENT_TOO_LONG:
        yield Finding("An answer has been on its way", False, since, "Is the broker away? ./check.py doctor says.")
    for row in now.pilots:
        if row.unfit:
            yield Finding(f"No pilot works for the queue {row.queue}", False, None, row.unfit)
        for words in row.damaged:
            yield Finding(f"A batch of the queue {row.queue} can't be read", False, None, words)
    if damaged:
        yield Finding(
            f"{counted(damaged, 'job')} can't be read", False, None, "The others go on. ./check.py status names them."
        )
    if now.undelivered:
        yield Finding(
            f"{counted(now.undelivered, 'answer')} could not be delivered", False, None,
            "Kept in jobs/undelivered; once the queue is there again: ./check.py resend --all",
        )  # fmt: skip


def headline(found: Sequence[Finding], asked: bool) -> str:
    """`asked`: whether the broker and Slurm were asked just now; the findings' own times stand beside it."""
    if found:
        return found[0].words
    return "All is well" if asked else "All is well, as far as the files tell"
