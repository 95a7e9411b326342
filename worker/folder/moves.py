"""Moves of whole job folders: into active, out of it, and back."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from ..job.names import JobId
from . import paths
from .facts import JobFolder
from .jobs import JobsFolder


def move_job(job: JobFolder, place: Path) -> None:
    """Moves a job's folder out of active. A second copy of the move finds nothing to do."""
    paths.make_folder(place)
    paths.crash_point(f"before move to {place.name}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(job.path, place / job.id)
    paths.sync_folder(place)
    paths.sync_folder(job.path.parent)
    paths.crash_point(f"after move to {place.name}")


def bring_back(job: JobFolder, jobs: JobsFolder) -> JobFolder:
    """Makes a job active again. Until its last fact is removed too, the next pass would only put it away again."""
    move_job(job, jobs.active)
    return jobs.job(job.id)


@contextlib.contextmanager
def brought_in(jobs: JobsFolder, job_id: JobId) -> Iterator[JobFolder]:
    """A folder to be filled, which becomes the active job `job_id` when the block ends: whole, or not at all. Raises
    OSError where that job exists."""
    aside = jobs.new / f"{job_id}.{secrets.token_hex(4)}"
    paths.make_folder(aside)
    try:
        yield JobFolder(aside)
        paths.crash_point("before move to active")
        os.rename(aside, jobs.active / job_id)
        paths.sync_folder(jobs.active)
        paths.crash_point("after move to active")
    finally:
        paths.remove_tree(aside)


def remove_unclaimed(job: JobFolder) -> None:
    """A folder that never got its message, unless it gets it at this moment."""
    paths.remove_half_written(job.path)
    paths.remove_tree(job.attempts)  # of a worker that was cut off, and came back when its job had been put away
    with contextlib.suppress(OSError):
        job.path.rmdir()
