"""`status --check`: one line and an exit code, as monitors such as Nagios, Icinga and Zabbix take them.

What is not well, the report says in the same words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import as_json
from ..errors import Fault
from . import all_well, screen

if TYPE_CHECKING:
    from .status import Standing

OK, WARNING, CRITICAL, UNKNOWN = range(4)
WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
EXIT_CODES = {
    0: "nothing has to be done (with --check: OK)",
    1: "with --check: WARNING, something needs attention; everything else goes on",
    2: "with --check: CRITICAL, no message can be taken, or no answer goes out",
    3: "with --check: UNKNOWN, the jobs folder can't be read",
}


@dataclass(frozen=True)
class Health:
    """What --check --json prints. `level`: OK, WARNING, CRITICAL or UNKNOWN."""

    level: str
    findings: list[str]
    """In words without a full stop, the gravest first; none where all is well."""
    numbers: dict[str, float] = field(default_factory=dict)
    """Jobs, messages and answers; a name that ends in _seconds says its unit."""


def check(standing: Standing, in_json: bool) -> int:
    found = all_well.findings(standing)
    level = CRITICAL if any(each.grave for each in found) else WARNING if found else OK
    return _tell(level, [_words(each, standing.at) for each in found], _numbers(standing), in_json)


def _words(found: all_well.Finding, now: float) -> str:
    since = f" for {screen.lasted(now - found.since)}" if found.since is not None else ""
    return f"{found.words}{since}{f': {found.detail}' if found.detail else ''}"


def at_fault(faults: Sequence[Fault], in_json: bool) -> int:
    """No pass does anything with such files."""
    return _tell(CRITICAL, [f"{each.file.name}: {each}" for each in faults], {}, in_json)


def unreadable(error: Exception, in_json: bool) -> int:
    return _tell(UNKNOWN, [f"the jobs folder can't be read: {error}"], {}, in_json)


def _tell(level: int, findings: list[str], numbers: dict[str, float], in_json: bool) -> int:
    findings = [screen.plain(each).rstrip(".") for each in findings]
    if in_json:
        return as_json.show(Health(WORDS[level], findings, numbers), level)
    words = "; ".join(findings or ["All is well"]).replace("|", "/")  # what follows a bar is numbers
    counted = " ".join(f"{name}={value:.0f}" for name, value in numbers.items())
    print(f"BATCHFERRY {WORDS[level]} - {words}{f' | {counted}' if counted else ''}")
    return level


def _numbers(standing: Standing) -> dict[str, float]:
    oldest = standing.oldest_claimed_at
    return {
        "active": sum(standing.active.values()),
        "waiting": sum(standing.waiting.values()),
        "undelivered": standing.undelivered,
        "rejected": standing.rejected,
        "oldest_seconds": standing.at - oldest if oldest is not None else 0,
    }
