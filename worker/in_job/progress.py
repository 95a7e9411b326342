"""How far the workload says it is: lines that it writes into a file, looked at every few seconds and kept as a fact.

The file is the workload's, so nothing in it is trusted: only its end is read, and only a plain file.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from ..folder.records import Fact
from ..job.facts import Progress

PROGRESS = "progress"
"""The file's name in the work folder; $BATCHFERRY_PROGRESS is its path."""

_EVERY = 5.0
"""Seconds; what is written into the job's folder, a shared file system has to carry."""
_LAST_LOOK = 5.0
"""Seconds that the job waits for the last look at it."""
_TAIL_BYTES = 4096
_LONGEST = 80
_LINE = re.compile(r"progress[ \t]+(0?\.\d{1,9}|[01](?:\.\d{0,9})?)(?:[ \t]+(.*))?", re.ASCII)


@contextlib.contextmanager
def watched(source: Path, target: Fact[Progress]) -> Iterator[None]:
    """While the block runs, what `source` says last becomes the fact `target`. Never fails the job."""
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(source, target, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join(_LAST_LOOK)


def _watch(source: Path, target: Fact[Progress], ended: threading.Event) -> None:
    last: Optional[tuple[float, str]] = None
    over = False
    while not over:
        over = ended.wait(_EVERY)
        with contextlib.suppress(OSError):
            said = parse(_tail(source))
            if said is not None and said != last:
                target.write(Progress(*said, at=time.time()))
                last = said


def parse(tail: bytes) -> Optional[tuple[float, str]]:
    """The last whole line of the form `progress 0.4 epoch 6/15`: a number from 0 to 1, and words for people."""
    for line in reversed(tail.decode("utf-8", "replace").split("\n")[:-1]):
        found = _LINE.fullmatch(line.rstrip("\r"))
        if found and float(found.group(1)) <= 1:
            words = "".join(c if c.isprintable() else " " for c in found.group(2) or "")
            return float(found.group(1)), " ".join(words.split())[:_LONGEST]
    return None


def _tail(path: Path) -> bytes:
    """The file's end, without a line that was cut; raises OSError where there is no plain file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return b""
        file.seek(max(0, found.st_size - _TAIL_BYTES))
        tail = file.read(_TAIL_BYTES)
        return tail.partition(b"\n")[2] if found.st_size > _TAIL_BYTES else tail
