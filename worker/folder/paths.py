"""Names and bytes on disk: what is there, and every durable write.

Two ways to write, and nothing else is relied on (both hold on NFS and Lustre):
- `write_bytes`: aside, fsync, rename, fsync the folder. For what only one side writes.
- `claim_link`: aside, fsync, link to the final name. For what is exclusive: of several writers, one wins.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import math
import os
import re
import secrets
import shutil
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Callable, Optional, TypeVar, Union

from ..errors import Damaged

Found = TypeVar("Found")
_NUMBER = re.compile(r"[1-9][0-9]{0,5}")
_LARGEST_FACT = 1 << 32
"""Bytes. A message is kept up to limits.message_bytes, half a GiB at the most, and in JSON a byte may take six."""
_IN_ITS_PLACE = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM, errno.ENODEV)
"""Errors that tell of something else in a file's place. Any other one is the disk being away, and says nothing."""


def is_number(name: str) -> bool:
    """Whether this is how we call an attempt."""
    return _NUMBER.fullmatch(name) is not None


def crash_point(step: str) -> None:
    """Every durable step passes here, before and after. Does nothing; tests of crashes replace it."""


def contents(path: Path, most: int = _LARGEST_FACT) -> Optional[bytes]:
    """What is in this file, or None if there is none; whatever stands in its place, nobody waits for it. Raises Damaged,
    and OSError where the disk is away."""
    return dated_contents(path, most)[0]


def dated_contents(path: Path, most: int = _LARGEST_FACT) -> tuple[Optional[bytes], float]:
    """The same, and when it was written, by the file server's clock."""
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


def _open(path: Path) -> int:
    """A link that leads nowhere is no file that is not there, and of one that is not there nothing more is asked."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        raise Damaged(f"{path} is a symbolic link that leads nowhere") from None


def _contents(path: Path, most: int) -> tuple[Optional[bytes], float]:
    try:
        descriptor = _open(path)
    except FileNotFoundError:
        return None, 0
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
            return file.read(), found.st_mtime
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


def write_bytes(path: Path, data: bytes, durable: bool = True) -> None:
    """Aside, fsync, rename, fsync the folder: for a file that only one side writes. `durable`: whether it has to survive a
    power failure. Raises OSError."""
    with aside(path, data, durable) as temporary:
        temporary.rename(sync_name=durable)


def claim_link(existing: Path, path: Path) -> bool:
    """Gives a file that is on disk an exclusive name: one link and one sync. False if another writer was first. Raises
    OSError; after that it may stand all the same, and is ours when it is asked for again."""
    crash_point(f"before {path.name}")
    first = link_first(existing, path)
    sync_folder(path.parent)  # also where another one was first: he may have been killed before this
    if first:
        crash_point(f"after {path.name}")
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


def put_aside(path: Path) -> Path:
    """Takes whatever stands in the place of a file that may be lost out of the way, for people to look at."""
    out_of_the_way = path.with_name(f".{path.name}.damaged-{secrets.token_hex(2)}")
    with contextlib.suppress(OSError):
        os.rename(path, out_of_the_way)
    return out_of_the_way


def write_note(path: Path, content: str) -> None:
    """A file that may be lost: neither synced nor missed. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid():08d}")
    temporary.write_text(content)
    try:
        os.replace(temporary, path)
    except IsADirectoryError:
        put_aside(path)
        os.replace(temporary, path)


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


def make_again(path: Path) -> None:
    """For a folder that is there, unless somebody has removed it."""
    try:
        path.mkdir(mode=0o700)
        sync_folder(path.parent)
    except FileExistsError:
        pass
    except FileNotFoundError:
        make_folder(path)


def make_folders(within: Path, *names: str) -> None:
    """The same for folders of which each holds the next, below one that is on disk: without a look at what is there, since
    that costs more."""
    made = [within.joinpath(*names[:count]) for count in range(1, len(names) + 1)]
    for path in made:
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:  # its maker may have been killed before its name was on disk
            if not path.is_dir():
                raise
    for path in reversed(made):
        sync_folder(path.parent)


def _is_empty(path: Path) -> bool:
    with os.scandir(path) as entries:
        return next(entries, None) is None


def remove_half_written(path: Path, name: str = "", before: float = math.inf) -> None:
    """What writers left aside that were killed; of the file `name`, or of all files in this folder. `before`: only what was
    written until then, by the file server's clock."""
    for leftover in path.glob(f".{name}*.????????"):
        with contextlib.suppress(OSError):
            if leftover.lstat().st_mtime < before:
                remove(leftover)


def keep_files(source: Path, target: Path, most_bytes: int, declared: Collection[str] = ()) -> set[str]:
    """Moves the plain files of a folder as long as they fit into `most_bytes`, at most a thousand: `declared` ones first,
    then the smallest; returns the names of those that are kept. Never fails: it is done for people who may want to look."""
    kept: set[str] = set()
    with contextlib.suppress(OSError):
        if not stat.S_ISDIR(source.lstat().st_mode):
            return kept  # a link may lead to files that are not the job's
        inside = names_of_files(source)
        files = [(name not in declared, size, name) for name, size in _plain_files(source, inside)]
        for _, size, name in heapq.nsmallest(_MOST_KEPT, files):
            if size > most_bytes:
                continue
            most_bytes -= size
            make_folder(target)
            try:
                move_file(source / name, target / name)
            except OSError:
                break
            kept.add(name)
    return kept


def move_file(source: Path, target: Path) -> None:
    """Whole or not at all, also to another disk. Not synced. Raises OSError."""
    try:
        os.rename(source, target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:  # half a copy would take the room that facts need
        shutil.copyfile(source, temporary, follow_symlinks=False)
        os.rename(temporary, target)
    finally:
        remove(temporary)
    os.unlink(source)


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
    """As far as that goes. What is no folder stays: shutil.rmtree would open it, and at a fifo wait for a writer (until
    Python 3.12)."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            with contextlib.suppress(RecursionError):
                shutil.rmtree(path, ignore_errors=True)
            _remove_level_by_level(path)


def _remove_level_by_level(path: Path) -> None:
    """What is left: folders that their maker has closed, or thousands of them one in the other, which are moved up. Raises
    OSError."""
    if not os.path.lexists(path):
        return
    path.chmod(0o700)
    while folders := [entry.path for entry in _removed(path)]:
        for folder in folders:
            for inner in _removed(folder):
                os.rename(inner.path, path / f"moved-up-{secrets.token_hex(8)}")
            os.rmdir(folder)
    os.rmdir(path)


def _removed(folder: Union[str, Path]) -> list[os.DirEntry[str]]:
    """The folders in it, open to us; all else is gone."""
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.path, 0o700)
        else:
            os.unlink(entry.path)
    return [entry for entry in found if entry.is_dir(follow_symlinks=False)]


def size_of(folder: Path) -> int:
    """Of all files below it, in bytes; somebody may be removing some at the same time. No link is followed."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            found = file.lstat()
            total += 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return total


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    if path in _kept_open:
        _sync_kept(path)
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_kept_open: dict[Path, Optional[int]] = {}
"""Folders, and their descriptors once they were synced."""


@contextlib.contextmanager
def kept_open(*folders: Path) -> Iterator[None]:
    """Within it each of these folders is opened for its first sync only, because to open one asks the file server."""
    _kept_open.update(dict.fromkeys(folders))
    try:
        yield
    finally:
        for path in folders:
            _let_go(path)
            _kept_open.pop(path, None)


def _sync_kept(path: Path) -> None:
    descriptor = _kept_open[path]
    try:
        if descriptor is None or not _has_a_name(descriptor):  # somebody has removed it, and made another one
            _let_go(path)
            _kept_open[path] = descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(descriptor)
    except OSError:  # perhaps it is this descriptor's alone: the next try asks by name
        _let_go(path)
        raise


def _has_a_name(descriptor: int) -> bool:
    """Not where its file system knows it no more (ESTALE or ENOENT, as it likes): then its name is asked for."""
    try:
        return os.fstat(descriptor).st_nlink > 0
    except OSError:
        return False


def _let_go(path: Path) -> None:
    descriptor = _kept_open.get(path)
    if descriptor is not None:
        _kept_open[path] = None
        os.close(descriptor)


class Aside:
    """A temporary file beside `path`, with its content on disk. `written_at`: when, by the file server's clock."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        self._final, self.moved, self.written_at = path, False, 0.0

    def write(self, data: bytes, durable: bool) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(descriptor)
            self.written_at = os.fstat(descriptor).st_mtime

    def rename(self, sync_name: bool = True) -> None:
        """Gives it its final name."""
        crash_point(f"before {self._final.name}")
        os.rename(self.path, self._final)
        self.moved = True
        if sync_name:
            sync_folder(self._final.parent)
        crash_point(f"after {self._final.name}")


@contextlib.contextmanager
def aside(path: Path, data: bytes, durable: bool = True) -> Iterator[Aside]:
    """Gone afterwards, unless it was renamed."""
    temporary = Aside(path)
    try:
        temporary.write(data, durable)
        yield temporary
    finally:
        if not temporary.moved:
            remove(temporary.path)
