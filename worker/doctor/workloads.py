"""Whether each workload's program, interpreter and script are there: here only what lies inside of the checkout, on a compute
node all that the command names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from ..installed import needed, trouble, why_stopped
from ..settings import Site, Workload
from .report import Report
from .subject import Subject


def look_at_workloads(report: Report, subject: Subject) -> None:
    site = subject.site
    if site is None:
        return
    for name, workload in site.workloads.items():
        report.begin(f"workload {name}")
        problems = list(_on_node(subject, site, workload) if subject.on_node else _here(subject, name))
        for words in problems:
            report.fault(words, f"Install it, or correct argv of {name} in site.toml. Until then its jobs wait.")
        if not problems:
            _not_there(report, subject, site, workload)
    for queue in site.queues:
        if queue.workload not in site.workloads:
            report.begin(f"workload {queue.workload}")
            report.fault(f"the queue {queue.name} names it, and it is not in site.toml",
                         "Put it back, or set workload of this queue to another one.")  # fmt: skip


def _here(subject: Subject, name: str) -> Iterator[str]:
    """What a pass finds, too."""
    why = why_stopped(subject.root, subject.known_site, name)
    if why:
        yield why


def _on_node(subject: Subject, site: Site, workload: Workload) -> Iterator[str]:
    program = next(iter([*workload.prefix, *workload.argv]), "")
    if program and "/" not in program and "{" not in program and shutil.which(program, path=workload.path) is None:
        yield f"there is no program {program} here"
    for need in needed(workload, subject.root, site.python):
        why = trouble(need) if need.sure else ""
        if why:
            yield f"{why} here"


def _not_there(report: Report, subject: Subject, site: Site, workload: Workload) -> None:
    """What may be a path inside of a container."""
    unsure = [need for need in needed(workload, subject.root, site.python) if not need.sure] if subject.on_node else []
    gone = [need.path for need in unsure if trouble(need)]
    if gone and not workload.prefix:
        report.warn(f"{', '.join(gone)} is not here",
                    "If the program opens it, and not a container's own, put it there.")  # fmt: skip
    else:
        report.ok(" ".join([*workload.prefix, *workload.argv][:2]))
