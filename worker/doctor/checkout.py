"""The checkout: whether the scripts that others start are there. cron, sbatch and people name them by their paths."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from .report import Report

_STARTED = ("check.py", "run_check")
_READ = ("slurm/job.sh", "slurm/doctor.sh", "site.example.toml", "requirements.txt")


def look_at_scripts(report: Report, root: Path) -> None:
    report.begin("scripts")
    there = [name for name in (*_STARTED, *_READ) if os.access(root / name, os.R_OK)]
    gone = [name for name in (*_STARTED, *_READ) if name not in there]
    shut = [name for name in _STARTED if name in there and not os.access(root / name, os.X_OK)]
    at, names = shlex.quote(str(root)), " ".join(gone)
    if gone:
        report.fault(f"not there, or not to be read: {', '.join(gone)}",
                     f"Put them back, from the version that this is: git -C {at} checkout -- {names}")  # fmt: skip
    elif shut:
        report.fault(f"not executable: {', '.join(shut)}", f"Run: cd {at} && chmod u+x {' '.join(shut)}")
    else:
        report.ok(f"all {len(there)} are there")
