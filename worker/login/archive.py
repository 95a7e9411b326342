"""Where finished jobs go, and for how long: done (by day), rejected, undelivered. Nothing undelivered is ever removed."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import secrets
import stat
import time
from pathlib import Path

from ..folder import paths
from ..folder.batches import pilot_folder
from ..folder.facts import AttemptFolder, JobFolder, group_of
from ..folder.jobs import JobsFolder
from ..folder.moves import move_job
from ..folder.snapshot import read_attempt
from ..job.names import JobId
from ..job.snapshot import JobFacts
from ..settings import Site
from . import kept_outputs

log = logging.getLogger(__name__)

_BYTES = ".bytes"
"""In the folder of a day: a line for each job, its size. Not synced: it only says when room has to be made."""
_REMOVED = ".removed-"
_SWEPT_AT_ONCE = 200
"""Jobs of removed days that a pass deletes: a million at once would keep it from its work for an hour."""


def archive(jobs: JobsFolder, job: JobFolder, facts: JobFacts, site: Site, now: float) -> None:
    """Moves a job out of the active ones, without its secrets and its scratch data. The rename comes last."""
    declared = set(facts.spec.outputs.values()) if facts.spec else set()
    for number in job.attempt_numbers():
        attempt = job.attempt(number)
        paths.keep_files(attempt.work / "outputs", attempt.outputs, site.limits.output_bytes, declared)
        _clear(jobs, job, attempt)
    paths.remove_half_written(job.path)
    paths.remove(job.site)
    day = jobs.done / time.strftime("%Y-%m-%d", time.gmtime(now))
    place = jobs.rejected if facts.spec is None else jobs.undelivered if facts.undeliverable else day
    if place is day:
        if not day.exists():
            _tidy(jobs.done, site.limits.done_bytes, site.timing.keep_done, now)
            sweep(jobs)
            paths.make_folder(day)
            (day / _BYTES).touch()
        _add_bytes(day, _size(job.path) - kept_outputs.note(jobs, day, job, site, now))
    move_job(job, place)
    log.info("archived job=%s outcome=%s in=%s why=%r", job.id, _outcome(facts), place.name, _reason(facts))


def leave_to_others(jobs: JobsFolder, job: JobFolder, site: Site, now: float) -> None:
    """Of what was never ours only the message is kept, for as long as done jobs are, so that its id stays known."""
    for name in paths.names_in(jobs.not_ours):
        old = JobFolder(jobs.not_ours / name)
        with contextlib.suppress(OSError):
            if now - old.message.written_at() > site.timing.keep_done:
                paths.remove_tree(old.path)
    move_job(job, jobs.not_ours)
    log.info("not ours, left to others job=%s", job.id)


def archive_pilot(jobs: JobsFolder, crew: JobFolder, done: Path, now: float) -> None:
    """What an ended pilot leaves: its log, and what Slurm said of it."""
    _clear(jobs, crew, crew.attempt(1))
    move_job(crew, done / time.strftime("%Y-%m-%d", time.gmtime(now)))


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


def _tidy(done: Path, most_bytes: int, keep: float, now: float) -> None:
    """Once a day: gives up the days that are too old, then the oldest ones until the rest is small enough."""
    oldest_kept = time.strftime("%Y-%m-%d", time.gmtime(now - keep))
    days = sorted(day for day in done.iterdir() if day.is_dir() and not day.name.startswith("."))
    sizes = {day: _bytes_of(day) for day in days}
    for day in days:
        if day.name < oldest_kept or sum(sizes.values()) > most_bytes:
            log.info("removed by retention day=%s bytes=%d", day.name, sizes.pop(day))
            os.rename(day, done / f"{_REMOVED}{day.name}.{secrets.token_hex(3)}")


def sweep(jobs: JobsFolder) -> None:
    """Deletes a part of what was given up."""
    left = _SWEPT_AT_ONCE
    for day in [jobs.done / name for name in os.listdir(jobs.done) if name.startswith(_REMOVED)]:
        with contextlib.suppress(OSError), os.scandir(day) as entries:
            for entry in itertools.islice(entries, left):
                left -= 1
                if entry.is_dir(follow_symlinks=False):
                    paths.remove_tree(Path(entry.path))
                else:
                    os.unlink(entry.path)
        with contextlib.suppress(OSError):
            day.rmdir()


def _add_bytes(day: Path, size: int) -> None:
    """Only to a list that is complete: a day that an older version began has none."""
    with contextlib.suppress(OSError):
        file = os.open(day / _BYTES, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, b"%d\n" % size)
        finally:
            os.close(file)


def _bytes_of(day: Path) -> int:
    try:
        return sum(map(int, (day / _BYTES).read_bytes().split()))
    except (OSError, ValueError):
        size = _size(day)
        with contextlib.suppress(OSError):
            (day / _BYTES).write_text(f"{size}\n")
        return size


def _size(folder: Path) -> int:
    """In bytes; somebody may be removing files at the same time."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            found = file.lstat()
            total += 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return total
