"""A folder of the doctor's own in the jobs folder, which is gone when the doctor is."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from ..folder import paths

_PREFIX = ".doctor-"
_PATIENCE = 5.0
_LEFT_BEHIND_AFTER = 3600.0
"""Seconds; no doctor takes so long."""


@contextlib.contextmanager
def own_folder(jobs_dir: Path) -> Iterator[Path]:
    """Raises OSError where it can't be made."""
    place = jobs_dir / f"{_PREFIX}{secrets.token_hex(4)}"
    paths.make_folder(place)
    try:
        _remove_what_others_left(place)
        yield place
    finally:
        _remove(place)


def _remove(place: Path) -> None:
    """What somebody else still has open, as Slurm a job's log, keeps a name on NFS (`.nfs...`), and with it the folder; it
    goes when that is closed. What is left after that, a later doctor removes."""
    end = time.monotonic() + _PATIENCE
    paths.remove_tree(place)
    while os.path.lexists(place) and time.monotonic() < end:
        time.sleep(0.2)
        paths.remove_tree(place)


def _remove_what_others_left(place: Path) -> None:
    """By the file server's clock."""
    with contextlib.suppress(OSError):
        now = place.stat().st_mtime
        for other in place.parent.glob(f"{_PREFIX}*"):
            if now - other.lstat().st_mtime > _LEFT_BEHIND_AFTER:
                paths.remove_tree(other)
