"""The mark of an installation: the same id in the jobs folder and beside the site file.

A jobs folder without it is not the one of earlier passes (its file system is not mounted, say, or jobs_dir was changed
while jobs were in flight). To take it for a new one would forget those jobs, and take messages into a place that vanishes.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..errors import Damaged
from ..folder import JobsFolder, claim_name, read, write
from ..settings import Config


class NotOurs(Exception):
    """The jobs folder is not the one of earlier passes. The text says what to do."""


@dataclass(frozen=True)
class Mark:
    id: str
    jobs_dir: str = ""
    """Where it was, for people."""


def mark_file(site_file: Path) -> Path:
    """Beside the site file, which names the jobs folder; each site file has its own."""
    return site_file.with_name(f".{site_file.name}.installed")


def check_mark(site_file: Path, jobs: JobsFolder) -> bool:
    """False where nothing is marked yet. Raises NotOurs, and OSError where that can't be known."""
    file = mark_file(site_file)
    try:
        outside: Optional[Mark] = read(Mark, file)
        inside = read(Mark, jobs.mark) if outside else None
    except Damaged as error:
        raise NotOurs(f"{error}. Remove that file if {jobs.path} holds the jobs of earlier passes") from None
    if outside is not None and (inside is None or inside.id != outside.id):
        raise NotOurs(
            f"{jobs.path} lacks the mark of earlier passes: is its file system mounted, and jobs_dir right "
            f"(it was {outside.jobs_dir})? If you mean to begin anew, remove {file}"
        )
    return outside is not None


def leave_mark(config: Config, jobs: JobsFolder) -> None:
    """In the jobs folder first: a crash in between leaves one to be adopted. Raises OSError if that can't be written."""
    claim_name(jobs.mark, Mark(secrets.token_hex(8), str(jobs.path)))
    with contextlib.suppress(OSError):  # beside a site file in a read-only place there is none, and no protection
        inside = read(Mark, jobs.mark)
        write(mark_file(config.site_file), Mark(inside.id if inside else "", str(jobs.path)))
