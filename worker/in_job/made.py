"""What a job's own code has made: the files that are new or changed since before it began. Told by size, time, inode; links
are never followed. Nothing of it runs any more when this is looked at."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import InvalidSpec
from ..job.own_code import path_of

Seen = Mapping[str, tuple[int, int, int]]
"""By its path below the folder: size in bytes, time of its last change in ns, inode."""


def seen_in(folder: Path, most: int) -> dict[str, tuple[int, int, int]]:
    """Its plain files, of which at most so many are looked at."""
    found: dict[str, tuple[int, int, int]] = {}
    left = [""]
    while left and len(found) < most:
        below = left.pop()
        with contextlib.suppress(OSError), os.scandir(folder / below) as entries:
            for entry in entries:
                path = f"{below}/{entry.name}" if below else entry.name
                if entry.is_dir(follow_symlinks=False):
                    left.append(path)
                elif entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found[path] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return found


def made_since(before: Seen, folder: Path, most: int) -> list[str]:
    """Paths, in order; those that can't be told to a requester (a name that is no text) are not among them."""
    return sorted(path for path, now in seen_in(folder, most).items() if before.get(path) != now and _can_be_told(path))


def move_out(folder: Path, names: Sequence[str], target: Path) -> dict[str, str]:
    """Moves these into one flat folder; returns how each is called there. What isn't there, or is no plain file, is left."""
    moved: dict[str, str] = {}
    for index, name in enumerate(names):
        file = f"{index:02d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name.rpartition('/')[2])[-60:]}"
        if _moved(folder, name, target / file):
            moved[name] = file
    return moved


def _moved(folder: Path, name: str, target: Path) -> bool:
    """Folder by folder, so that no link in between leads out."""
    try:
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        *above, last = name.split("/")
        for part in above:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = inner
        os.rename(last, target, src_dir_fd=at)
        return True
    except OSError:
        return False
    finally:
        os.close(at)


def _can_be_told(path: str) -> bool:
    try:
        path.encode()
        return path_of(path, "output") == path
    except (InvalidSpec, UnicodeError):
        return False
