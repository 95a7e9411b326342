"""What a job's own code prints reaches the attempt's log through us: whoever has a file open can do more with it than append
(read all of it, cut it, write over it), and a log on a shared disk must not grow as it likes."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

_MOST = 64 << 20
"""Bytes of what it prints that are kept, and..."""
_END = 4096
"""...so many of its end."""
_PIECE = 1 << 16
_LAST_LOOK = 5.0
"""Seconds; whoever could still print has been ended by then."""


@contextlib.contextmanager
def copied_to(log: int) -> Iterator[int]:
    """What the block is given, a program may print to. Returns when all of it is in the log."""
    reading, writing = os.pipe()
    copier = threading.Thread(target=_copy, args=(reading, os.dup(log)), name="printed", daemon=True)
    copier.start()
    try:
        yield writing
    finally:
        os.close(writing)
        copier.join(_LAST_LOOK)


def _copy(reading: int, log: int) -> None:
    """To the end, also where the log takes no more: who prints would wait for ever."""
    left, end = _MOST, b""
    with open(reading, "rb", buffering=0) as printed, open(log, "ab", buffering=0) as kept:
        while piece := printed.read(_PIECE):
            with contextlib.suppress(OSError):
                kept.write(piece[:left])
            end = (end + piece[left:])[-_END:]
            left = max(0, left - len(piece))
        if end:
            with contextlib.suppress(OSError):
                kept.write(b"\n[More was printed than is kept. Its end:]\n" + end)
