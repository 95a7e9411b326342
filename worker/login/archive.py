"""Where finished jobs go: done (by day), rejected, undelivered, not ours. For how long, retention.py says."""

from __future__ import annotations

import contextlib
import logging
import os
import random
from pathlib import Path

from ..folder import closed, paths
from ..folder.batches import Pool, pilot_folder
from ..folder.closed import Total
from ..folder.facts import AttemptFolder, JobFolder, group_of
from ..folder.jobs import JobsFolder
from ..folder.moves import move_job
from ..folder.snapshot import read_attempt
from ..job.names import JobId
from ..job.snapshot import JobFacts
from ..settings import Site
from . import kept_outputs
from .days import add_to_day, day_of

log = logging.getLogger(__name__)


def archive(jobs: JobsFolder, job: JobFolder, facts: JobFacts, site: Site, now: float) -> None:
    """Moves a job out of the active ones, without its secrets and its scratch data. The rename comes last."""
    declared = set(facts.spec.outputs.values()) if facts.spec else set()
    for number in job.attempt_numbers():
        attempt = job.attempt(number)
        paths.keep_files(attempt.work / "outputs", attempt.outputs, site.limits.output_bytes, declared)
        _clear(jobs, job, attempt)
    paths.remove_half_written(job.path)
    paths.remove(job.site)
    day = jobs.done / day_of(now)
    place = jobs.rejected if facts.spec is None else jobs.undelivered if facts.undeliverable else day
    if place is day:
        if not day.exists():
            kept_outputs.sweep(jobs, site, now)
        kept = kept_outputs.size_of(job)
        add_to_day(day, paths.size_of(job.path) - kept)
        kept_outputs.note(jobs, day, job, kept, site, now)
    move_job(job, place)
    log.info("archived job=%s outcome=%s in=%s why=%r", job.id, _outcome(facts), place.name, _reason(facts))


def leave_to_others(jobs: JobsFolder, job: JobFolder) -> None:
    """Of what was never ours only the message is kept, for as long as done jobs are, so that its id stays known."""
    move_job(job, jobs.not_ours)
    log.info("not ours, left to others job=%s", job.id)


def archive_pilot(jobs: JobsFolder, crew: JobFolder, pool: Pool, now: float) -> None:
    """What an ended pilot leaves: its log, and what Slurm said of it."""
    _clear(jobs, crew, crew.attempt(1))
    with closed.moving_in(pool.path, day_of(now), Total(bytes=paths.size_of(crew.path))):
        move_job(crew, pool.done / day_of(now))


def _clear(jobs: JobsFolder, job: JobFolder, attempt: AttemptFolder) -> None:
    """No secret stays, no scratch data, and no group without members."""
    paths.remove(attempt.token)
    paths.remove_tree(attempt.work)
    paths.remove_half_written(attempt.path)
    for intent in read_attempt(attempt).intents:
        _end_group(jobs, job, intent.group, attempt.slurm_log)


def _outcome(facts: JobFacts) -> str:
    return facts.outcome.outcome if facts.outcome else "unknown"


def _reason(facts: JobFacts) -> str:
    """What the requester was told; empty for a success."""
    results = {a.number: a.what_counts for a in facts.attempts}
    return facts.outcome.why(results.get(facts.outcome.attempt)) if facts.outcome else ""


def _end_group(jobs: JobsFolder, job: JobFolder, group: str, log_file: Path) -> None:
    """The last member that leaves takes the group's log along."""
    members = group_of(jobs, group).read()
    if members and _anybody_left(jobs, job, [JobId(j) for j, _ in members.members.values()]):
        return
    with contextlib.suppress(FileNotFoundError):
        os.rename(jobs.group_log(group), log_file)
    paths.remove_half_written(jobs.groups, f"{group}.json")
    paths.remove(jobs.group(group))


def _anybody_left(jobs: JobsFolder, job: JobFolder, members: list[JobId]) -> bool:
    """Asked in no order: in theirs, the members of a large array, who leave one by one, would cost its square. A folder
    without a message is what a worker left that came back too late."""
    random.Random(job.id).shuffle(members)
    others = [member for member in members if member != job.id]
    return any(_is_here(jobs, member) for member in others)


def _is_here(jobs: JobsFolder, member: JobId) -> bool:
    pilot = pilot_folder(jobs, member)
    return paths.is_there(pilot.path) if pilot else jobs.job(member).message.is_there()
