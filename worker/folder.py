"""The job folder: every file name, every durable write. Facts are files, each written once, whole, by one side.

Two ways to write, and nothing else is relied on (both hold on NFS and Lustre):
- `write`: aside, fsync, rename, fsync the folder. For facts that only one side writes.
- `claim_name`: aside, fsync, link to the final name. For exclusive facts: of several writers, one wins.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import functools
import heapq
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Callable, NewType, Optional, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import Damaged

_NUMBER = re.compile(r"[1-9][0-9]{0,5}")
_LARGEST_FACT = 1 << 32
"""Bytes. A message is kept up to limits.message_bytes, half a GiB at the most, and in JSON a byte may take six."""
_IN_ITS_PLACE = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM, errno.ENODEV)
"""Errors that tell of something else in a file's place. Any other one is the disk being away, and says nothing."""
JobId = NewType("JobId", str)
Fact = TypeVar("Fact")
Found = TypeVar("Found")


def is_number(name: str) -> bool:
    """Whether this is how we call an attempt."""
    return _NUMBER.fullmatch(name) is not None


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


_JSON = json.JSONDecoder(parse_constant=_no_number)
_LARGEST_INT = 2**64
_LARGEST_FLOAT = 2.5e11
"""No time of ours lies beyond the year 9900, and no integer in a message beyond 64 bits. What is larger would fail only
where it is counted with."""


def passing(step: str) -> None:
    """Every durable step passes here, before and after. Does nothing; tests of crashes replace it."""


# --- the folders


class AttemptFolder:
    """`attempts/<n>/`: one try at running the job."""

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.number = number
        self.intent = path / "intent.json"
        self.submission = path / "submission.json"
        self.token = path / "token"
        self.started = path / "started.json"
        self.begun = path / "begun.json"
        self.log = path / "job.log"
        self.slurm_log = path / "slurm.log"
        self.work = path / "work"
        self.outputs = path / "outputs"
        self.result = path / "result.json"
        self.late_result = path / "late_result.json"
        self.verdict = path / "verdict.json"
        self.ended = path / "ended.json"
        self.absent = path / "absent.json"
        self.stuck = path / "stuck.json"
        self.cancel = path / "cancel.json"
        self.unfit = path / "unfit.json"
        self.progress = path / "progress.json"
        self.kept = path / "kept.json"

    def intent_of(self, submission: int) -> Path:
        """Of the first submission, or of one that followed where an earlier one was declined."""
        return self.intent if submission == 1 else self.path / f"intent-{submission}.json"

    def declined(self, submission: int) -> Path:
        return self.path / f"declined-{submission}.json"

    def reply_body(self, stem: str) -> Path:
        return self.path / f"{stem}.bin"

    def reply_properties(self, stem: str) -> Path:
        return self.path / f"{stem}.json"


class JobFolder:
    """One job: `jobs/active/<job id>/`, later in done, rejected or undelivered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = JobId(path.name)
        self.message = path / "message.json"
        self.acked = path / "acked.json"
        self.spec = path / "spec.json"
        self.outcome = path / "outcome.json"
        self.delivered = path / "delivered.json"
        self.unroutable = path / "unroutable.json"
        self.undeliverable = path / "undeliverable.json"
        self.attempts = path / "attempts"
        self.cancel_asked = path / "cancel_asked.json"
        self.retry_asked = path / "retry_asked.json"
        self.origin = path / "origin.json"
        self.held = path / "held.json"

    def attempt(self, number: int) -> AttemptFolder:
        return AttemptFolder(self.attempts / str(number), number)

    def again(self, number: int) -> Path:
        return self.path / f"again-{number}.json"

    def attempt_numbers(self) -> list[int]:
        """Raises Damaged."""
        return sorted(int(name) for name in names_in(self.attempts) if is_number(name))


class JobsFolder:
    """`jobs/`: where all jobs live."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.active = path / "active"
        self.done = path / "done"
        self.rejected = path / "rejected"
        self.undelivered = path / "undelivered"
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

    def prepare(self) -> None:
        """Makes the folders; 0700, because they hold tokens and other people's data. Raises OSError."""
        for folder in (self.path, self.active, self.done, self.rejected, self.undelivered, self.groups):
            if not folder.is_dir():  # their names are synced with the mark, which a first pass that was killed lacks
                make_folder(folder)
        if not self.news.is_dir():
            if os.path.lexists(self.news):
                put_aside(self.news)
            make_folder(self.news)

    def job(self, job_id: JobId) -> JobFolder:
        return JobFolder(self.active / job_id)

    def active_jobs(self) -> Iterator[JobFolder]:
        """In order of their ids; the caller sorts by what matters."""
        for name in self.active_names():
            yield JobFolder(self.active / name)

    def active_names(self) -> list[str]:
        """What begins with a dot is no job: a network file system leaves such files where one was deleted in use."""
        return sorted(name for name in os.listdir(self.active) if not name.startswith("."))

    def ring(self, job_id: JobId) -> None:
        """Tells the login side that there is something new about a job. A hint, not a fact: it may be lost."""
        with contextlib.suppress(OSError):
            (self.news / job_id).touch(mode=0o600)

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
                remove_tree(self.news / name)  # what is no bell would ring for ever
        return frozenset(called)

    def find(self, job_id: JobId) -> Optional[JobFolder]:
        """A job that was claimed before, wherever it is now."""
        days = sorted(self.done.iterdir(), reverse=True) if is_folder(self.done) else []
        for place in (self.active, self.rejected, self.undelivered, *days):
            if is_there(place / job_id / "message.json"):
                return JobFolder(place / job_id)
        return None

    def group(self, group: str) -> Path:
        return self.groups / f"{group}.json"

    def group_log(self, group: str) -> Path:
        return self.groups / f"{group}.log"


# --- reading and writing


def read(kind: type[Fact], path: Path) -> Optional[Fact]:
    """The fact in this file, or None if there is none. Raises Damaged, and OSError where the disk is away."""
    content = contents(path)
    if content is None:
        return None
    try:
        fact: Fact = from_json(kind, _JSON.decode(content.decode("utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise Damaged(f"{path} is not what was written there ({_short(error)})") from None
    return fact


def contents(path: Path, most: int = _LARGEST_FACT) -> Optional[bytes]:
    """What is in this file, or None if there is none; whatever stands in its place, nobody waits for it. Raises Damaged,
    and OSError where the disk is away."""
    return _opened_anew(lambda: _contents(path, most))


_OPENED = 4
"""Times. A fact is replaced once in seconds, and each opening asks the server."""


def _opened_anew(look: Callable[[], Found]) -> Found:
    """A file that is replaced while it is open here may say ESTALE (seen 12 times in 2,557 with NFS 3, 2 in 3,547 with
    GlusterFS): by its name, the new one is found."""
    for _ in range(_OPENED - 1):
        try:
            return look()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return look()


def _contents(path: Path, most: int) -> Optional[bytes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if path.is_symlink():
            raise Damaged(f"{path} is a symbolic link that leads nowhere") from None
        return None
    except OSError as error:
        if error.errno not in _IN_ITS_PLACE:
            raise
        raise Damaged(f"{path} can't be read ({error.strerror})") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Damaged(f"{path} is not a file")
        if found.st_size > most:
            raise Damaged(f"{path} is too large to be what was written there ({found.st_size} bytes)")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
GONE = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)
"""What a file server says of a name below a folder that was renamed away."""


def is_there(path: Path) -> bool:
    """Whether anything has this name, a link that leads nowhere too. Raises OSError where the disk does not say. Of a disk
    that is away `os.path.lexists` says "no", and so does `Path.exists` from Python 3.14 on: a job would be claimed twice."""
    return _found(os.lstat, path) is not None


def is_folder(path: Path) -> bool:
    """The same for `Path.is_dir`."""
    found = _found(os.stat, path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def opens(path: Path) -> bool:
    """The same, opened: a network file system then asks its server where it asks at all."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in GONE:
            return False
        raise
    return True


def _found(look: Callable[[Path], os.stat_result], path: Path) -> Optional[os.stat_result]:
    try:
        return look(path)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        return None


def names_in(path: Path) -> list[str]:
    """What is in this folder, in order; nothing, if there is none. Raises Damaged, and OSError where the disk is away."""
    try:
        return _opened_anew(lambda: sorted(os.listdir(path)))
    except FileNotFoundError:
        if path.is_symlink():
            raise Damaged(f"{path} is a symbolic link that leads nowhere") from None
        return []
    except OSError as error:
        if error.errno not in _IN_ITS_PLACE:
            raise
        raise Damaged(f"{path} is not a folder that can be read ({error.strerror})") from None


def look_anew(path: Path) -> None:
    """After this, what is listed and opened in this folder is what its file server has, and not what was looked up here
    before: on a network, a name that was absent once may stay hidden until the folder changes, so we change it. Nothing
    where there is no such folder."""
    probe = path / f".look.{secrets.token_hex(4)}"
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(probe)
        os.listdir(path)


def _short(error: Exception) -> str:
    """It may quote all of what it found."""
    words = str(error)
    return words if len(words) <= 200 else f"{words[:200]}..."


def write_bytes(path: Path, data: bytes, durable: bool = True) -> None:
    """The same as `write`, for a file that is not JSON. `durable`: whether it has to survive a power failure."""
    with _aside(path, data, durable) as temporary:
        _rename(temporary, path, durable)


def claim_name(path: Path, fact: Fact) -> bool:
    """Writes an exclusive fact; False if another writer was first. Raises OSError."""
    with _aside(path, _to_bytes(fact)) as temporary:
        return claim_link(temporary, path)


def claim_link(existing: Path, path: Path) -> bool:
    """An exclusive fact that says what another one says, which is on disk: one link and one sync. False if another writer was
    first. Raises OSError; after that it may stand all the same, and is ours when it is asked for again."""
    passing(f"before {path.name}")
    first = link_first(existing, path)
    sync_folder(path.parent)  # also where another one was first: he may have been killed before this
    if first:
        passing(f"after {path.name}")
    return first


def link_first(existing: Path, path: Path) -> bool:
    """The link alone, which a power failure may take away. False if another writer was first. Raises OSError.

    A link may succeed on the server although the answer was lost and the repetition says EEXIST (NFS), so whoever is
    told "exists" looks whose it is: the existing file and the final name are then the same file.
    """
    try:
        os.link(existing, path)
    except FileExistsError:
        return os.path.samestat(os.lstat(existing), os.lstat(path))
    return True


@contextlib.contextmanager
def prepared(path: Path, fact: object, at: Optional[float] = None) -> Iterator[Callable[[], None]]:
    """For a fact that must not fail any more once something has happened: on disk already when the block begins, it
    gets its name by calling what the block is given, which needs no space. `at`: when it says that it was written."""
    with _aside(path, _to_bytes(fact)) as temporary:
        if at is not None:
            os.utime(temporary, (at, at))
        yield lambda: _rename(temporary, path)


def _rename(temporary: Path, path: Path, durable: bool = True) -> None:
    passing(f"before {path.name}")
    os.rename(temporary, path)
    if durable:
        sync_folder(path.parent)
    passing(f"after {path.name}")


def write(path: Path, fact: object) -> None:
    """Writes a fact that only we write. After the return it survives a power failure. Raises OSError."""
    with prepared(path, fact) as commit:
        commit()


def put_aside(path: Path) -> Path:
    """Takes whatever stands in the place of a file that may be lost out of the way, for people to look at."""
    aside = path.with_name(f".{path.name}.damaged-{secrets.token_hex(2)}")
    with contextlib.suppress(OSError):
        os.rename(path, aside)
    return aside


def write_note(path: Path, content: str) -> None:
    """A file that may be lost: neither synced nor missed. Raises OSError."""
    aside = path.with_name(f".{path.name}.{os.getpid():08d}")
    aside.write_text(content)
    try:
        os.replace(aside, path)
    except IsADirectoryError:
        put_aside(path)
        os.replace(aside, path)


def remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        try:
            path.unlink()
        except IsADirectoryError:
            put_aside(path)


def make_folder(path: Path) -> None:
    """Makes a folder (and those above it) that survives a power failure. An empty one may be of somebody who was killed
    right after he made it."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)
    elif _is_empty(path):
        sync_folder(path.parent)


def _is_empty(path: Path) -> bool:
    with os.scandir(path) as entries:
        return next(entries, None) is None


def move_job(job: JobFolder, place: Path) -> None:
    """Moves a job's folder out of active. A second copy of the move finds nothing to do."""
    make_folder(place)
    passing(f"before move to {place.name}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(job.path, place / job.id)
    sync_folder(place)
    sync_folder(job.path.parent)
    passing(f"after move to {place.name}")


def bring_back(job: JobFolder, jobs: JobsFolder) -> JobFolder:
    """Makes a job active again. Until its last fact is removed too, the next pass would only put it away again."""
    move_job(job, jobs.active)
    return jobs.job(job.id)


@contextlib.contextmanager
def brought_in(jobs: JobsFolder, job_id: JobId) -> Iterator[JobFolder]:
    """A folder to be filled, which becomes the active job `job_id` when the block ends: whole, or not at all. Raises
    OSError where that job exists."""
    aside = jobs.new / f"{job_id}.{secrets.token_hex(4)}"
    make_folder(aside)
    try:
        yield JobFolder(aside)
        passing("before move to active")
        os.rename(aside, jobs.active / job_id)
        sync_folder(jobs.active)
        passing("after move to active")
    finally:
        remove_tree(aside)


def remove_unclaimed(job: JobFolder) -> None:
    """A folder that never got its message, unless it gets it at this moment."""
    remove_half_written(job.path)
    remove_tree(job.attempts)  # of a worker that was cut off, and came back when its job had been put away
    with contextlib.suppress(OSError):
        job.path.rmdir()


def remove_half_written(path: Path, name: str = "", before: float = math.inf) -> None:
    """What writers left aside that were killed; of the file `name`, or of all files in this folder. `before`: only what was
    written until then, by the file server's clock."""
    for leftover in path.glob(f".{name}*.????????"):
        with contextlib.suppress(OSError):
            if leftover.lstat().st_mtime < before:
                remove(leftover)


def keep_files(source: Path, target: Path, most_bytes: int, declared: Collection[str] = ()) -> None:
    """Moves the plain files of a folder as long as they fit into `most_bytes`, at most a thousand: `declared` ones first,
    then the smallest. Never fails: it is done for people who may want to look."""
    with contextlib.suppress(OSError):
        if not stat.S_ISDIR(source.lstat().st_mode):
            return  # a link may lead to files that are not the job's
        inside = names_of_files(source)
        files = [(name not in declared, size, name) for name, size in _plain_files(source, inside)]
        for _, size, name in heapq.nsmallest(_MOST_KEPT, files):
            if size > most_bytes:
                continue
            most_bytes -= size
            make_folder(target)
            try:
                shutil.move(str(source / name), str(target / name))
            except OSError:
                remove(target / name)  # half a copy would take the room that facts need
                return


_MOST_KEPT = 1000


def names_of_files(place: Path) -> Counter[tuple[int, int]]:
    """How many names each file has below this folder (device and inode). A file with more names (st_nlink) has others
    outside: a hard link may have been made to any file of this user."""
    found: Counter[tuple[int, int]] = Counter()
    for parent, _, names in os.walk(place):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(parent, name))
                found[status.st_dev, status.st_ino] += 1
    return found


def _plain_files(place: Path, inside: Counter[tuple[int, int]]) -> Iterator[tuple[str, int]]:
    with os.scandir(place) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and status.st_nlink <= inside[status.st_dev, status.st_ino]:
                yield entry.name, status.st_size


def remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _aside(path: Path, data: bytes, durable: bool = True) -> Iterator[Path]:
    """A temporary file beside `path` with this content on disk; gone afterwards, unless it was renamed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        yield temporary
    finally:
        remove(temporary)


def _to_bytes(fact: object) -> bytes:
    assert is_dataclass(fact) and not isinstance(fact, type)
    return (json.dumps(to_json(asdict(fact)), indent=1) + "\n").encode()


def to_json(value: Any) -> Any:
    """Bytes are tagged, so that they come back as bytes."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {key: to_json(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(inner) for inner in value]
    return value


def from_json(kind: Any, value: Any) -> Any:
    """The reverse, led by the dataclass's own annotations. Unknown keys are a newer version's, and are passed over."""
    if kind is Any or (kind is type(value) and kind not in (int, float)):
        return value
    if is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise ValueError(f"{value!r} is no object")
        return kind(**{name: from_json(of, value[name]) for name, of in _fields(kind) if name in value})
    origin, of = get_origin(kind), get_args(kind)
    if origin is Annotated:
        word = from_json(of[0], value)
        of[1].check(word)
        return word
    if origin is Union:
        return _from_json_union(of, value)
    if origin is tuple:
        inner = of[:1] * len(value) if len(of) == 2 and of[1] is ... else of
        if not isinstance(value, list) or len(inner) != len(value):
            raise ValueError(f"{value!r} is no list of {len(inner)}")
        return tuple(from_json(k, v) for k, v in zip(inner, value))
    if origin is not None and issubclass(origin, Mapping):
        return {key: from_json(of[1], inner) for key, inner in value.items()}
    if kind is bytes:
        return base64.b64decode(value["base64"], validate=True)
    if isinstance(kind, type) and not isinstance(value, (kind, int) if kind is float else kind):
        raise ValueError(f"{value!r} is no {kind.__name__}")
    most = {int: _LARGEST_INT, float: _LARGEST_FLOAT}.get(kind)
    if most is not None and not -most < value < most:
        raise ValueError(f"{value!r} is too large a number")
    return value


@functools.cache
def _fields(kind: Any) -> tuple[tuple[str, Any], ...]:
    """To work them out takes ten times as long as to read a fact."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple((field.name, hints[field.name]) for field in fields(kind))


def _from_json_union(kinds: tuple[Any, ...], value: Any) -> Any:
    if value is None and type(None) in kinds:
        return None
    if isinstance(value, dict) and bytes in kinds:
        return from_json(bytes, value)
    if isinstance(value, str) and str in kinds:
        return value
    left = [kind for kind in kinds if kind not in (str, bytes, type(None))]
    if not left:
        raise ValueError(f"{value!r} is of the wrong type")
    return from_json(left[0], value)
