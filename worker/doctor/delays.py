"""How late this host sees what a compute node does in the jobs folder: makes a name, removes one, moves a folder away.

All times are the file server's: the node touches a file afterwards, to learn when that was, and writes it down; when it was
seen is told by a file that is touched here. This host asks for each name alone, as a pass does for a fact. It never lists
those folders, and changes nothing in them: either would make a network file system ask its server.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Optional

from ..folder.paths import make_folder, opens, write_bytes
from ..job.sentences import duration
from .report import Report

MADE, REMOVED, MOVED = "a new name", "a removed name", "a folder that was moved away"
_LOOK_EVERY = 0.1
_PATIENCE = 10.0
_LONGEST = 120.0
"""Seconds after which nobody waits any longer to see it."""


class _Names:
    """Three folders below the doctor's, each for one thing that the node does."""

    def __init__(self, place: Path) -> None:
        self.made = place / "made" / "file"
        self.removed = place / "removed" / "file"
        self.moved = place / "moved" / "batch" / "file"
        self.done = place / "done.json"


def do_what_is_watched(place: Path) -> None:
    """On the compute node. A jobs folder that is not shared is told elsewhere."""
    names = _Names(place)
    with contextlib.suppress(OSError):
        clock, done = place / "clock of the node", {}
        names.made.touch()
        done[MADE] = _touched(clock)
        names.removed.unlink()
        done[REMOVED] = _touched(clock)
        os.rename(names.moved.parent, names.moved.parent.with_name("away"))
        done[MOVED] = _touched(clock)
        write_bytes(names.done, json.dumps(done).encode())


class Watch:
    """On the login node, from before the job is submitted, so that what was there, and what was not, is well known here."""

    def __init__(self, place: Path) -> None:
        self._names, self._clock = _Names(place), place / "clock"
        for file in (self._names.made, self._names.removed, self._names.moved):
            make_folder(file.parent)
        for file in (self._names.removed, self._names.moved):
            file.touch()
        self._seen: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        looks: dict[str, Callable[[], bool]] = {
            MADE: lambda: os.path.lexists(self._names.made),
            REMOVED: lambda: not os.path.lexists(self._names.removed),
            MOVED: lambda: not opens(self._names.moved),
        }
        while not self._over.wait(_LOOK_EVERY) and looks:
            with contextlib.suppress(OSError):
                for what in [what for what, happened in looks.items() if happened()]:
                    self._seen[what] = _touched(self._clock)
                    del looks[what]

    def tell(self, report: Report, visible_after: float) -> None:
        """After the node has done it all. Waits until each was seen, or is seen too late."""
        self._thread.join(min(visible_after, _LONGEST))
        done = self._done()
        for what in (MADE, REMOVED, MOVED):
            delay = max(0.0, self._seen[what] - done[what]) if what in self._seen and what in done else None
            report.begin(what)
            _tell(report, delay, min(visible_after, _LONGEST), visible_after)

    def _done(self) -> dict[str, float]:
        """When, by the server's clock. The node's answer is there, and so is this, or it will be soon."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(FileNotFoundError):
                return dict(json.loads(self._names.done.read_bytes()))
            time.sleep(_LOOK_EVERY)
        return {}


def _tell(report: Report, delay: Optional[float], waited: float, visible_after: float) -> None:
    mend = (
        f"Set visible_after (now {duration(visible_after)}) well above what it takes; on NFS, mount it with "
        "lookupcache=none or actimeo=3 (docs/install.md, Which file system)."
    )
    if delay is None:
        report.warn(f"what the node did was not seen here within {duration(waited)}", mend)
    elif delay >= visible_after:
        report.warn(f"what the node did was seen here {delay:.1f} s later", mend)
    else:
        report.ok(f"seen here {delay:.1f} s after the node did it")


def _touched(clock: Path) -> float:
    """The file server's time."""
    clock.touch()
    return clock.stat().st_mtime
