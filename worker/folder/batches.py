"""Batches: many small jobs in one folder, for pilots. Both sides use it; where a batch's folder stands is its state.

    jobs/pilots/<pool>/todo/<batch>.<jobs>            claimed, free to be taken
    jobs/pilots/<pool>/locked/<batch>.<jobs>~<pilot>  taken: by a rename, which one pilot wins
    jobs/pilots/<pool>/ended/<batch>.<jobs>~<pilot>   nobody writes there any more; the login side closes it
    jobs/pilots/<pool>/done/<day>/<batch>.<succeeded>.<failed>.<left for folders of their own>   (see closed.py)
    jobs/pilots/<pool>/cancel/<job>.json              somebody wants this job to end, whichever batch has it
    jobs/pilots/crew/<pilot>/                         a pilot's own facts, in the form of a job's

A batch holds `jobs.jsonl` (what was claimed, a message a line, whole before the folder gets its place in todo), what each
pilot that had it wrote down (see journal.py), and `handed-<n>.json`: the jobs that went on as folders of their own.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ..errors import Damaged
from ..job.facts import Asked, Message, Unfit
from ..job.names import JobId, Name, NameIfAny
from ..job.spec import Resources
from . import paths
from .facts import JobFolder
from .jobs import JobsFolder
from .records import Exclusive, Fact, fact, from_json, to_json

log = logging.getLogger(__name__)

LARGEST = 1 << 32
"""Bytes of a file of a batch."""
_COUNT = re.compile(r"[0-9]{1,9}")
_OF_A_LEASE = re.compile(r"(?:journal-|sent-|closed-|handed-)([0-9]{1,6})(?:\.jsonl?)?")
NOT_WRITTEN = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, AssertionError)
"""What reading meets where somebody else has written."""


@dataclass(frozen=True)
class Pilot:
    """pilot.json: the queue whose jobs this pilot runs."""

    queue: str


@dataclass(frozen=True)
class Taken:
    """taken.json: since the time of this file, the batch is out of this pilot's reach as far as the file server goes."""

    pilot: str


@dataclass(frozen=True)
class Closed:
    """closed-<n>.json: what stands in the journal after so many bytes was written by a pilot that nobody listens to."""

    bytes: int


@dataclass(frozen=True)
class Handed:
    """These jobs left the batch for folders of their own."""

    jobs: tuple[Name, ...]


@dataclass(frozen=True)
class Claimed:
    """One job of a batch."""

    id: JobId
    message: Message
    resources: Resources
    rerun_of: str = ""
    """The job that this one repeats."""
    workload: str = ""


class Pool:
    """All batches of one jobs queue."""

    def __init__(self, jobs: JobsFolder, queue: str) -> None:
        plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}", queue)
        self.jobs = jobs
        self.path = jobs.pilots / f"q-{queue if plain else hashlib.sha256(queue.encode()).hexdigest()[:16]}"
        self.new = self.path / "new"
        self.todo = self.path / "todo"
        self.locked = self.path / "locked"
        self.ended = self.path / "ended"
        self.done = self.path / "done"
        self.cancel = self.path / "cancel"

    unfit = fact("unfit.json", Unfit)
    put_back_asked = fact("put_back_asked.json", Asked)

    def prepare(self) -> None:
        for each in (self.new, self.todo, self.locked, self.ended, self.done):
            paths.make_folder(each)

    def cancel_asked(self, job_id: JobId) -> Fact[Asked]:
        return Fact(self.cancel / f"{job_id}.json", Asked)

    def wish(self, job_id: JobId) -> Optional[Asked]:
        """That somebody wants this job to end, if so. Where that can't be read any more, it still counts: without words."""
        try:
            return self.cancel_asked(job_id).read()
        except Damaged as error:
            log.warning("%s: it shall end all the same", error)
            return Asked("somebody", 0.0)

    def asked_to_cancel(self) -> set[JobId]:
        """Which jobs somebody wants to end. Raises Damaged."""
        return {JobId(name[:-5]) for name in paths.names_in(self.cancel) if re.fullmatch(r"[0-9a-f]+\.json", name)}

    def batches(self, place: Path) -> list[Batch]:
        """Those in todo, locked or ended, oldest first. Raises Damaged."""
        return [Batch(place / name) for name in paths.names_in(place) if not name.startswith(".")]

    def open_batches(self) -> list[Batch]:
        """Those of which some job may not be answered yet."""
        return [batch for place in (self.todo, self.locked, self.ended) for batch in self.batches(place)]

    def closed(self) -> list[Batch]:
        """Those that are through, oldest first. Raises Damaged."""
        days = [self.done / name for name in paths.names_in(self.done) if not name.startswith(".")]
        return [Batch(day / name) for day in days for name in paths.names_in(day) if is_closed(name)]

    def open_ids(self) -> set[str]:
        """The ids of the jobs in them. One whose list can't be read is passed over: nobody can answer its jobs, and the
        others must not wait until it is repaired. Raises Damaged where it can't be seen which ones there are."""
        found: dict[str, list[str]] = {}
        moved = True
        while moved:
            moved = False
            for batch in self.open_batches():
                if batch.id not in found:
                    try:
                        found[batch.id] = [claimed.id for claimed in read_jobs(batch)]
                    except FileNotFoundError:  # a pilot has just taken it, or put it back
                        moved = True
                    except Damaged:
                        found[batch.id] = []
        return {job_id for ids in found.values() for job_id in ids}


class Batch:
    """One batch's folder, wherever it stands."""

    def __init__(self, path: Path) -> None:
        self.path = path
        name, _, self.pilot = path.name.partition("~")
        self.id, _, count = name.rpartition(".")
        self.count = int(count) if _COUNT.fullmatch(count) else 0
        """Jobs that were open when it was last put into todo."""
        self.jobs = path / "jobs.jsonl"
        self.site = path / "site.toml"
        """As it was when they were claimed: a pilot outlives the settings that it began with."""

    taken = fact("taken.json", Taken)
    put_back = fact("put_back.json", Handed)

    def journal(self, number: int) -> Path:
        return self.path / f"journal-{number}.jsonl"

    def sent(self, number: int) -> Path:
        return self.path / f"sent-{number}"

    def said(self, number: int, flush: int) -> Path:
        return self.path / f"said-{number}-{flush}"

    def flushes_said(self, number: int) -> int:
        """How many at least. Raises Damaged."""
        begin = f"said-{number}-"
        flushes = [name[len(begin) :] for name in paths.names_in(self.path) if name.startswith(begin)]
        return max((int(flush) for flush in flushes if _COUNT.fullmatch(flush)), default=0)

    def closed(self, number: int) -> Exclusive[Closed]:
        return Exclusive(self.path / f"closed-{number}.json", Closed)

    def handed(self, number: int) -> Fact[Handed]:
        return Fact(self.path / f"handed-{number}.json", Handed)

    def reply_body(self, number: int, job_id: JobId) -> Path:
        """Each lease has its own: of two pilots that ran the same job, each has its own answer."""
        return self.path / f"reply-{number}-{job_id}.bin"

    def leases(self) -> int:
        """How many pilots have had it. Raises Damaged."""
        found = [match for name in paths.names_in(self.path) if (match := _OF_A_LEASE.fullmatch(name))]
        return max((int(match[1]) for match in found), default=0)

    def __repr__(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"


PILOT = "pilot-"
"""How a pilot's id begins; a job's has only hexadecimal digits."""


def crew_of(jobs: JobsFolder) -> Path:
    return jobs.pilots / "crew"


def crew(jobs: JobsFolder) -> list[JobFolder]:
    """The folders of all pilots that are not put away yet, oldest first. Raises Damaged."""
    return [JobFolder(crew_of(jobs) / name) for name in paths.names_in(crew_of(jobs)) if name.startswith(PILOT)]


def pilot_folder(jobs: JobsFolder, name: str) -> Optional[JobFolder]:
    """None for what is no pilot's id."""
    return JobFolder(crew_of(jobs) / name) if name.startswith(PILOT) else None


def pilot_file(pilot: JobFolder) -> Fact[Pilot]:
    return Fact(pilot.path / "pilot.json", Pilot)


# --- claiming


def add(pool: Pool, claimed: Sequence[Claimed], now: float, site: str = "") -> Batch:
    """After the return, these jobs survive a power failure: four syncs, however many they are. `site`: the site file, which
    is frozen for them. Raises OSError."""
    name = f"{time.strftime('%Y%m%d%H%M%S', time.gmtime(now))}-{secrets.token_hex(4)}.{len(claimed)}"
    aside = Batch(pool.new / name)
    paths.make_folder(aside.path)
    with open(os.open(aside.jobs, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        for each in claimed:
            file.write(_claimed_line(each))
        file.flush()
        os.fsync(file.fileno())
    if site:
        paths.write_bytes(aside.site, site.encode())
    else:
        paths.sync_folder(aside.path)
    return move(aside, pool.todo / name)


def move(batch: Batch, to: Path) -> Batch:
    """Raises FileNotFoundError where somebody else was quicker."""
    paths.crash_point(f"before batch to {to.parent.name}")
    os.rename(batch.path, to)
    paths.sync_folder(to.parent)
    paths.sync_folder(batch.path.parent)
    paths.crash_point(f"after batch to {to.parent.name}")
    return Batch(to)


def sync_places(pool: Pool) -> bool:
    """Whoever claimed a batch may have been killed before its name was on disk. Returns True."""
    for place in (pool.todo, pool.locked, pool.ended):
        if place.is_dir():
            paths.sync_folder(place)
    return True


def remove_half_made(pool: Pool) -> None:
    """What a pass that was killed had not yet claimed: its messages were never acked."""
    for batch in pool.batches(pool.new):
        paths.remove_tree(batch.path)


def _claimed_line(claimed: Claimed) -> bytes:
    r = claimed.resources
    line: dict[str, Any] = {
        "id": claimed.id, "cpus": r.cpus, "memory_mb": r.memory_mb, "time_seconds": r.time_seconds,
        "message": to_json(vars(claimed.message)),
    }  # fmt: skip
    for name in ("rerun_of", "workload"):
        if vars(claimed)[name]:
            line[name] = vars(claimed)[name]
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def read_jobs(batch: Batch) -> list[Claimed]:
    """Raises Damaged; FileNotFoundError where somebody has just moved it."""
    content = paths.contents(batch.jobs, LARGEST)
    if content is None:
        if batch.path.is_dir():
            raise Damaged(f"{batch.jobs} is gone")
        if os.path.lexists(batch.path):
            raise Damaged(f"{batch.path} is not a folder")
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(batch.jobs))
    try:
        found = [_claimed(json.loads(line)) for line in content.split(b"\n")[:-1]]
    except NOT_WRITTEN as error:
        raise Damaged(f"{batch.jobs} is not what was written there ({error!s:.200})") from None
    if len(found) < max(1, batch.count) or not content.endswith(b"\n"):
        raise Damaged(f"{batch.jobs} was cut off")
    return found


def _claimed(line: Mapping[str, Any]) -> Claimed:
    resources = from_json(Resources, {name: line[name] for name in ("cpus", "memory_mb", "time_seconds")})
    more = {
        name: from_json(of, line[name]) for name, of in (("rerun_of", NameIfAny), ("workload", str)) if name in line
    }
    return Claimed(JobId(from_json(Name, line["id"])), from_json(Message, line["message"]), resources, **more)


# --- closed ones


def closed_name(batch: Batch, succeeded: int, failed: int, left: int) -> str:
    return f"{batch.id}.{succeeded}.{failed}.{left}"


def is_closed(name: str) -> bool:
    return re.fullmatch(r"[^.]+\.\d+\.\d+\.\d+", name) is not None


def counts(batch: Batch) -> tuple[int, int, int]:
    """How many jobs of a closed batch succeeded, failed, and left it."""
    succeeded, failed, left = batch.path.name.split(".")[1:]
    return int(succeeded), int(failed), int(left)
