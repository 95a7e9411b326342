"""The two files of an installation, what they name, and who may read or change them."""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import replace
from pathlib import Path

from ..advice import advice
from ..build import traits
from ..errors import Fault
from .checkout import look_at_scripts
from .report import Report
from .subject import Subject


def look_at_files(report: Report, subject: Subject) -> None:
    for file in (subject.credentials_file, subject.site_file):
        report.begin(file.name)
        faults = [fault for fault in subject.faults if fault.file == file]
        for fault in faults:
            report.fault(str(replace(fault, fix="")), fault.fix or _correct(fault))
        if not faults:
            report.ok("read, and nothing is wrong with it")
    for each in advice(subject.site, traits(subject.site)) if subject.site else ():
        report.warn(each.found, f"{each.fix}.")
    _look_at_ca_file(report, subject)
    look_at_scripts(report, subject.root)
    report.begin("who may change the code")
    names = ("", "check.py", "run_check", "worker", "scheduler", "slurm", "slurm/job.sh")
    code = [subject.root / name for name in names]
    open_to = [path for path in (*code, subject.site_file) if _others_write(path)]
    if open_to:
        report.warn(f"others may write to {', '.join(map(str, open_to))}, and so run what they like as you",
                    f"chmod go-w {' '.join(shlex.quote(str(path)) for path in open_to)}")  # fmt: skip
    else:
        report.ok("only its owner")


def _correct(fault: Fault) -> str:
    if fault.line:
        return f"Mend line {fault.line} of {fault.file}."
    return f"Mend it in {fault.file}; docs/settings.md explains each setting."


def _look_at_ca_file(report: Report, subject: Subject) -> None:
    if not subject.ca_file:
        return
    report.begin("ca_file")
    import ssl

    try:
        count = len(ssl.create_default_context(cafile=subject.ca_file).get_ca_certs())
        report.ok(f"{subject.ca_file}: {count} certificates")
    except OSError as error:
        report.fault(f"{subject.ca_file} can't be used: {error.strerror or error}",
                     "Set ca_file in site.toml (or SSL_CERT_FILE) to a PEM file that we may read.")  # fmt: skip


def _others_write(path: Path) -> bool:
    try:
        return bool(os.stat(path).st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    except OSError:
        return False
