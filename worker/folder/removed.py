"""How what is over goes: renamed into `jobs/removed` first, so that whatever is found in its old place is whole, and deleted
from there a part at a time.

Killed before the rename: it is found, and goes, again. Killed after it: it is gone, and whoever comes sweeps it up.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from . import paths
from .jobs import JobsFolder

_AT_ONCE = 200
"""Folders that a pass deletes: a million at once would keep it from its work for an hour."""
_A_DAY = re.compile(r"\d{4}-\d\d-\d\d\.")


def give_up(jobs: JobsFolder, going: Sequence[Path], name: str = "") -> None:
    """After the return for good: a power failure brings back nothing of which a part is deleted. Raises OSError. `name`: what
    it shall be called there."""
    if not going:
        return
    paths.make_folder(jobs.removed)
    for path in going:
        paths.crash_point("before removal")
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, jobs.removed / f"{name or path.name}.{secrets.token_hex(3)}")
        paths.crash_point("after removal")
    paths.sync_folder(jobs.removed)
    for place in {path.parent for path in going}:
        paths.sync_folder(place)


def sweep(jobs: JobsFolder) -> None:
    """Deletes a part of what was given up; the folder of a day counts as what is in it. One look where there is nothing."""
    left = _AT_ONCE
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(jobs.removed) as entries:
        for entry in entries:
            left -= _sweep_day(Path(entry.path), left) if _A_DAY.match(entry.name) else _delete(entry)
            if left <= 0:
                return


def _sweep_day(day: Path, most: int) -> int:
    """How many folders were deleted."""
    count = 0
    with contextlib.suppress(OSError):
        with os.scandir(day) as entries:
            for entry in itertools.islice(entries, most):
                count += _delete(entry)
        day.rmdir()
    return count


def _delete(entry: os.DirEntry[str]) -> int:
    with contextlib.suppress(OSError):
        if entry.is_dir(follow_symlinks=False):
            paths.remove_tree(Path(entry.path))
        else:
            os.unlink(entry.path)
    return 1
