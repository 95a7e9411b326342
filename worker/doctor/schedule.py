"""What starts the passes, and when the last one was."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Optional

from ..errors import Damaged
from ..folder.facts import site_fault_of
from ..folder.jobs import JobsFolder
from ..login import shapes
from ..login.known_shapes import Shapes
from ..login.lease import last_holder
from ..settings import Credentials, Site, SlurmSettings
from .crontab import Line, pass_lines, read_crontab
from .environment import look_at_environment
from .report import Report
from .subject import Subject

_RECENT = 600.0
_EACH_FEW_MINUTES = re.compile(r"(\*(/([1-9]|1[0-5]))?|\d+(,\d+){3,})\s+\*\s+\*\s+\*\s+\*")
_AWAY = {"login": "the API's login", "api": "the API", "slurm": "Slurm", "disk": "the disk"}
"""Kinds of what stops all jobs."""
_SYSTEM = Path("/etc/crontab")
_SILENT = 120.0
"""Seconds in which a pass that works shows life."""
_UNITS = Path(".config/systemd/user")


def look_at_schedule(report: Report, subject: Subject) -> None:
    age = _look_at_last_pass(report, subject)
    report.begin("crontab")
    texts = {"crontab": read_crontab(), "scrontab": read_crontab(scrontab=True)}
    lines = [
        (line, f"line {line.number} of the {name}") for name, text in texts.items() for line in pass_lines(text or "")
    ]
    ours = [(line, where) for line, where in lines if _is_ours(line, subject)]
    units = [str(unit) for unit in _units(subject)]
    if len(ours) > 1:
        report.fault(
            f"passes are started twice: {', '.join(where for _, where in ours)}", "Remove all but one of them."
        )
    elif ours:
        _look_at_line(report, ours[0][0], subject, units)
        if "crontab" in ours[0][1].split():
            look_at_environment(report, subject, ours[0][0])
    elif units:
        report.ok(", ".join(units))
    elif not _of_others(report, subject, age):
        _tell_nobody_starts_them(report, lines, has_crontab=set(texts.values()) != {None})
    report.begin("other installations")
    rivals = list(_rivals(lines, subject))
    if rivals:
        report.fault(
            "; ".join(rivals), "Remove one of the two: each message must have one taker, each folder one owner."
        )
    else:
        report.ok("none in this crontab takes from the same queue or uses the same folder")


def _of_others(report: Report, subject: Subject, age: Optional[float]) -> bool:
    """Whether passes are started in another way: from another host, by the system's cron, or by a watch."""
    system = [str(file) for file in _system_crontabs() if f"{subject.root}/run_check" in _text(file)]
    if system:
        report.ok(", ".join(system))
        return True
    if age is None or age >= _RECENT or subject.site is None:
        return False
    with suppress(OSError):
        host, held = last_holder(JobsFolder(subject.site.jobs_dir).lease)
        if host not in ("", socket.gethostname()):
            report.ok(f"no line here; passes run on {host}")
            return True
        if held:
            report.ok("no line here; a pass, or a watch (check.py --watch), is running on this host")
            return True
    return False


def _system_crontabs() -> Iterator[Path]:
    yield _SYSTEM
    with suppress(OSError):
        yield from sorted(_SYSTEM.with_name("cron.d").iterdir())


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _tell_nobody_starts_them(report: Report, lines: Sequence[tuple[Line, str]], has_crontab: bool) -> None:
    if not has_crontab:
        report.warn("this host has no crontab program, and no pass is started from elsewhere",
                    "Install the crontab line on a host that has one (README, Install on a cluster).")  # fmt: skip
        return
    others = "".join(f"; {where} starts {line.root / 'run_check'}" for line, where in lines)
    report.fault(f"no line starts a pass{others}", "Add one: ./check.py init --add (without --add it is only shown).")


def _look_at_last_pass(report: Report, subject: Subject) -> Optional[float]:
    """How long ago it was, in seconds."""
    report.begin("last pass")
    if subject.site is None:
        report.skip("site.toml can't be read")
        return None
    jobs = JobsFolder(subject.site.jobs_dir)
    try:
        age = time.time() - jobs.lease.stat().st_mtime
    except OSError:
        report.warn("there was none yet", "Run one by hand and see what it says: ./check.py")
        return None
    try:
        fault = site_fault_of(jobs).read()
    except (Damaged, OSError):
        fault = None
    when = f"{_ago(age)} ago"
    if age > _RECENT:
        report.fault(
            when, "See the end of logs/run_check.log, and whether cron runs on this host (or another login node)."
        )
    elif fault is not None:
        waiting = f"jobs have waited for {_ago(time.time() - fault.since)}, since {_clock(fault.since)}"
        report.fault(f"{when}; {waiting}: {_AWAY[fault.kind]} is away: {fault.words}",
                     "When that is put right, the next pass goes on by itself.")  # fmt: skip
    elif age > _SILENT and (held_by := _other_holder(jobs)):
        report.warn(f"{when}; a pass on {held_by} holds the lease since then, and others wait for it",
                    f"If that host is down, wait: {subject.site.timing.lease_expires:.0f} s after its last sign of life the "
                    "next pass goes on. Else look there for one that hangs.")  # fmt: skip
    else:
        report.ok(when)
    look_at_what_is_declined(report, jobs, subject.site.slurm)
    return age


def _other_holder(jobs: JobsFolder) -> str:
    """Another host whose pass did not end, as far as can be seen."""
    with suppress(OSError):
        host, held = last_holder(jobs.lease)
        return host if held and host != socket.gethostname() else ""
    return ""


def since_when(subject: Subject) -> str:
    """What passes have noted of it, in a sentence; empty where there was none."""
    if subject.site is None:
        return ""
    jobs, now = JobsFolder(subject.site.jobs_dir), time.time()
    with suppress(OSError):
        age = now - jobs.lease.stat().st_mtime
        if age > _RECENT:
            return f"No pass for {_ago(age)}, since {_clock(now - age)}."
        with suppress(Damaged):
            if fault := site_fault_of(jobs).read():
                return f"Jobs wait for {_ago(now - fault.since)}, since {_clock(fault.since)}: {_AWAY[fault.kind]} is away."
        return f"The last pass was {_ago(age)} ago."
    return "There was no pass yet."


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def look_at_what_is_declined(report: Report, jobs: JobsFolder, settings: SlurmSettings) -> None:
    """What passes have learned of it."""
    said = [shapes.sentence(each, time.time()) for each in Shapes(jobs, settings).all()]
    if said:
        report.begin("declined jobs")
        mend = "Compare the resources of the queues in site.toml with what your account, QOS and partition allow."
        report.warn("; ".join(said), mend)


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _is_ours(line: Line, subject: Subject) -> bool:
    site_file = line.site_file or line.root / "site.toml"
    return line.root == subject.root and _same(site_file, subject.site_file)


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return one == other


def _units(subject: Subject) -> Iterator[Path]:
    """Of systemd's user manager, those that name this checkout."""
    home, root = Path(os.path.expanduser("~")), str(subject.root).replace("%", "%%")
    names = [root, *([f"%h{root[len(str(home)) :]}"] if root.startswith(f"{home}/") else [])]
    folder = home / _UNITS
    for unit in sorted(folder.glob("*.service")) if folder.is_dir() else []:
        try:
            text = unit.read_text(encoding="utf-8", errors="replace")
            if any(name in text for name in names):
                yield unit
        except OSError:
            continue


def _look_at_line(report: Report, line: Line, subject: Subject, units: Sequence[str]) -> None:
    where = f"line {line.number}"
    if line.cut_at_percent:
        report.fault(f"{where} has a % that cron takes for the end of the command", r"Write \% there.")
    elif not os.access(line.root / "run_check", os.X_OK):
        report.fault(f"{where}: {line.root / 'run_check'} can't be run", f"chmod +x {line.root / 'run_check'}")
    elif line.log is not None and not os.access(line.log.parent, os.W_OK):
        report.fault(f"{where} writes to {line.log}, whose folder does not exist or can't be written; no pass starts",
                     f"mkdir -p '{line.log.parent}'")  # fmt: skip
    elif not _EACH_FEW_MINUTES.match(line.schedule):
        report.warn(f"{where} starts passes at {line.schedule} only: jobs and answers wait for so long",
                    "Let it begin with * * * * *, for each minute: a pass with nothing to do costs little.")  # fmt: skip
    elif line.log is not None and line.log.exists() and not os.access(line.log, os.W_OK):
        report.fault(
            f"{where} writes to {line.log}, which we may not; no pass starts", f"Run, as its owner: rm '{line.log}'"
        )
    elif line.log is None:
        report.warn(f"{where} keeps no log", f"Let it end with: >> '{subject.root}/logs/run_check.log' 2>&1")
    else:
        report.ok(f"{where}, {line.schedule}{''.join(f'; and {unit}, one of them works at a time' for unit in units)}")


def _rivals(lines: Sequence[tuple[Line, str]], subject: Subject) -> Iterator[str]:
    from ..config import read_separately

    if subject.site is None:
        return
    for line, where in lines:
        if _is_ours(line, subject):
            continue
        site_file = line.site_file or line.root / "site.toml"
        site, credentials, _ = read_separately(
            line.root, site_file, line.credentials_file or line.root / "credentials.env"
        )
        if site is None:
            continue
        if _same(site.jobs_dir, subject.site.jobs_dir):
            yield f"{site_file} ({where}) uses the same jobs_dir"
        elif shared := _shared(site, credentials, subject):
            yield f"{site_file} ({where}) takes from the same queue {', '.join(shared)}"


def _shared(site: Site, credentials: Optional[Credentials], subject: Subject) -> list[str]:
    ours, theirs = subject.credentials, credentials
    if subject.site is None or (ours and theirs and _broker(ours) != _broker(theirs)):
        return []
    return sorted({queue.name for queue in site.queues} & {queue.name for queue in subject.site.queues})


def _broker(credentials: Credentials) -> tuple[str, str]:
    return credentials.rabbitmq_host, credentials.rabbitmq_vhost
