"""Jobs from a folder of JSON files, and answers into its folder `answers`: for who has no broker, and writes files.

A sender writes a file whose name begins with a dot, and renames it to `<name>.json`. It is one job until it is taken away;
written anew, under the same name too, it is another one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from ..errors import Transient, Unroutable
from ..folder import disk, paths
from ..settings import Queue
from . import Properties, QueueFault, Source, Taken

if TYPE_CHECKING:
    from ..job.outcome import Reply

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,180}\.json")
_ACKED = re.compile(r"\.acked-(\d+)-(\d+)-(.+)")
"""A file that is on its way out, with the identity of the one that was claimed."""
_LOOK_AGAIN = 0.2
"""Seconds; a folder tells nobody that it has changed."""


class Spool(Source):
    """A source and a delivery. `folders`: by the queue's name; `keep_bytes`: how much of a file is read, which is more than a
    job may have."""

    def __init__(self, folders: Mapping[str, Path], keep_bytes: int) -> None:
        self._folders = folders
        self._keep_bytes = keep_bytes

    def waiting(self, queue: Queue, make: bool = True) -> int:
        folder = self._folders[queue.name]
        if make and queue.make is not False and not (folder / "answers").is_dir():
            with contextlib.suppress(OSError):  # what is missing then, the look tells
                paths.make_folder(folder / "answers")
        return len(self._names(queue.name)) if make or folder.is_dir() else 0

    def take(self, queue: str, most: int, wait: float) -> list[Taken]:
        self.listen([queue], wait)
        found: list[Taken] = []
        names = self._names(queue)
        for name in names:
            taken = self._read(queue, name) if len(found) < most else None
            found += [taken] if taken else []
        if names and not found:
            holds = f"holds {names[0]}, which is no file that may be read"
            raise QueueFault(queue, holds, "Correct its mode, or remove it")
        return found

    def ack(self, messages: Sequence[Taken]) -> None:
        """Renamed first, and removed only if it still is what was claimed: its sender may have written another one there."""
        for taken in messages:
            folder, (name, identity) = self._folders[taken.queue], taken.tag
            with contextlib.suppress(OSError):  # it comes again, and is known then
                os.rename(folder / name, folder / f".acked-{identity}-{name}")
                _tidy(folder)

    def ensure_acked(self) -> None:
        """What comes again after a power failure has the same identity, and is known."""

    def give_back(self, taken: Taken) -> None:
        """It was never away."""

    def listen(self, queues: Sequence[str], wait: float) -> bool:
        end = time.monotonic() + wait
        while not any(self._names(queue) for queue in queues):
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, _LOOK_AGAIN))
        return True

    def stop_listening(self) -> None:
        """To listen was to look."""

    def close(self) -> None: ...

    def send(self, reply: Reply) -> None:
        head = json.dumps({**reply.headers, "at": reply.timestamp}).encode()
        try:
            paths.write_bytes(Path(reply.routing_key), b'{"about": ' + head + b', "answer": ' + reply.body + b"}\n")
        except OSError as error:
            if disk.is_away(error):
                raise Transient(f"{reply.routing_key} can't be written: {error.strerror}") from None
            raise Unroutable(f"{reply.routing_key} can't be written: {error.strerror}") from None

    def _names(self, queue: str) -> list[str]:
        """The oldest first, as far as names tell. Raises QueueFault."""
        folder = self._folders[queue]
        try:
            _tidy(folder)
            return sorted(name for name in os.listdir(folder) if _NAME.fullmatch(name))
        except OSError as error:
            if disk.is_away(error):
                raise Transient(f"{folder} can't be read: {error.strerror}") from None
            found = f"can't be read: {folder}: {error.strerror}"
            raise QueueFault(queue, found, "Make it, or correct its folder") from None

    def _read(self, queue: str, name: str) -> Optional[Taken]:
        """None for what is no file, or is gone."""
        path = self._folders[queue] / name
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    return None
                body = file.read(self._keep_bytes)
        except OSError:
            return None
        identity = f"{status.st_mtime_ns}-{status.st_ino}"
        properties = Properties(
            reply_to=str(path.parent / "answers" / name), correlation_id=name, message_id=identity,
            timestamp=int(status.st_mtime),
        )  # fmt: skip
        return Taken(queue, body, properties, False, (name, identity), source="spool")


def _tidy(folder: Path) -> None:
    """Ends each removal that was begun. A power failure or a kill may have come in the middle of one."""
    for name in os.listdir(folder):
        begun = _ACKED.fullmatch(name)
        if begun is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(folder / name)
            if begun.group(1, 2) != (str(status.st_mtime_ns), str(status.st_ino)):
                with contextlib.suppress(FileExistsError):  # its sender has written yet another one since
                    os.link(folder / name, folder / begun.group(3), follow_symlinks=False)
            os.unlink(folder / name)
