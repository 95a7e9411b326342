"""Which workloads the site file has ever had: a message that asks for one of them is a job, and has to wait for it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..errors import Damaged
from ..folder.jobs import JobsFolder
from ..folder.paths import put_aside
from ..folder.records import Fact
from ..settings import Site

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownWorkloads:
    names: tuple[str, ...]


def note_workloads(site: Site, jobs: JobsFolder) -> None:
    """Before any message is read. Raises OSError."""
    known = _known(jobs)
    if not set(site.workloads) <= known:
        _fact(jobs).write(KnownWorkloads(tuple(sorted(known | set(site.workloads)))))


def was_there(jobs: JobsFolder, workload: str) -> bool:
    return workload in _known(jobs)


def _fact(jobs: JobsFolder) -> Fact[KnownWorkloads]:
    return Fact(jobs.workloads, KnownWorkloads)


def _known(jobs: JobsFolder) -> set[str]:
    """None of a file that can't be read: then a name that is gone is one that never was."""
    try:
        known = _fact(jobs).read()
    except Damaged as error:
        log.error("damaged, put aside as %s what=%r", put_aside(jobs.workloads), str(error))
        return set()
    return set(known.names) if known else set()
