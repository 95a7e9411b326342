"""Whose turn it is among the jobs queues: those of the highest priority first, and of these the one that has waited longest.

A hint and no fact: without the file the site file's order counts.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import Damaged
from ..folder.paths import contents, write_note
from ..settings import Queue


class Turns:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._order = self._read()
        self._as_saved = list(self._order)

    def in_order(self, queues: Sequence[Queue]) -> list[Queue]:
        """One that has never had a turn comes before those that have."""
        had = {name: place for place, name in enumerate(self._order, 1)}
        return sorted(queues, key=lambda queue: (-queue.priority, had.get(queue.name, 0)))

    def had(self, queue: str) -> None:
        if queue in self._order:
            self._order.remove(queue)
        self._order.append(queue)

    def save(self, queues: Sequence[Queue]) -> None:
        """Not synced: losing it is harmless."""
        names = {queue.name for queue in queues}
        kept = [name for name in self._order if name in names]
        if kept != self._as_saved:
            with contextlib.suppress(OSError):
                write_note(self._file, json.dumps({"had_their_turn": kept}))
                self._as_saved = kept

    def _read(self) -> list[str]:
        with contextlib.suppress(Damaged, OSError, ValueError, KeyError, TypeError, RecursionError):
            kept = json.loads(contents(self._file) or b"")["had_their_turn"]
            return list(dict.fromkeys(str(name) for name in kept))
        return []
