"""Outputs that are kept though no answer carried them: for how long, and how many bytes of all of them.

Only of jobs in done/, so of delivered ones. Each day has a list of those that have any, in the order in which they were put
away; what a list does not know stays until its day goes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections import deque
from pathlib import Path

from ..errors import Damaged
from ..folder import paths
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..settings import Site

log = logging.getLogger(__name__)

_LIST = ".outputs"
"""In the folder of a day: a line for each job, `<bytes> <id>`. Not synced: it only says when room has to be made."""
_A_PAGE = 4096
"""Bytes of a list after which room is looked for again, some hundred jobs."""
_LARGE = 1000
"""A job that has this part of what may be kept makes room at once."""


def size_of(job: JobFolder) -> int:
    """The bytes of outputs that it keeps."""
    return sum(_size(job.attempt(number).outputs) for number in job.attempt_numbers())


def note(jobs: JobsFolder, day: Path, job: JobFolder, size: int, site: Site, now: float) -> None:
    """For a job with so many bytes of outputs that is about to be put away there. Makes room now and then."""
    if not size:
        return
    line = f"{size} {job.id}\n".encode()
    before = _length(day / _LIST)
    if not before or before // _A_PAGE != (before + len(line)) // _A_PAGE or size * _LARGE > site.limits.kept_bytes:
        sweep(jobs, site, now, size)
    with contextlib.suppress(OSError):
        file = os.open(day / _LIST, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line)
        finally:
            os.close(file)


def sweep(jobs: JobsFolder, site: Site, now: float, coming: int = 0) -> None:
    """Removes what has been here for too long, and the oldest until `coming` bytes have room."""
    oldest_kept = time.strftime("%Y-%m-%d", time.gmtime(now - site.timing.keep_outputs))
    days = [jobs.done / name for name in paths.names_in(jobs.done) if not name.startswith(".")]
    lists = {day: _read(day / _LIST) for day in days}
    left = coming + sum(size for listed in lists.values() for size, _ in listed)
    for day, listed in lists.items():
        there = deque(listed)
        while there and (day.name < oldest_kept or left > site.limits.kept_bytes):
            size, name = there.popleft()
            left -= size
            _remove(JobFolder(day / name))
        if len(there) < len(listed):
            paths.write_note(day / _LIST, "".join(f"{size} {name}\n" for size, name in there))
            log.info("kept outputs removed by retention day=%s jobs=%d", day.name, len(listed) - len(there))


def _remove(job: JobFolder) -> None:
    with contextlib.suppress(Damaged, OSError):
        for number in job.attempt_numbers():
            paths.remove_tree(job.attempt(number).outputs)


def _read(file: Path) -> list[tuple[int, str]]:
    """As much of it as can be read."""
    found = []
    with contextlib.suppress(Damaged, OSError):
        for line in (paths.contents(file) or b"").decode("ascii", "replace").splitlines():
            size, _, name = line.partition(" ")
            if size.isdecimal() and re.fullmatch("[A-Za-z0-9._-]+", name):
                found.append((int(size), name))
    return found


def _length(file: Path) -> int:
    try:
        return os.stat(file).st_size
    except OSError:
        return 0


def _size(folder: Path) -> int:
    """In bytes; somebody may be removing files at the same time."""
    with contextlib.suppress(OSError):
        return sum(found.lstat().st_size for found in folder.iterdir())
    return 0
