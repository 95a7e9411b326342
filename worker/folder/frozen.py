"""What a job needs of site.toml, as it stood when the job was submitted: in its group. Of a job that was claimed for a pilot
it is with its batch, or where it left that, in its own folder. It may hold secrets of the site, and goes when the job does.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import Damaged
from ..settings import Site
from . import paths
from .facts import JobFolder, group_of
from .jobs import JobsFolder

log = logging.getLogger(__name__)


def suffices(jobs: JobsFolder, job: JobFolder, workload: str, site: Site) -> bool:
    """Whether it may be tried again though its workload has left the site file. Raises Damaged."""
    return workload not in site.workloads and bool(of_last_attempt(jobs, job))


def of_last_attempt(jobs: JobsFolder, job: JobFolder) -> str:
    """Empty where it had none, or one of a version before. Raises Damaged."""
    for number in reversed(job.attempt_numbers()):
        intent = job.attempt(number).intent.read()
        group = group_of(jobs, intent.group).read() if intent else None
        if group is not None:
            return group.site
    return read(job.site)


def read(path: Path) -> str:
    """Empty where nothing was frozen, or it can't be read: then the site file of today counts."""
    try:
        return (paths.contents(path) or b"").decode("utf-8", "replace")
    except Damaged as error:
        log.warning("what was frozen of site.toml is lost, the file of today counts why=%r", str(error))
        return ""
