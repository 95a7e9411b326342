"""A jobs folder that another installation has: whoever makes a new site file for it is asked whether that is meant."""

from __future__ import annotations

import sys
from pathlib import Path

from ..errors import NotOurs
from ..folder.jobs import JobsFolder
from ..login.mark import check_mark, mark_as
from .starting import NotAdded


def ask_to_share(site_file: Path, jobs_dir: Path) -> bool:
    """Whether the site file shall bear the mark of that folder. Raises NotAdded where it shall not be made."""
    try:
        check_mark(site_file, JobsFolder(jobs_dir))
        return False
    except NotOurs as error:
        found, fix = error.found, error.fix
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        print(f"Left to do: {found}. {fix}.")
        return False
    print(f"{found}. Both would work on the same jobs; is that meant? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise NotAdded(f"{found}. {fix}")
    return True


def share(site_file: Path, jobs_dir: Path) -> None:
    mark_as(site_file, JobsFolder(jobs_dir))
    print(f"{site_file} bears the mark of {jobs_dir}.")
