"""Keeps what is in flight from a purge: many sites remove files from scratch space that nobody has read for some weeks.

Once a day the *access* time of each of these files is set to now. Times of modification are facts, on which deadlines hang,
and stay as they are to the nanosecond. The lease is left out: its times say whether its holder lives.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from ..folder.jobs import JobsFolder
from ..folder.paths import contents, write_note

_AT_ONCE = 1000
"""Files in one pass: more would keep it from its work."""
_NOT_IN_FLIGHT = ("done", "rejected", "news", "removed")
_DEEPEST = 100

Parts = tuple[str, ...]


def touch_in_flight(jobs: JobsFolder, now: float) -> None:
    """A slice of the day's round, if one is due. `now`: by the file server's clock. Never fails: it is only a precaution."""
    with contextlib.suppress(Exception):
        if jobs.touch_is_due(now):
            _touch_some(jobs, now)


def _touch_some(jobs: JobsFolder, now: float) -> None:
    upto = tuple(os.fsdecode(contents(jobs.touched) or b"").split("/"))
    some = list(itertools.islice(_files(jobs.path, (), upto if upto != ("",) else ()), _AT_ONCE))
    for parts in some:
        _touch(jobs.path.joinpath(*parts), now)
    reached = "/".join(some[-1]) if len(some) == _AT_ONCE else ""
    write_note(jobs.touched, reached.encode("utf-8", "replace").decode())


def _files(folder: Path, above: Parts, after: Parts) -> Iterator[Parts]:
    """The plain files below, in the order of their names, from after `after` on."""
    for name in _names(folder, above):
        if after and name < after[0]:
            continue
        passed = bool(after) and name == after[0]
        path = folder / name
        if path.is_symlink():
            continue
        if path.is_dir():
            yield from _files(path, (*above, name), after[1:] if passed else ())
        elif path.is_file() and not passed:
            yield (*above, name)


def _names(folder: Path, above: Parts) -> list[str]:
    """Without what is not in flight, or gone by now."""
    if len(above) > _DEEPEST:
        return []
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(folder))
        if not above:  # a name that begins with a dot may be a lease that is being taken over
            return [name for name in names if name[0] != "." and name not in (*_NOT_IN_FLIGHT, "lease.json", "touched")]
        return [name for name in names if not (name == "done" and above[0] == "pilots" and len(above) == 2)]
    return []


def _touch(path: Path, now: float) -> None:
    """By its descriptor: a file that takes this one's name meanwhile has a time of its own."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.utime(descriptor, ns=(int(now * 1e9), os.fstat(descriptor).st_mtime_ns))
        finally:
            os.close(descriptor)
