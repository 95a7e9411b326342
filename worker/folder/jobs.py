"""`jobs/`: where all jobs live, and what else an installation keeps. An empty pass reads nothing more than this."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from ..errors import Damaged
from . import paths

if TYPE_CHECKING:
    from ..job.names import JobId
    from .facts import JobFolder

_A_DAY = 86400.0


class JobsFolder:
    """`jobs/`: where all jobs live."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.active = path / "active"
        self.paused = self.active / ".paused.json"
        """Here, so that an empty pass sees it where it looks anyway; a name that begins with a dot is no job."""
        self.done = path / "done"
        self.rejected = path / "rejected"
        self.undelivered = path / "undelivered"
        self.not_ours = path / "not_ours"
        self.groups = path / "groups"
        self.pilots = path / "pilots"
        self.news = path / "news"
        self.standing = path / "standing.json"
        self.new = path / "new"
        self.mark = path / "installation.json"
        self.lease = path / "lease.json"
        self.site_fault = path / "site_fault.json"
        self.cluster = path / "cluster.json"
        self.budget = path / "slurm_budget.json"
        self.turns = path / "turns.json"
        self.reserve = path / "reserve"
        self.shapes = path / "shapes"
        self.workloads = path / "workloads.json"
        self.operator_log = path / "operator.log"
        self.tally = path / "tally.json"
        self.touched = path / "touched"
        self.largest_answer = path / "largest_answer.json"
        self.history = path / "history.json"
        self.removed = path / "removed"
        self.ids = path / "ids"
        self.retention = path / "retention.json"

    def prepare(self) -> None:
        """Makes the folders; 0700, because they hold tokens and other people's data. Raises OSError."""
        for folder in (self.path, self.active, self.done, self.rejected, self.undelivered, self.groups):
            if not folder.is_dir():  # their names are synced with the mark, which a first pass that was killed lacks
                paths.make_folder(folder)
        if not self.news.is_dir():
            if os.path.lexists(self.news):
                paths.put_aside(self.news)
            paths.make_folder(self.news)

    def job(self, job_id: JobId) -> JobFolder:
        from .facts import JobFolder

        return JobFolder(self.active / job_id)

    def active_jobs(self) -> Iterator[JobFolder]:
        """In order of their ids; the caller sorts by what matters."""
        from .facts import JobFolder

        for name in self.active_names():
            yield JobFolder(self.active / name)

    def active_names(self) -> list[str]:
        """What begins with a dot is no job: a network file system leaves such files where one was deleted in use."""
        return self.active_and_paused()[0]

    def active_and_paused(self) -> tuple[list[str], bool]:
        """The same, and whether somebody has paused this: one listing tells both."""
        names = os.listdir(self.active)
        return sorted(name for name in names if not name.startswith(".")), self.paused.name in names

    def ring(self, job_id: JobId) -> None:
        """Tells the login side that there is something new about a job. A hint, not a fact: it may be lost."""
        with contextlib.suppress(OSError):
            os.close(os.open(self.news / job_id, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def rung(self) -> list[str]:
        """Whose bell rang; names, of jobs or not."""
        with contextlib.suppress(OSError):
            return os.listdir(self.news)
        return []

    def hear(self) -> frozenset[str]:
        """The same, and the bells are still. To be called before the jobs' facts are read: what rings later is news."""
        called = self.rung()
        for name in called:
            try:
                os.unlink(self.news / name)
            except OSError:
                paths.remove_tree(self.news / name)  # what is no bell would ring for ever
        return frozenset(called)

    def places(self) -> Sequence[Path]:
        """Where a job may be, most likely first."""
        days = sorted(self.done.iterdir(), reverse=True) if paths.is_folder(self.done) else []
        return self.active, self.rejected, self.undelivered, *days, self.not_ours

    def find(self, job_id: JobId, places: Sequence[Path] = ()) -> Optional[JobFolder]:
        """A job that was claimed before, wherever it is now. `places`: for who looks for many, and has asked for them."""
        from .facts import JobFolder

        for place in places or self.places():
            job = JobFolder(place / job_id)
            if job.message.is_there():
                return job
        return None

    def pilots_idle(self) -> bool:
        """Whether a pass has nothing to do with pilots: one look for a site without them."""
        if not self.pilots.is_dir():
            return True
        places = [self.pilots / "crew"]
        for pool in self.pilots.glob("q-*"):
            places += [pool / "todo", pool / "ended", pool / "locked", pool / "cancel"]
            if os.path.lexists(pool / "put_back_asked.json"):
                return False
        try:
            return not any(map(paths.names_in, places))
        except Damaged:  # the pass says so
            return False

    def touch_is_due(self, now: float) -> bool:
        """Whether what is in flight has to be kept from a purge. The note is empty where a round is over."""
        try:
            found = os.lstat(self.touched)
        except OSError as error:
            return isinstance(error, FileNotFoundError)
        return found.st_size > 0 or not 0 <= now - found.st_mtime < _A_DAY

    def group(self, group: str) -> Path:
        return self.groups / f"{group}.json"

    def group_log(self, group: str) -> Path:
        return self.groups / f"{group}.log"


def mark_file(site_file: Path) -> Path:
    """Beside the site file, which names the jobs folder; each site file has its own."""
    return site_file.with_name(f".{site_file.name}.installed")
