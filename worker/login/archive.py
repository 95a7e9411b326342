"""Where finished jobs go, and for how long: done (by day), rejected, undelivered. Nothing undelivered is ever removed."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from pathlib import Path

from .. import folder
from ..batches import pilot_folder
from ..facts import Group, Intent
from ..folder import JobFolder, JobsFolder
from ..settings import Site
from .snapshot import JobFacts

log = logging.getLogger(__name__)


def archive(jobs: JobsFolder, job: JobFolder, facts: JobFacts, site: Site, now: float) -> None:
    """Moves a job out of the active ones, without its secrets and its scratch data. The rename comes last."""
    for number in job.attempt_numbers():
        attempt = job.attempt(number)
        folder.remove(attempt.token)
        folder.keep_files(attempt.work / "outputs", attempt.outputs, site.limits.output_bytes)
        folder.remove_tree(attempt.work)
        folder.remove_half_written(attempt.path)
        intent = folder.read(Intent, attempt.intent)
        if intent is not None:
            _end_group(jobs, job, intent.group, attempt.slurm_log)
    folder.remove_half_written(job.path)
    day = jobs.done / time.strftime("%Y-%m-%d", time.gmtime(now))
    place = jobs.rejected if facts.spec is None else jobs.undelivered if facts.undeliverable else day
    if place is day and not day.exists():
        _tidy(jobs.done, site.limits.done_bytes, site.timing.keep_done, now)
    folder.move_job(job, place)
    log.info("archived job=%s outcome=%s in=%s why=%r", job.id, _outcome(facts), place.name, _reason(facts))


def archive_pilot(jobs: JobsFolder, crew: JobFolder, done: Path, now: float) -> None:
    """What an ended pilot leaves: its log, and what Slurm said of it."""
    attempt = crew.attempt(1)
    folder.remove(attempt.token)
    folder.remove_tree(attempt.work)
    folder.remove_half_written(attempt.path)
    intent = folder.read(Intent, attempt.intent)
    if intent is not None:
        _end_group(jobs, crew, intent.group, attempt.slurm_log)
    folder.move_job(crew, done / time.strftime("%Y-%m-%d", time.gmtime(now)))


def _outcome(facts: JobFacts) -> str:
    return facts.outcome.outcome if facts.outcome else "unknown"


def _reason(facts: JobFacts) -> str:
    """What the requester was told; empty for a success."""
    results = {a.number: a.what_counts for a in facts.attempts}
    result = results.get(facts.outcome.attempt) if facts.outcome else None
    return result.reason if result else ""


def _end_group(jobs: JobsFolder, job: JobFolder, group: str, log_file: Path) -> None:
    """The last member that leaves takes the group's log along."""
    members = folder.read(Group, jobs.group(group))
    others = [member for member, _ in members.members.values() if member != job.id] if members else []
    if any((pilot_folder(jobs, each) or jobs.job(folder.JobId(each))).path.exists() for each in others):
        return
    with contextlib.suppress(FileNotFoundError):
        os.rename(jobs.group_log(group), log_file)
    folder.remove_half_written(jobs.groups, f"{group}.json")
    folder.remove(jobs.group(group))


def _tidy(done: Path, most_bytes: int, keep: float, now: float) -> None:
    """Once a day: removes the days that are too old, then the oldest ones until the rest is small enough."""
    oldest_kept = time.strftime("%Y-%m-%d", time.gmtime(now - keep))
    days = sorted(day for day in done.iterdir() if day.is_dir())
    sizes = {day: _size(day) for day in days}
    for day in days:
        if day.name < oldest_kept or sum(sizes.values()) > most_bytes:
            log.info("removed by retention day=%s bytes=%d", day.name, sizes.pop(day))
            folder.remove_tree(day)


def _size(folder: Path) -> int:
    """In bytes; somebody may be removing files at the same time."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            found = file.lstat()
            total += 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return total
