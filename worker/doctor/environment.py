"""Whether what cron starts finds what this shell finds. cron(8) gives it a home, a shell and a short PATH; all else has to
stand in the crontab, where cron fills in no variables.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from scheduler import Unavailable

from ..build import traits
from ..errors import Advice
from ..settings import SlurmSettings
from .cluster import survey
from .crontab import Line
from .packages import install
from .programs import run
from .report import Report
from .subject import Subject

_PATH = "/usr/bin:/bin"
_PROGRAMS = ("readlink", "dirname", "mkdir", "cksum", "flock")
"""What run_check calls."""
_SHELLS = ("sh", "bash", "dash", "ksh", "mksh", "zsh", "ash", "busybox")
_BEGINS = "import ssl, pika, requests"
_SECONDS = 10.0


def look_at_environment(report: Report, subject: Subject, line: Line) -> None:
    report.begin("environment")
    if line.sets_up:
        report.skip(f"line {line.number} sets one up itself, which can't be looked into")
        return
    given = {"PATH": _PATH, "HOME": os.path.expanduser("~"), "SHELL": "/bin/sh", **line.environment}
    found = [*_shell(given), *_programs(line, given), *_python(subject.root, given)]
    if subject.site is not None and traits(subject.site).runs_commands:
        found += _configuration(line, subject.site.slurm, given.get("SLURM_CONF", ""))
    found += _certificates(line, subject)
    for each in found:
        report.failed(each)
    if not found:
        names = ", ".join(sorted(line.environment)) or "no variable"
        report.ok(f"what cron starts works as it does here (line {line.number} sees {names})")


def _shell(given: Mapping[str, str]) -> Iterator[Advice]:
    name = Path(given["SHELL"]).name
    if name not in _SHELLS or not os.access(given["SHELL"], os.X_OK):
        found = f"the crontab says SHELL={given['SHELL']}, which is not there or does not know 2>&1"
        yield Advice(found, "Take SHELL out of the crontab, or write SHELL=/bin/sh")


def _programs(line: Line, given: Mapping[str, str]) -> Iterator[Advice]:
    missing = [name for name in _PROGRAMS if shutil.which(name, path=given["PATH"]) is None]
    if missing:
        why = "; cron fills in no variables" if "$" in given["PATH"] else ""
        found = f"by the PATH of line {line.number} ({given['PATH']}) there is no {', '.join(missing)}{why}"
        yield Advice(found, "Take PATH out of the crontab, or write it in full: PATH=/usr/local/bin:/usr/bin:/bin")


def _python(root: Path, given: Mapping[str, str]) -> Iterator[Advice]:
    python = root / ".venv" / "bin" / "python"
    if not os.access(python, os.X_OK):
        yield Advice(f"there is no program {python}, which run_check starts", f"Run: {install(root)}")
        return
    answer = run([str(python), "-E", "-c", _BEGINS], environment=given)
    if answer is None or answer.code:
        said = (answer.complained.strip().splitlines() if answer else []) or ["nothing"]
        found = f"with cron's variables alone {python} does not begin: {said[-1]}"
        lacks = "LD_LIBRARY_PATH" if "LD_LIBRARY_PATH" in os.environ else ""
        fix = f"Write {lacks}={shlex.quote(os.environ[lacks])} into the crontab" if lacks else f"Run: {install(root)}"
        yield Advice(found, fix)


def _configuration(line: Line, settings: SlurmSettings, of_cron: str) -> Iterator[Advice]:
    """Where cron's SLURM_CONF is another one than this shell's, or none, Slurm is asked with it."""
    here = os.environ.get("SLURM_CONF", "")
    if of_cron == here:
        return
    slurm = survey(settings, _SECONDS)
    fix = f"Write SLURM_CONF={shlex.quote(here)} into the crontab, above line {line.number}"
    if not here:
        fix = (
            f"Correct SLURM_CONF in the crontab, or take it out: here Slurm's commands do without (line {line.number})"
        )
    its = f"SLURM_CONF={of_cron}" if of_cron else "no SLURM_CONF"
    try:
        theirs = slurm.with_configuration(of_cron).settings().get("ClusterName")
    except Unavailable as error:
        yield Advice(f"line {line.number} has {its}, unlike this shell, and then {error.found}", fix)
        return
    try:
        ours = slurm.settings().get("ClusterName")
    except Unavailable:
        return  # it is told as Slurm's own trouble
    if theirs != ours:
        yield Advice(f"line {line.number} has {its}, and so asks the cluster {theirs}; this shell asks {ours}", fix)


def _certificates(line: Line, subject: Subject) -> Iterator[Advice]:
    here = os.environ.get("SSL_CERT_FILE", "")
    if here and subject.ca_file == here and line.environment.get("SSL_CERT_FILE") != here:
        found = f"SSL_CERT_FILE is set in this shell, and neither in line {line.number} nor in jobs"
        yield Advice(found, f'Write ca_file = "{here}" into site.toml')
