"""The mark of an installation: the same id in the jobs folder and beside the site file.

A jobs folder without it is not the one of earlier passes (its file system is not mounted, say, or jobs_dir was changed
while jobs were in flight). To take it for a new one would forget those jobs, and take messages into a place that vanishes.
A folder that bears the mark of another place, where it stands as well, is a copy: both would answer the same jobs.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import secrets
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from ..errors import Damaged, NotOurs
from ..folder.jobs import JobsFolder, mark_file
from ..folder.paths import sync_folder
from ..folder.records import Exclusive
from ..job.names import Place
from ..settings import Config
from .other_place import OtherPlace, look_at

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mark:
    id: str
    jobs_dir: Place = ""
    """Where the jobs folder is."""
    site_file: str = ""
    """Of the installation that made it; empty in one of an older version."""


class Marked(enum.Enum):
    NOT_YET = "not yet"
    YES = "yes"
    ELSEWHERE = "elsewhere"
    """The mark names another place, where the folder is not any more, or is this one under another name."""
    UNSURE = "unsure"
    """It names another place, and that gives no answer."""


def check_mark(site_file: Path, jobs: JobsFolder) -> Marked:
    """Raises NotOurs, and OSError where that can't be known."""
    outside, inside = _read(mark_file(site_file), jobs), _read(jobs.mark, jobs)
    if outside is None:
        if inside is not None:
            _raise_if_of_another(inside, site_file, jobs)
        return Marked.NOT_YET
    if inside is None or inside.id != outside.id:
        raise NotOurs(
            f"{jobs.path} lacks the mark of earlier passes",
            f"Is its file system mounted, and jobs_dir right (it was {outside.jobs_dir})? "
            f"If you mean to begin anew, remove {mark_file(site_file)}",
        )
    return _compare_places(inside, jobs)


def _fact(file: Path) -> Exclusive[Mark]:
    return Exclusive(file, Mark)


def _read(file: Path, jobs: JobsFolder) -> Optional[Mark]:
    try:
        return _fact(file).read()
    except Damaged as error:
        if not os.access(file.parent, os.R_OK | os.X_OK):
            raise NotOurs(
                f"{file.parent} is closed to us",
                "Set jobs_dir in site.toml to a folder of your own; or run, if it is yours: "
                f"chmod u+rwx {shlex.quote(str(file.parent))}",
            ) from None
        fix = f"Remove that file if {jobs.path} holds the jobs of this installation"
        raise NotOurs(f"{error}", f"{fix}; what remains of the mark is {_other_one(file, jobs)}") from None


def _other_one(file: Path, jobs: JobsFolder) -> str:
    return f"copied from {jobs.mark}" if file != jobs.mark else "made anew, if the one beside the site file goes too"


def _raise_if_of_another(inside: Mark, site_file: Path, jobs: JobsFolder) -> None:
    """Beside the site file is no mark. That is so after a first pass that was killed before it could leave one, and for ever
    where nothing can be written there; else this is a new site file, and the folder somebody's."""
    if inside.site_file == str(site_file):
        return
    if not inside.site_file and not os.access(site_file.parent, os.W_OK):
        return
    owner = inside.site_file or "another site file"
    raise NotOurs(
        f"{jobs.path} is the jobs folder of {owner}, and {site_file} is new to it",
        "Set another jobs_dir; or, if this one shall take its place or work beside it, "
        f"copy the mark: cp -p {shlex.quote(str(jobs.mark))} {shlex.quote(str(mark_file(site_file)))}",
    )


def _compare_places(inside: Mark, jobs: JobsFolder) -> Marked:
    if inside.jobs_dir == str(jobs.path):
        return Marked.YES
    there = look_at(inside.jobs_dir, jobs.mark, inside.id) if inside.jobs_dir else OtherPlace.NOTHING
    if there is OtherPlace.COPY:
        raise NotOurs(
            f"{jobs.path} is a copy of {inside.jobs_dir}, which is there as well: both would answer the same jobs",
            f"Work with {inside.jobs_dir}. To make the copy an installation of its own, see docs/copying.md",
        )
    return Marked.UNSURE if there is OtherPlace.NO_ANSWER else Marked.ELSEWHERE


def keep_mark(config: Config, jobs: JobsFolder, marked: Marked) -> None:
    """Once nobody else works here. Raises OSError."""
    if marked is Marked.NOT_YET:
        _leave_mark(config, jobs)
    elif marked is Marked.ELSEWHERE:
        _note_place(config, jobs)
        log.info("jobs folder was known by another name, noted jobs_dir=%r", str(jobs.path))
    elif marked is Marked.UNSURE:
        log.warning("jobs folder was elsewhere before, and that place gives no answer; if it is a copy, stop it now; "
                    "docs/copying.md jobs_dir=%r", str(jobs.path))  # fmt: skip


def _leave_mark(config: Config, jobs: JobsFolder) -> None:
    """In the jobs folder first: a crash in between leaves one to be adopted. Raises OSError if that can't be written."""
    _fact(jobs.mark).claim(Mark(secrets.token_hex(8), str(jobs.path), str(config.site_file)))
    sync_folder(jobs.path.parent)
    _mark_the_site_file(config, jobs)


def _note_place(config: Config, jobs: JobsFolder) -> None:
    """Of a folder that was moved, or is known by another name now."""
    inside = _fact(jobs.mark).read()
    if inside is not None:
        _fact(jobs.mark).write(replace(inside, jobs_dir=str(jobs.path)))
        _mark_the_site_file(config, jobs)


def _mark_the_site_file(config: Config, jobs: JobsFolder) -> None:
    with contextlib.suppress(OSError):  # beside a site file in a read-only place there is none, and no protection
        mark_as(config.site_file, jobs)


def mark_as(site_file: Path, jobs: JobsFolder) -> None:
    """Makes this site file one of those that work on the folder. Raises Damaged and OSError."""
    inside = _fact(jobs.mark).read()
    if inside is not None:
        _fact(mark_file(site_file)).write(Mark(inside.id, str(jobs.path), str(site_file)))
