"""Ids outlive bytes: that a job was done, and what it came to, is known for longer than its folder is kept.

    jobs/ids/<day>     of jobs put away on that day whose folders are gone, or about to go: `<id> <outcome>` a line, sorted

As long as the folder is there, it is what tells; so a claim looks here only for what was removed. A day's file is written
whole, and is on disk before the first of its folders goes: killed in between, both tell the same.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import Damaged
from . import paths
from .jobs import JobsFolder

log = logging.getLogger(__name__)

_LONGEST = 512
"""Bytes of a line, at most: an id and an outcome are names."""


def outcome_of(jobs: JobsFolder, job_id: str) -> str:
    """What this job came to, of which only the id is left; empty where none is known. Raises OSError."""
    wanted = os.fsencode(job_id)
    for day in reversed(_names(jobs)):
        try:
            with contextlib.suppress(FileNotFoundError):
                found = _search(jobs.ids / day, wanted)
                if found:
                    return found
        except Damaged as error:
            log.error("damaged, put aside: its jobs are done again if their messages come again what=%r now=%s",
                      str(error), paths.put_aside(jobs.ids / day))  # fmt: skip
    return ""


def of_day(jobs: JobsFolder, day: str) -> dict[str, str]:
    """All that is known of this day: outcomes by id. Raises Damaged, and OSError."""
    content = paths.contents(jobs.ids / day) or b""
    found = dict(line.partition(" ")[::2] for line in content.decode("ascii", "replace").splitlines())
    if not content.endswith(b"\n" if content else b"") or not all(found.values()):
        raise Damaged(f"{jobs.ids / day} is not what was written there")
    return found


def add(jobs: JobsFolder, day: str, outcomes: Mapping[str, str]) -> None:
    """On disk after the return, beside what the day's file says already: adding twice changes nothing. Raises OSError."""
    try:
        known = of_day(jobs, day)
    except Damaged as error:
        log.error("damaged, put aside what=%r now=%s", str(error), paths.put_aside(jobs.ids / day))
        known = {}
    if not outcomes.items() <= known.items():
        lines = sorted(f"{job_id} {outcome}\n".encode("ascii") for job_id, outcome in {**known, **outcomes}.items())
        paths.make_folder(jobs.ids)
        paths.write_bytes(jobs.ids / day, b"".join(lines))
    elif known:  # whoever wrote it may have been killed before its name was on disk, and its folders are about to go
        paths.sync_folder(jobs.ids)


def forget_before(jobs: JobsFolder, day: str) -> None:
    """Those of earlier days."""
    for name in _names(jobs):
        if name < day:
            paths.remove(jobs.ids / name)


def _names(jobs: JobsFolder) -> list[str]:
    try:
        return [name for name in paths.names_in(jobs.ids) if not name.startswith(".")]
    except Damaged as error:
        log.error("damaged, put aside what=%r now=%s", str(error), paths.put_aside(jobs.ids))
        return []


def _search(path: Path, wanted: bytes) -> str:
    """By halves: a few reads, however long the file is. Raises Damaged, and OSError."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        low, high = 0, os.fstat(file).st_size
        while low < high:
            begin, line = _line_at(file, low, (low + high) // 2)
            job_id, _, outcome = line.partition(b" ")
            if not outcome:
                raise Damaged(f"{path} is not what was written there")
            if job_id == wanted:
                return outcome.decode("ascii", "replace")
            if job_id < wanted:
                low = begin + len(line) + 1
            else:
                high = begin
    finally:
        os.close(file)
    return ""


def _line_at(file: int, low: int, place: int) -> tuple[int, bytes]:
    """Where the line begins that this byte belongs to, and what it says. `low`: where some line before it begins."""
    begin = max(low, place - _LONGEST)
    block = os.pread(file, 2 * _LONGEST, begin)
    start = block.rfind(b"\n", 0, place - begin) + 1
    return begin + start, block[start:].partition(b"\n")[0]
