"""What was found: one line per check. Needs the standard library alone, because packages may be what is missing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Callable, Protocol

OK, WARNING, FAULT, SKIPPED = "ok", "warning", "fault", "skipped"


@dataclass(frozen=True)
class Finding:
    group: str
    check: str
    mark: str
    """One of ok, warning, fault, skipped."""
    found: str
    mend: str = ""
    """What to do about it, in a sentence."""
    node: str = ""
    """The compute node where it was found; empty for this host."""


class SaysHowToMend(Protocol):
    """An error that was made where it is known what was found, and what to do about it."""

    @property
    def found(self) -> str: ...

    @property
    def fix(self) -> str: ...


class Report:
    """The findings of one group of checks, one after the other. A check is begun before anything is done that may hang."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.findings: list[Finding] = []
        self._check = ""

    def begin(self, check: str) -> None:
        self._check = check

    def ok(self, found: str) -> None:
        self._add(OK, found, "")

    def warn(self, found: str, mend: str) -> None:
        self._add(WARNING, found, mend)

    def fault(self, found: str, mend: str) -> None:
        self._add(FAULT, found, mend)

    def failed(self, error: SaysHowToMend, otherwise: str = "") -> None:
        """`otherwise`: what to do where the error does not say."""
        self.fault(error.found, f"{error.fix}." if error.fix else otherwise)

    def skip(self, found: str) -> None:
        self._add(SKIPPED, found, "")

    def _add(self, mark: str, found: str, mend: str) -> None:
        self.findings.append(Finding(self.group, self._check, mark, _one_line(found), _one_line(mend)))


Group = Callable[[Report], None]


def run_side_by_side(groups: Mapping[str, Group], seconds: float) -> Iterator[list[Finding]]:
    """Runs all groups at the same time; yields the findings of each, in order. One that takes longer than `seconds` is
    left behind, and a fault names the check that gave no answer."""
    reports = {name: Report(name) for name in groups}
    threads = {name: _start(group, reports[name]) for name, group in groups.items()}
    end = monotonic() + seconds
    for name, report in reports.items():
        threads[name].join(max(0.0, end - monotonic()))
        if threads[name].is_alive():
            report.fault(f"no answer within {seconds:.0f} s", "Find out what hangs there, then run the doctor again.")
        yield list(report.findings)


def _start(group: Group, report: Report) -> threading.Thread:
    thread = threading.Thread(target=_run, args=(group, report), daemon=True)
    thread.start()
    return thread


def _run(group: Group, report: Report) -> None:
    try:
        group(report)
    except Exception as error:  # noqa: BLE001  # an unforeseen error of one check must not hide the other checks
        report.fault(f"unforeseen {type(error).__name__}: {error}", "Please report this line.")


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
