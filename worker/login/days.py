"""What is kept in a folder for each day, and goes by whole days: jobs that are done, and pilots' closed batches."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from ..errors import Damaged
from ..folder import closed, done_ids, paths
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..folder.removed import give_up
from ..settings import Site

log = logging.getLogger(__name__)

_BYTES = ".bytes"
"""In the folder of a day: a line for each job, its size. Not synced: it only says when room has to be made."""
_NOTED_AT_ONCE = 1000
"""Jobs of a day that goes whose ids are noted in one pass."""
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_OURS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REMOVED_BEFORE = ".removed-"
"""So the version before called a day that it deleted bit by bit, among the others."""


def day_of(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def add_to_day(day: Path, size: int) -> None:
    """Before a job of so many bytes is moved there. Only to a list that is complete: a day that an older version began may
    have none."""
    if not day.exists():
        paths.make_folder(day)
        (day / _BYTES).touch()
    with contextlib.suppress(OSError):
        file = os.open(day / _BYTES, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, b"%d\n" % size)
        finally:
            os.close(file)


def give_up_a_day(jobs: JobsFolder, site: Site, now: float) -> bool:
    """The oldest one that is to go, or a part of the work before that. False where none is left. Raises Damaged, and
    OSError."""
    for name in paths.names_in(jobs.done):
        if name.startswith(_REMOVED_BEFORE):
            give_up(jobs, [jobs.done / name], name[len(_REMOVED_BEFORE) :])
    return _of_jobs(jobs, site, now) or _of_batches(jobs, site, now)


def _of_jobs(jobs: JobsFolder, site: Site, now: float) -> bool:
    """Their ids are on disk before they go."""
    names = [name for name in paths.names_in(jobs.done) if _DAY.fullmatch(name)]
    day = _that_goes([(name, _bytes_of(jobs.done / name), jobs.done / name) for name in names], site, now)
    if day is not None and _ids_are_known(jobs, day):
        log.info("removed by retention kind=done day=%s", day.name)
        give_up(jobs, [day])
    return day is not None


def _of_batches(jobs: JobsFolder, site: Site, now: float) -> bool:
    """All jobs of a closed batch are answered or have folders of their own, and their ids are in the pool's own list."""
    found = []
    for pool in sorted(jobs.pilots.glob("q-*")):
        for name, total in closed.by_day(pool).items():
            if total.bytes == closed.UNKNOWN:
                closed.measure(pool, name)
                return True
            found.append((name, total.bytes, pool / "done" / name))
    day = _that_goes(found, site, now)
    if day is not None:
        log.info("removed by retention kind=batches pool=%s day=%s", day.parent.parent.name, day.name)
        give_up(jobs, [day])
    return day is not None


def _that_goes(days: Sequence[tuple[str, int, Path]], site: Site, now: float) -> Optional[Path]:
    """The oldest, where it is too old or all are too large together; never today."""
    name, _, place = min(days, default=("", 0, None))
    too_large = sum(size for _, size, _ in days) > site.limits.done_bytes
    too_old = name < day_of(now - site.timing.keep_done)
    return place if name < day_of(now) and (too_large or too_old) else None


def _ids_are_known(jobs: JobsFolder, day: Path) -> bool:
    """Whether all of them are on disk; if not, some more are now, and this is asked again."""
    known: dict[str, str] = {}
    with contextlib.suppress(Damaged):  # then it is put aside, and written anew
        known = done_ids.of_day(jobs, day.name)
    unknown = (name for name in paths.names_in(day) if _OURS.fullmatch(name) and name not in known)
    some = list(itertools.islice(unknown, _NOTED_AT_ONCE))
    done_ids.add(jobs, day.name, {name: outcome_of(JobFolder(day / name)) for name in some})
    return not some


def outcome_of(job: JobFolder) -> str:
    """What it came to, in the word under which its id stays known."""
    with contextlib.suppress(Damaged):
        outcome = job.outcome.read()
        if outcome is not None:
            return outcome.outcome
    return "unknown"


def _bytes_of(day: Path) -> int:
    try:
        return sum(map(int, (day / _BYTES).read_bytes().split()))
    except (OSError, ValueError):
        size = paths.size_of(day)
        with contextlib.suppress(OSError):
            (day / _BYTES).write_text(f"{size}\n")
        return size
