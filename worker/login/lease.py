"""One pass at a time, across login nodes: a lease file that its holder renews and that others ignore once it is old.

It saves work; correctness never depends on it. All ages are differences of file times on the same server, so clocks of
login nodes do not matter. Passes on one host are kept apart earlier, by `run_check`'s flock.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..errors import Damaged
from ..folder import paths

_RELEASED = 0o400
"""The mode of a lease whose pass has ended: a mark that costs no write."""
_LARGEST_PID = 2**31


class Held(Exception):
    """Another pass holds the lease. The text says who."""


class Lost(Exception):
    """Another pass took our lease over: this one must stop before its next sbatch or publish."""


@dataclass(frozen=True)
class _Holder:
    host: str
    pid: int
    began: str = ""
    """When its process began: a number that was given to another program says nothing."""


class Lease:
    """Held while a pass runs. `server_now` is the file server's clock at the last renewal."""

    def __init__(self, path: Path, file: int) -> None:
        self._path = path
        self._file = file
        self.server_now = os.fstat(file).st_mtime

    def check(self) -> None:
        """Renews the lease when that is due. Raises Lost when it is no longer ours."""
        try:
            is_there = os.stat(self._path).st_ino
        except FileNotFoundError:
            is_there = None
        with _lost_if_gone():
            if is_there != os.fstat(self._file).st_ino:
                raise Lost(_TAKEN_OVER)
            os.utime(self._file)
            self.server_now = os.fstat(self._file).st_mtime


_TAKEN_OVER = "another pass took over, because this one was silent for too long"


@contextlib.contextmanager
def _lost_if_gone() -> Iterator[None]:
    """For what is done with the open file. Whoever takes over removes it, and then some file systems say ESTALE (seen with
    NFS 3 and GlusterFS); others keep it for us, under a name of their own."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        raise Lost(_TAKEN_OVER) from None


@contextlib.contextmanager
def hold(path: Path, expires: float, rest: float = 0, beside: Sequence[Path] = ()) -> Iterator[Lease]:
    """Raises Held while a living pass on this or another login node holds it, OSError if the folder can't be written.

    `rest`: seconds after a pass on another login node has ended in which this one does not begin, because what the other
    wrote last may not be visible here yet. `beside`: other folders in which whoever was killed may have left half a file.
    """
    me = _Holder(socket.gethostname(), os.getpid(), began(os.getpid()))
    if not _claim(path, me):
        _take_over(path, me, expires, rest)
        # Younger ones may be another pass's, which is about to lose to this one, or a verb's.
        for place in (path.parent, *beside):
            paths.remove_half_written(place, before=os.lstat(path).st_mtime - expires)
    file = os.open(path, os.O_RDWR)
    try:
        yield Lease(path, file)
    finally:
        # The file stays, so that another login node waits until what this pass wrote can be seen there. Where it can't be
        # marked, another one waits longer; why this pass ended is what has to be told.
        with contextlib.suppress(OSError):
            os.utime(file)
            os.fchmod(file, _RELEASED)
        with contextlib.suppress(OSError):
            os.close(file)


def _take_over(path: Path, me: _Holder, expires: float, rest: float) -> None:
    """Renames the old lease aside, and looks what it was that was moved: somebody else may have been quicker."""
    old, holder = _identity(path), _holder(path)
    released = old is not None and old.mode == _RELEASED
    if holder is not None and not _is_over(holder, me, released):
        if abs(_age(path)) < (rest if released else expires):  # nobody can have written it in the future
            raise Held(f"passes run on {holder.host} (pid {holder.pid})")
    aside = path.with_name(f".{path.name}.{me.host}.{me.pid}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
        if _identity(aside) != old:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
    paths.remove(aside)
    if not _claim(path, me):
        raise Held("another pass took over just now")


def _is_over(holder: _Holder, me: _Holder, released: bool) -> bool:
    """Of a pass on this host, it can be known."""
    if holder.host != me.host:
        return False
    if released:
        return True
    if not 0 < holder.pid < _LARGEST_PID:
        return False  # written by nobody; until it is too old
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return holder.pid == me.pid or (holder.began != "" and holder.began != began(holder.pid) != "")


def _age(path: Path) -> float:
    """By the file server's clock: what a file made now is older by."""
    probe = path.with_name(f".{path.name}.{os.getpid()}.now")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
    finally:
        paths.remove(probe)


@dataclass(frozen=True)
class _Identity:
    """The number of an inode alone may be given anew at once, and a holder that shows life changes the time."""

    inode: int
    time: int
    mode: int


def _identity(path: Path) -> Optional[_Identity]:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return _Identity(found.st_ino, found.st_mtime_ns, stat.S_IMODE(found.st_mode))


def _claim(path: Path, me: _Holder) -> bool:
    """By hand: most passes have nothing to do, and do without the codec."""
    with paths.aside(path, f"{json.dumps(vars(me), indent=1)}\n".encode()) as temporary:
        return paths.claim_link(temporary.path, path)


def _holder(path: Path) -> Optional[_Holder]:
    """None where there is no lease. One that can't be read is somebody's all the same, until it is too old."""
    try:
        content = paths.contents(path)
        if content is None:
            return None
        said = json.loads(content)
        host, pid, since = said["host"], said["pid"], said.get("began", "")
        if isinstance(host, str) and type(pid) is int and isinstance(since, str):
            return _Holder(host, pid, since)
    except (Damaged, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    return _Holder(host="an unknown host", pid=0)


def last_holder(path: Path) -> tuple[str, bool]:
    """The host of the pass that has the lease or had it last, "" where there is none; and whether it may be running. Raises
    OSError."""
    old, holder = _identity(path), _holder(path)
    if old is None or holder is None:
        return "", False
    me = _Holder(socket.gethostname(), os.getpid(), began(os.getpid()))
    released = old.mode == _RELEASED
    return holder.host, not (released if holder.host != me.host else _is_over(holder, me, released))


def began(pid: int) -> str:
    """When this process began, in a form that no other one of this host's has: proc(5). The system gives its number to
    another one when it has ended, or after a reboot. Empty where that can't be told."""
    with contextlib.suppress(OSError, IndexError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path("/proc", str(pid), "stat").read_text(errors="replace").rpartition(")")[2].split()
        return f"{boot} {fields[19]}"
    return ""
