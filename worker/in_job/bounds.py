"""How much code that a job brings along may take while it runs: bytes, files, processes. Looked at a few times a second; what
is over ends the program, with a sentence."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

from ..job import sentences
from ..settings import OwnCode
from .processes import below, processes

log = logging.getLogger(__name__)

_EVERY = 0.3
"""Seconds."""
_HIDDEN = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
"""What is said of folders that their maker has closed, or put so deep one in the other that no path leads there: whatever lies
there is not counted, so that it could be anything."""


class _Hidden(Exception):
    """Nobody can tell how much is there."""


class Bounds:
    """`broken`: the sentence, once one was."""

    def __init__(self, places: Sequence[Path], rules: OwnCode) -> None:
        self._places, self._rules = places, rules
        self.broken = ""

    @contextlib.contextmanager
    def watch(self, pid: int) -> Iterator[None]:
        """While the block runs, what this process and those below it take."""
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(pid, over), name="bounds", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def look(self) -> None:
        """At what it has left, once it has ended."""
        self.broken = self.broken or self._files()

    def _watch(self, pid: int, over: threading.Event) -> None:
        while not over.wait(_EVERY):
            self.broken = self._processes(pid) or self._files()
            if self.broken:
                log.warning("out of bounds, ended why=%r", self.broken)
                _kill(pid)
                return

    def _processes(self, pid: int) -> str:
        most = self._rules.most_processes
        return sentences.too_many("processes", most) if sum(threads for _, threads in below(pid)) > most else ""

    def _files(self) -> str:
        try:
            files, size = used(self._places, self._rules.work_files)
        except _Hidden:
            return sentences.hidden_files()
        if files > self._rules.work_files:
            return sentences.too_many("files", self._rules.work_files)
        return sentences.too_many("bytes in its files", self._rules.work_bytes) if size > self._rules.work_bytes else ""


def limits(rules: OwnCode) -> list[str]:
    """Words to put before a command: what the kernel holds it to at once, where a look would come too late, a fork bomb and
    one large file. Root's processes it does not count, and before Linux 5.14 it counts this user's outside of the sandbox
    too. Nothing where the node has no prlimit(1)."""
    program = shutil.which("prlimit", path="/usr/bin:/bin")
    if program is None:
        return []
    ours = sum(int(fields[17]) for each, fields in processes() if _is_ours(each))
    most = {
        "nproc": (resource.RLIMIT_NPROC, ours + 2 * rules.most_processes),
        "fsize": (resource.RLIMIT_FSIZE, rules.work_bytes),
        "core": (resource.RLIMIT_CORE, 0),
    }
    return [program, *(f"--{name}={_lower(what, value)}" for name, (what, value) in most.items()), "--"]


def _lower(what: int, most: int) -> int:
    """A limit may not be raised."""
    before = resource.getrlimit(what)[1]
    return most if before == resource.RLIM_INFINITY else min(most, before)


def _is_ours(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}").st_uid == os.getuid()
    return False


def used(places: Sequence[Path], most: int) -> tuple[int, int]:
    """How many files are there, and how many bytes of the disk they take; not counted on once there are more than `most`.
    Raises _Hidden."""
    files, size, seen = 0, 0, set[tuple[int, int]]()
    left = [str(place) for place in places]
    while left and files <= most:
        with _unless_it_is_hidden, os.scandir(left.pop()) as entries:
            for entry in entries:
                files += 1
                with _unless_it_is_hidden:
                    found = entry.stat(follow_symlinks=False)
                    if found.st_nlink > 1 and (found.st_dev, found.st_ino) in seen:
                        continue
                    seen.add((found.st_dev, found.st_ino))
                    size += found.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                if files > most:
                    break
    return files, size


class _UnlessItIsHidden:
    """Passes over what is gone by now, or changes at the same time. A class, because it is entered for each file."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: Optional[BaseException], traceback: object) -> bool:
        if isinstance(error, OSError) and error.errno in _HIDDEN:
            raise _Hidden from None
        return isinstance(error, OSError)


_unless_it_is_hidden = _UnlessItIsHidden()


def _kill(pid: int) -> None:
    """Those right below first: the first process of a namespace takes all others in it along."""
    children = [child for child, _ in below(pid)]
    for each in (*children[:2], pid, *children[2:]):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(each, signal.SIGKILL)
