"""The doctor's round: all groups of checks, side by side, each with its time."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, TextIO

from .. import as_json
from . import packages
from .report import FAULT, OK, SKIPPED, WARNING, Finding, Group, Report, run_side_by_side

SECONDS = 60.0
"""What a group of checks may take; each step in it has a shorter time of its own."""
_SIGNS = {OK: "✓", WARNING: "!", FAULT: "✗", SKIPPED: "-"}
_PLAIN = {OK: "ok", WARNING: "warning", FAULT: "FAULT", SKIPPED: "-"}
_COLOURS = {OK: "32", WARNING: "33", FAULT: "1;31", SKIPPED: "2"}


@dataclass(frozen=True)
class Wishes:
    """What the command line says."""

    input: str = ""
    as_json: bool = False
    from_node: bool = False
    wait: float = 300.0
    """Seconds for the answer from a compute node."""
    bundle: Optional[Path] = None


@dataclass(frozen=True)
class Told:
    """What --json prints."""

    findings: list[Finding]


def doctor(root: Path, site_file: Path, credentials_file: Path, wishes: Wishes) -> int:
    """Prints one line per check. Returns an exit code: 78 if there is anything to mend."""
    found: list[Finding] = []
    groups = examine(root, site_file, credentials_file, wishes.input)
    for findings in itertools.chain(groups, _from_node(root, site_file, credentials_file, wishes)):
        found += findings
        if not wishes.as_json:
            show(findings, sys.stdout)
    code = os.EX_CONFIG if any(each.mark == FAULT for each in found) else os.EX_OK
    if not wishes.as_json:
        print(f"\n{_summary(found)}", flush=True)
    if wishes.bundle is not None and not _bundled(root, site_file, credentials_file, found, wishes.bundle):
        code = os.EX_CANTCREAT
    return as_json.show(Told(found), code) if wishes.as_json else code


def answer_on_node(root: Path, site_file: Path, credentials_file: Path, an_input: str, place: Path) -> int:
    """What `--from-node` runs on a compute node."""
    from .from_node import answer_from_node

    answer_from_node(examine(root, site_file, credentials_file, an_input, on_node=True), place)
    return os.EX_OK


def _from_node(root: Path, site_file: Path, credentials_file: Path, wishes: Wishes) -> Iterator[list[Finding]]:
    if wishes.from_node and not packages.missing():
        from .from_node import look_from_node
        from .subject import read_subject

        report = Report("compute node")
        told = look_from_node(report, read_subject(root, site_file, credentials_file, wishes.input), wishes.wait)
        yield [*report.findings, *told]


def _bundled(root: Path, site_file: Path, credentials_file: Path, found: list[Finding], target: Path) -> bool:
    from .. import VERSION
    from .bundle import write_bundle
    from .subject import read_subject

    try:
        names = write_bundle(target, read_subject(root, site_file, credentials_file, ""), found, VERSION)
    except OSError as error:
        print(f"check.py: {target}: {error.strerror}", file=sys.stderr)
        return False
    print(
        f"{target} holds {', '.join(names)}; secrets are taken out. Look into it before you send it.", file=sys.stderr
    )
    return True


def examine(
    root: Path, site_file: Path, credentials_file: Path, an_input: str = "", on_node: bool = False
) -> Iterator[list[Finding]]:
    """The findings of each group, as they come."""
    if packages.missing():
        yield from run_side_by_side({"python": lambda report: packages.look_at_python(report, root)}, SECONDS)
        yield [Finding("all else", "", SKIPPED, "nothing more can be looked at without these packages")]
        return
    groups = _groups(root, site_file, credentials_file, an_input, on_node)
    yield from run_side_by_side(groups, SECONDS)


def _groups(root: Path, site_file: Path, credentials_file: Path, an_input: str, on_node: bool) -> Mapping[str, Group]:
    from .broker import look_at_broker
    from .cluster import look_at_slurm
    from .disk import look_at_jobs_folder
    from .files import look_at_files
    from .schedule import look_at_schedule
    from .service import look_at_api
    from .subject import read_subject

    subject = read_subject(root, site_file, credentials_file, an_input, on_node)

    def python(report: Report) -> None:
        packages.look_at_python(report, root)
        packages.look_at_workers_python(report, subject)

    groups: dict[str, Group] = {
        "python": python,
        "files": lambda report: look_at_files(report, subject),
        "jobs folder": lambda report: look_at_jobs_folder(report, subject),
        "broker": lambda report: look_at_broker(report, subject),
        "API": lambda report: look_at_api(report, subject),
    }
    if on_node:
        from . import from_node

        groups["workloads"] = lambda report: from_node.look_at_workloads(report, subject)
    else:
        from .pause import look_at_pause
        from .workloads import look_at_workloads

        def passes(report: Report) -> None:
            look_at_schedule(report, subject)
            look_at_pause(report, subject)

        groups["workloads"] = lambda report: look_at_workloads(report, subject)
        groups["Slurm"] = lambda report: look_at_slurm(report, subject)
        groups["passes"] = passes
    return groups


def show(findings: list[Finding], stream: TextIO) -> None:
    for each in findings:
        print(line(each, stream), file=stream, flush=True)


def line(finding: Finding, stream: TextIO) -> str:
    sign = _SIGNS[finding.mark] if _shows_signs(stream) else f"{_PLAIN[finding.mark]:7}"
    if stream.isatty() and "NO_COLOR" not in os.environ:
        sign = f"\033[{_COLOURS[finding.mark]}m{sign}\033[0m"
    where = ", ".join(part for part in (finding.node, finding.group, finding.check) if part)
    found = finding.found if finding.found.endswith((".", "!", "?")) or not finding.mend else f"{finding.found}."
    return f"{sign} {where}: {found} {finding.mend}".rstrip()


def _summary(found: list[Finding]) -> str:
    faults, warnings = (sum(each.mark == mark for each in found) for mark in (FAULT, WARNING))
    if not faults and not warnings:
        return "All is well."
    return f"{faults} to mend, {warnings} to know of."


def _shows_signs(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "") == "utf8"
