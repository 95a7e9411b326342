"""Batches: many small jobs in one folder, for pilots. Both sides use it; where a batch's folder stands is its state.

    jobs/pilots/<pool>/todo/<batch>.<jobs>            claimed, free to be taken
    jobs/pilots/<pool>/locked/<batch>.<jobs>~<pilot>  taken: by a rename, which one pilot wins
    jobs/pilots/<pool>/ended/<batch>.<jobs>~<pilot>   nobody writes there any more; the login side closes it
    jobs/pilots/<pool>/done/<day>/<batch>.<succeeded>.<failed>.<left for folders of their own>
    jobs/pilots/crew/<pilot>/                         a pilot's own facts, in the form of a job's

A batch holds `jobs.jsonl` (what was claimed, a message a line, whole before the folder gets its place in todo), per lease
a journal (`journal-<n>.jsonl`: what may have been started, what was started, what it came to) and a list of the answers
that the broker has confirmed (`sent-<n>`), and `handed-<n>.json`: the jobs that went on as folders of their own.

An answer is sent only after its line in the journal is on disk and the batch is seen to be still locked by its pilot; and
the login side moves a batch away before it reads its journals. So whichever comes first, the other one knows.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

from . import folder
from .errors import Damaged
from .facts import Message
from .folder import JobFolder, JobId, JobsFolder, from_json, to_json
from .names import Name, NameIfAny
from .outcome import Reply, Result
from .spec import Resources

_INLINE = 1 << 18
"""Bytes of a reply's body up to which it stands in the journal itself."""


LARGEST = 1 << 32
"""Bytes of a file of a batch."""
_COUNT = re.compile(r"[0-9]{1,9}")
_OF_A_LEASE = re.compile(r"(?:journal-|sent-|handed-)([0-9]{1,6})(?:\.jsonl?)?")
_NOT_WRITTEN = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, AssertionError)
"""What reading meets where somebody else has written."""


@dataclass(frozen=True)
class Pilot:
    """pilot.json: the queue whose jobs this pilot runs."""

    queue: str


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
        self.path = jobs.pilots / f"q-{queue if plain else hashlib.sha256(queue.encode()).hexdigest()[:16]}"
        self.new = self.path / "new"
        self.todo = self.path / "todo"
        self.locked = self.path / "locked"
        self.ended = self.path / "ended"
        self.done = self.path / "done"
        self.put_back_asked = self.path / "put_back_asked.json"

    def prepare(self) -> None:
        for each in (self.new, self.todo, self.locked, self.ended, self.done):
            folder.make_folder(each)

    def batches(self, place: Path) -> list[Batch]:
        """Those in todo, locked or ended, oldest first. Raises Damaged."""
        return [Batch(place / name) for name in folder.names_in(place) if not name.startswith(".")]

    def open_batches(self) -> list[Batch]:
        """Those of which some job may not be answered yet."""
        return [batch for place in (self.todo, self.locked, self.ended) for batch in self.batches(place)]

    def closed(self) -> list[Batch]:
        """Those that are through, oldest first. Raises Damaged."""
        days = [self.done / name for name in folder.names_in(self.done) if not name.startswith(".")]
        return [Batch(day / name) for day in days for name in folder.names_in(day) if is_closed(name)]

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

    def journal(self, number: int) -> Path:
        return self.path / f"journal-{number}.jsonl"

    def sent(self, number: int) -> Path:
        return self.path / f"sent-{number}"

    def handed(self, number: int) -> Path:
        return self.path / f"handed-{number}.json"

    def reply_body(self, job_id: JobId) -> Path:
        return self.path / f"reply-{job_id}.bin"

    def leases(self) -> int:
        """How many pilots have had it. Raises Damaged."""
        found = [match for name in folder.names_in(self.path) if (match := _OF_A_LEASE.fullmatch(name))]
        return max((int(match[1]) for match in found), default=0)

    def __repr__(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"


PILOT = "pilot-"
"""How a pilot's id begins; a job's has only hexadecimal digits."""


def crew_of(jobs: JobsFolder) -> Path:
    return jobs.pilots / "crew"


def crew(jobs: JobsFolder) -> list[JobFolder]:
    """The folders of all pilots that are not put away yet, oldest first. Raises Damaged."""
    return [JobFolder(crew_of(jobs) / name) for name in folder.names_in(crew_of(jobs)) if name.startswith(PILOT)]


def pilot_folder(jobs: JobsFolder, name: str) -> Optional[JobFolder]:
    """None for what is no pilot's id."""
    return JobFolder(crew_of(jobs) / name) if name.startswith(PILOT) else None


def pilot_file(pilot: JobFolder) -> Path:
    return pilot.path / "pilot.json"


# --- claiming


def add(pool: Pool, claimed: Sequence[Claimed], now: float) -> Batch:
    """After the return, these jobs survive a power failure: three syncs, however many they are. Raises OSError."""
    name = f"{time.strftime('%Y%m%d%H%M%S', time.gmtime(now))}-{secrets.token_hex(4)}.{len(claimed)}"
    aside = Batch(pool.new / name)
    folder.make_folder(aside.path)
    with open(os.open(aside.jobs, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        for each in claimed:
            file.write(_claimed_line(each))
        file.flush()
        os.fsync(file.fileno())
    folder.sync_folder(aside.path)
    return move(aside, pool.todo / name)


def move(batch: Batch, to: Path) -> Batch:
    """Raises FileNotFoundError where somebody else was quicker."""
    folder.passing(f"before batch to {to.parent.name}")
    os.rename(batch.path, to)
    folder.sync_folder(to.parent)
    folder.sync_folder(batch.path.parent)
    folder.passing(f"after batch to {to.parent.name}")
    return Batch(to)


def sync_places(pool: Pool) -> bool:
    """Whoever claimed a batch may have been killed before its name was on disk. Returns True."""
    for place in (pool.todo, pool.locked, pool.ended):
        if place.is_dir():
            folder.sync_folder(place)
    return True


def remove_half_made(pool: Pool) -> None:
    """What a pass that was killed had not yet claimed: its messages were never acked."""
    for batch in pool.batches(pool.new):
        shutil.rmtree(batch.path, ignore_errors=True)


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
    content = folder.contents(batch.jobs, LARGEST)
    if content is None:
        if batch.path.is_dir():
            raise Damaged(f"{batch.jobs} is gone")
        if os.path.lexists(batch.path):
            raise Damaged(f"{batch.path} is not a folder")
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(batch.jobs))
    try:
        found = [_claimed(json.loads(line)) for line in content.split(b"\n")[:-1]]
    except _NOT_WRITTEN as error:
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


# --- what became of them


@dataclass(frozen=True)
class Came:
    """What a job came to in a pilot. Without a reply it is not the job's end: it goes on as a folder of its own."""

    result: Result
    reply: Optional[Reply]
    body_file: str = ""
    """Where the reply's body lies, if it is too large for the journal."""


@dataclass
class Progress:
    """All that a batch's journals say. `upto`: jobs before this place may have been started."""

    upto: int = 0
    started: dict[str, float] = field(default_factory=dict)
    came: dict[str, Came] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    handed: set[str] = field(default_factory=set)


def read_progress(batch: Batch) -> Progress:
    """Raises Damaged, also where an answer was sent of which the journals say nothing: they have lost more, then."""
    progress = Progress()
    for number in range(1, batch.leases() + 1):
        try:
            for line in _whole_lines(batch.journal(number)):
                _add_line(progress, line)
            sent = folder.contents(batch.sent(number), LARGEST) or b""
            progress.sent.update(sent.decode("ascii", "replace").split("\n")[:-1])
        except _NOT_WRITTEN as error:
            raise Damaged(f"{batch.journal(number)} is not what was written there ({error!s:.200})") from None
        if not progress.sent <= set(progress.came):
            raise Damaged(
                f"{batch.journal(number)} lacks jobs whose answers were sent, as {batch.sent(number).name} says"
            )
        handed = folder.read(Handed, batch.handed(number))
        if handed is not None:
            progress.handed.update(handed.jobs)
    return progress


def _add_line(progress: Progress, line: Mapping[str, Any]) -> None:
    if "upto" in line:
        progress.upto = max(progress.upto, from_json(int, line["upto"]))
    elif "start" in line:
        progress.started[line["start"]] = from_json(float, line["at"])
    else:
        reply = None if line["reply"] is None else _reply(line["reply"])
        body_file = from_json(NameIfAny, line.get("body_file", ""))
        progress.came.setdefault(line["id"], Came(from_json(Result, line["result"]), reply, body_file))


def _whole_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """A line that was cut off was never synced, so nothing followed from it; one in the midst of others was. Raises
    Damaged."""
    content = folder.contents(path, LARGEST)
    if content is None:
        raise Damaged(f"{path} is gone")
    lines = content.split(b"\n")[:-1]
    for number, line in enumerate(lines):
        try:
            found = json.loads(line)
        except ValueError:
            if any(each.startswith(b'{"') and each.endswith(b"}") for each in lines[number + 1 :]):
                raise Damaged(f"{path} is not what was written there (line {number + 1})") from None
            return
        yield found


class Journal:
    """What one lease writes. Nothing is on disk before `sync()`."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        number = batch.leases() + 1
        self._file = os.open(batch.journal(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._sent = os.open(batch.sent(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        folder.sync_folder(batch.path)
        self._lines: list[bytes] = []

    def may_start(self, upto: int) -> None:
        """From the next sync on, those before this place may have been started, also where the node fails."""
        self._lines.append(b'{"upto":%d}\n' % upto)

    def started(self, job_id: JobId, at: float) -> None:
        """Outlives this process at once."""
        self._append(b'{"start":"%s","at":%.3f}\n' % (job_id.encode(), at))

    def came(self, job_id: JobId, came: Came) -> None:
        line: dict[str, Any] = {"id": job_id, "result": _plain(came.result), "reply": None}
        if came.reply is not None:
            line["reply"] = {**to_json(vars(came.reply)), "body": came.reply.body.decode()}
        if came.body_file:
            line["body_file"] = came.body_file
        self._lines.append(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def sync(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            self._append(b"".join(lines))
            os.fsync(self._file)

    def _append(self, data: bytes) -> None:
        """Raises OSError; then nothing may follow, because it would stand after half a line."""
        if os.write(self._file, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sent(self, job_ids: Iterable[str]) -> None:
        """Not synced: where this gets lost, an equal answer is sent once more."""
        os.write(self._sent, "".join(f"{each}\n" for each in job_ids).encode())

    def close(self) -> None:
        os.fsync(self._sent)
        os.close(self._file)
        os.close(self._sent)


def _plain(result: Result) -> Any:
    outputs = {name: vars(output) for name, output in result.outputs.items()}
    said = {**vars(result), "outputs": outputs, "used": vars(result.used) if result.used else None}
    return {name: value for name, value in said.items() if value is not None and value != "" and value != {}}


def _reply(line: Mapping[str, Any]) -> Reply:
    known = {**line, "body": line["body"].encode(), "correlation_id": _text(line["correlation_id"])}
    return Reply(**known)


def _text(value: Any) -> Union[str, bytes, None]:
    text: Union[str, bytes, None] = from_json(bytes, value) if isinstance(value, dict) else value
    return text


def keep_body(batch: Batch, job_id: JobId, body: bytes) -> str:
    """Where a body is kept that is too large for the journal; "" for one that is not. Raises OSError."""
    if len(body) <= _INLINE:
        return ""
    path = batch.reply_body(job_id)
    folder.write_bytes(path, body)
    return path.name
