"""The doctor's findings for people: a line per check, or a line per group. Needs the standard library alone."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import TextIO

from ..job.sentences import counted
from .report import FAULT, OK, SKIPPED, WARNING, Finding

_SIGNS = {OK: "✓", WARNING: "!", FAULT: "✗", SKIPPED: "-"}
_PLAIN = {OK: "ok", WARNING: "warning", FAULT: "FAULT", SKIPPED: "-"}
_COLOURS = {OK: "32", WARNING: "33", FAULT: "1;31", SKIPPED: "2"}


def show(findings: Sequence[Finding], stream: TextIO) -> None:
    for each in findings:
        print(line(each, stream), file=stream, flush=True)


def show_briefly(found: Sequence[Finding], since: str, stream: TextIO) -> None:
    """Whether all is well and since when; then each group, with a tick or with what is not well in it."""
    marks = {each.mark for each in found}
    whether = "Not well: " if FAULT in marks else "Well: " if WARNING in marks else ""
    print(f"{whether}{summary(found)}{f' {since}' if since else ''}", file=stream)
    for where, group in itertools.groupby(found, key=lambda each: ", ".join(filter(None, (each.node, each.group)))):
        findings = list(group)
        odd = [each for each in findings if each.mark in (FAULT, WARNING)]
        done = [each for each in findings if each.mark == OK]
        if odd:
            show(odd, stream)
        elif done:
            print(f"{_sign(OK, stream)} {where}: {counted(len(done), 'check')}", file=stream)
        else:
            show(findings, stream)


def line(finding: Finding, stream: TextIO) -> str:
    where = ", ".join(part for part in (finding.node, finding.group, finding.check) if part)
    found = finding.found if finding.found.endswith((".", "!", "?")) or not finding.mend else f"{finding.found}."
    return f"{_sign(finding.mark, stream)} {where}: {found} {finding.mend}".rstrip()


def summary(found: Sequence[Finding]) -> str:
    faults, warnings = (sum(each.mark == mark for each in found) for mark in (FAULT, WARNING))
    if not faults and not warnings:
        return "All is well."
    return f"{faults} to fix, {warnings} to know of."


def _sign(mark: str, stream: TextIO) -> str:
    sign = _SIGNS[mark] if _shows_signs(stream) else f"{_PLAIN[mark]:7}"
    if stream.isatty() and "NO_COLOR" not in os.environ:
        return f"\033[{_COLOURS[mark]}m{sign}\033[0m"
    return sign


def _shows_signs(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "") == "utf8"
