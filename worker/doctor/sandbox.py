"""Whether code that jobs bring along can be run safely on this node: tried with the smallest program."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..errors import StepFailed
from ..in_job import sandbox
from ..in_job.sandbox import Places
from ..settings import Workload
from .report import Report
from .subject import Subject


def look_at_sandboxes(report: Report, subject: Subject) -> None:
    """On a compute node."""
    for name, workload in subject.known_site.workloads.items():
        if workload.is_own_code:
            report.begin(f"sandbox of {name}")
            _look(report, name, workload)


def _look(report: Report, name: str, workload: Workload) -> None:
    if workload.code.unsandboxed:
        report.warn(f"what jobs of {name} bring along can read all that this user can, secrets too",
                    "Remove unsandboxed in site.toml, unless all who may send jobs own this account.")  # fmt: skip
        return
    why = _trouble(workload)
    if why:
        report.fault(f"nothing can run in it here ({why}), so such jobs are refused",
                     "Install bubblewrap on the nodes, and let users make user namespaces "
                     "(sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone).")  # fmt: skip
    else:
        report.ok("a program ran in it")


def _trouble(workload: Workload) -> str:
    try:
        with tempfile.TemporaryDirectory() as folder:
            places = Places(Path(folder, "home"), Path(folder, "tmp"), Path(folder, "read_only"))
            sandbox.prepare(places, b"{}")
            program = sandbox.program(workload.code, workload.path)
            return sandbox.trouble(sandbox.inside(program, workload.code, places, {}))
    except StepFailed:
        return "bubblewrap is not there"
    except OSError as error:
        return error.strerror or str(error)
