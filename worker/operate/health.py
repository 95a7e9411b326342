"""`status --check`: one line and an exit code, as monitors such as Nagios, Icinga and Zabbix take them.

Its limits are those of docs/monitoring/alerts.yml.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import as_json
from ..errors import Fault
from ..job.stage import DAMAGED
from . import screen

if TYPE_CHECKING:
    from .status import Standing

OK, WARNING, CRITICAL, UNKNOWN = range(4)
WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_SILENT_AFTER = 900.0
"""Seconds since the last sign of a pass."""
_AWAY_TOO_LONG = 1800.0
_UNSENT_TOO_LONG = 900.0
EXIT_CODES = {
    0: "nothing has to be done (with --check: OK)",
    1: "with --check: WARNING, something wants a look; nothing is lost",
    2: "with --check: CRITICAL, no jobs are being worked on",
    3: "with --check: UNKNOWN, the jobs folder can't be read",
}


@dataclass(frozen=True)
class Health:
    """What --check --json prints. `level`: OK, WARNING, CRITICAL or UNKNOWN."""

    level: str
    findings: list[str]
    """In sentences without a full stop, the worst first; none where all is well."""
    numbers: dict[str, float] = field(default_factory=dict)
    """Jobs, messages and answers; a name that ends in _seconds says its unit."""


def check(standing: Standing, in_json: bool) -> int:
    found = sorted(_found(standing), key=lambda each: -each[0])
    return _tell(found[0][0] if found else OK, [words for _, words in found], _numbers(standing), in_json)


def at_fault(faults: Sequence[Fault], in_json: bool) -> int:
    """No pass does anything with such files."""
    return _tell(CRITICAL, [f"{each.file.name}: {each}" for each in faults], {}, in_json)


def unreadable(error: Exception, in_json: bool) -> int:
    return _tell(UNKNOWN, [f"the jobs folder can't be read: {error}"], {}, in_json)


def _tell(level: int, findings: list[str], numbers: dict[str, float], in_json: bool) -> int:
    findings = [screen.plain(each).rstrip(".") for each in findings]
    if in_json:
        return as_json.show(Health(WORDS[level], findings, numbers), level)
    words = "; ".join(findings or ["passes run, and nothing is away"]).replace(
        "|", "/"
    )  # what follows a bar is numbers
    counted = " ".join(f"{name}={value:.0f}" for name, value in numbers.items())
    print(f"BATCHFERRY {WORDS[level]} - {words}{f' | {counted}' if counted else ''}")
    return level


def _found(standing: Standing) -> Iterator[tuple[int, str]]:
    yield from _about_passes(standing)
    yield from _about_others(standing)
    unsent = standing.oldest_unanswered_since
    if unsent is not None and standing.at - unsent > _UNSENT_TOO_LONG:
        yield (
            WARNING,
            f"an answer has been waiting for its queue for {screen.lasted(standing.at - unsent)} (see resend)",
        )
    if standing.undelivered:
        yield WARNING, f"{screen.counted(standing.undelivered, 'answer')} given up (see resend)"
    damaged = standing.active.get(DAMAGED, 0)
    if damaged:
        yield WARNING, f"{screen.counted(damaged, 'job')} that can't be read (see status --state {DAMAGED})"


def _about_passes(standing: Standing) -> Iterator[tuple[int, str]]:
    last = standing.last_pass
    if last is None:
        yield CRITICAL, "no pass has run yet"
    elif standing.at - last.at > _SILENT_AFTER:
        yield CRITICAL, f"no sign of a pass for {screen.lasted(standing.at - last.at)} (it was on {last.host})"
    fault = standing.site_fault
    if fault is not None:
        away = standing.at - fault.since
        yield (
            CRITICAL if away > _AWAY_TOO_LONG else WARNING,
            f"{fault.kind} away for {screen.lasted(away)}: {fault.words}",
        )


def _about_others(standing: Standing) -> Iterator[tuple[int, str]]:
    if standing.broker_away:
        yield CRITICAL, f"the broker gives no answer: {standing.broker_away}"
    if standing.slurm_away:
        yield WARNING, f"Slurm gives no answer: {standing.slurm_away}"
    yield from ((WARNING, why) for why in standing.queue_faults.values())
    yield from ((WARNING, f"workload {name} is stopped: {why}") for name, why in standing.stopped.items())
    for row in standing.pilots:
        if row.unfit:
            yield WARNING, f"{row.queue}: no pilots for now: {row.unfit}"
        yield from ((WARNING, f"damaged: {words}") for words in row.damaged)


def _numbers(standing: Standing) -> dict[str, float]:
    oldest = standing.oldest_claimed_at
    return {
        "active": sum(standing.active.values()),
        "waiting": sum(standing.waiting.values()),
        "undelivered": standing.undelivered,
        "rejected": standing.rejected,
        "oldest_seconds": standing.at - oldest if oldest is not None else 0,
    }
