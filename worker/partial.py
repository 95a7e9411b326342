"""An input on its way: what of it is here, how the rest is asked for, and how much room all inputs of a job have."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Optional

from .content import Range
from .errors import StepFailed, Transient
from .job import sentences
from .job.spec import Input


class Stopped(Exception):
    """Nobody waits for the inputs any longer."""


class Room:
    """What the inputs of one job may take together, of what a job may bring and of the disk below `folder`; for several
    threads. `most`, `came`: bytes."""

    def __init__(self, most: int, folder: Path) -> None:
        self.most, self.came = most, 0
        self._folder = folder
        self._expected: dict[str, int] = {}
        """By input: what is known to follow."""
        self._stopped = False
        self._lock = threading.Lock()

    def expect(self, name: str, size: int) -> None:
        """Before the first of `size` bytes comes. Raises StepFailed where there is no room for them, and OSError."""
        disk = os.statvfs(self._folder)
        with self._lock:
            self._expected.pop(name, None)
            in_all = size + sum(self._expected.values())
            if self.came + in_all > self.most:
                raise too_large(name)
            free = disk.f_bavail * disk.f_frsize
            if in_all > free:
                raise StepFailed("fetch", sentences.no_room_for_input(name, size, free), may_work_again=True)
            self._expected[name] = size

    def take(self, name: str, size: int) -> None:
        """For bytes that have come. Raises StepFailed, and Stopped."""
        with self._lock:
            self.go_on()
            self.came += size
            self._expected[name] = max(0, self._expected.get(name, 0) - size)
            if self.came > self.most:
                raise too_large(name)

    def give_back(self, size: int) -> None:
        with self._lock:
            self.came -= size

    def stop(self) -> None:
        """Whoever is about to take some is told."""
        with self._lock:
            self._stopped = True

    def open(self, path: Path, mode: str) -> BinaryIO:
        """Raises OSError, and Stopped: then somebody else may use that place already."""
        with self._lock:
            self.go_on()
            return open(path, mode)  # type: ignore[return-value]

    def go_on(self) -> None:
        """Raises Stopped where nobody waits any longer."""
        if self._stopped:
            raise Stopped


class Partial:
    """One input, in as many goes as it takes. `size`: bytes that are here; `furthest`: the most that ever were."""

    def __init__(self, name: str, source: Input, target: Path, room: Room) -> None:
        self.name, self.source, self.target, self.room = name, source, target, room
        self.size = self.furthest = 0
        self._total: Optional[int] = None
        self._validator = ""
        self._resumed = False
        self._digest = hashlib.sha256()

    @property
    def asks(self) -> dict[str, str]:
        """The headers that ask for the rest: nothing where all of it has to come."""
        if not self.size or not self._validator:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self._validator}

    @property
    def is_whole(self) -> bool:
        """Whether nothing more need be asked for: it was cut off after its last byte."""
        return bool(self.asks) and self.size == self._total

    def begin(self, total: Optional[int], validator: str) -> None:
        """From its first byte. `total`: its size, where that is known before. Raises StepFailed, and OSError."""
        self.room.give_back(self.size)
        self.size, self._total, self._validator, self._resumed = 0, total, validator, False
        self._digest = hashlib.sha256()
        said = self.source.size
        if said is not None and total is not None and said != total:
            raise StepFailed("fetch", sentences.another_size(self.name, total, said))
        self._expect(total if said is None else said)

    def go_on(self, part: Optional[Range]) -> None:
        """With the part that comes. Raises Transient where it is not the one that was asked for."""
        if part is None or part.first != self.size or part.total not in (None, self._total or part.total):
            self.forget()
            raise Transient("another part came than the one that was asked for")
        self._resumed, self._total = True, part.total or self._total
        self._expect(self._total)

    def fits(self, tags: Sequence[str]) -> bool:
        """Whether a part is of the version that is here, where it says of which it is: not every server heeds If-Range."""
        return not tags or not self._validator.startswith('"') or list(tags) == [self._validator]

    def nothing_follows(self, part: Optional[Range]) -> None:
        """The server says that nothing begins where we are: no fault where that is the end. Raises Transient."""
        if part is None or part.total != self.size:
            self.forget()
            raise Transient("the rest of it does not begin where it was cut off")
        self._total = self.size

    def forget(self) -> None:
        """The next go begins anew."""
        self._validator = ""

    def write(self, file: BinaryIO, piece: bytes) -> None:
        """Raises StepFailed, Stopped, and OSError."""
        self.room.take(self.name, len(piece))
        self.size += len(piece)
        self.furthest = max(self.furthest, self.size)
        if self.source.size is not None and self.size > self.source.size:
            raise StepFailed("fetch", sentences.another_size(self.name, None, self.source.size))
        if self.source.sha256:
            self._digest.update(piece)
        file.write(piece)

    def open(self) -> BinaryIO:
        """Where the next piece belongs. Raises OSError, and Stopped."""
        if not self.size:
            return self.room.open(self.target, "wb")
        file = self.room.open(self.target, "r+b")
        file.seek(self.size)
        return file

    def check(self) -> None:
        """After its last piece. Raises StepFailed where it is whole and still not what the message said, and Transient."""
        if self._total is not None and self.size != self._total:
            raise Transient(f"the answer was cut off after {self.size} of {self._total} bytes")
        if self.source.size not in (None, self.size):
            raise StepFailed("fetch", sentences.another_size(self.name, self.size, self.source.size or 0))
        if not self.source.sha256 or self._digest.hexdigest() == self.source.sha256:
            return
        if self._resumed:  # the parts may be of two versions, whatever its server says
            self.forget()
            raise Transient("its parts do not fit together")
        raise StepFailed("fetch", sentences.another_digest(self.name))

    def _expect(self, total: Optional[int]) -> None:
        if total is not None:
            self.room.expect(self.name, total - self.size)


def too_large(name: str) -> StepFailed:
    return StepFailed("fetch", f'The input "{name}" is larger than what one job may bring.')
