"""Closed batches by day, and what each day comes to, so that nobody has to walk them.

    jobs/pilots/<pool>/done/<day>/<batch>.<succeeded>.<failed>.<left>
    jobs/pilots/<pool>/closed.json     the totals; a hint, neither synced nor missed

A total stands only for the folder that it was counted in: with the same time of modification, to the nanosecond. Whoever
moves something in crosses the day out first and notes it again afterwards, so what a kill leaves is a day without a total.
A power failure that took the note, and a version that knows none, leave a folder with another time. In all these cases the
day's names are counted anew. A day that is removed is a name less in `done/`, and its total counts no more from then on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ..errors import Damaged
from . import batches, paths
from .batches import Batch, Pool
from .records import Fact

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
UNKNOWN = -1
"""Bytes of a day of which only the names were counted."""


@dataclass(frozen=True)
class Total:
    """Of one day: jobs, and the bytes of its batches and pilots. `seen`: when its folder was changed last (ns since 1970)."""

    succeeded: int = 0
    failed: int = 0
    left: int = 0
    bytes: int = UNKNOWN
    seen: int = 0

    def plus(self, more: Total) -> Total:
        size = UNKNOWN if UNKNOWN in (self.bytes, more.bytes) else self.bytes + more.bytes
        return Total(self.succeeded + more.succeeded, self.failed + more.failed, self.left + more.left, size)


@dataclass(frozen=True)
class _Noted:
    days: Mapping[str, Total] = field(default_factory=dict)


def by_day(pool: Path) -> dict[str, Total]:
    """Of each day of this pool (its folder) that is kept, in order. Opens one file, and looks once at each day. Raises
    Damaged, and OSError."""
    noted = _read(pool)
    return {day: _total(pool, day, noted) for day in days(pool)}


def days(pool: Path) -> list[str]:
    """Raises Damaged, and OSError where the disk is away."""
    return [name for name in paths.names_in(pool / "done") if _DAY.fullmatch(name)]


def close(pool: Pool, batch: Batch, day: str, succeeded: int, failed: int, left: int) -> Batch:
    """Moves a batch that is through to its day. Raises OSError."""
    total = Total(succeeded, failed, left, paths.size_of(batch.path))
    with moving_in(pool.path, day, total):
        return batches.move(batch, pool.done / day / batches.closed_name(batch, succeeded, failed, left))


@contextlib.contextmanager
def moving_in(pool: Path, day: str, more: Total) -> Iterator[None]:
    """Around the one rename that brings so much into this day. Killed before the rename: the day is counted anew, and
    nothing has come. Killed after it: the day is counted anew, and what has come is among it. Twice: the second time
    there is nothing to rename, so the block raises, or the day's time says that it is to be counted."""
    paths.make_folder(pool / "done" / day)
    noted = _read(pool)
    before = _total(pool, day, noted)
    others = {name: total for name, total in noted.items() if name != day}
    _write(pool, others)
    yield
    _write(pool, {**others, day: replace(before.plus(more), seen=_changed_at(pool, day))})


def measure(pool: Path, day: str) -> Total:
    """Counts this day anew, its bytes as well, which looks at each of its files. Raises Damaged, and OSError."""
    seen = _changed_at(pool, day)
    total = replace(_count(pool, day), bytes=paths.size_of(pool / "done" / day), seen=seen)
    kept = days(pool)
    _write(pool, {**{name: each for name, each in _read(pool).items() if name in kept}, day: total})
    return total


def _total(pool: Path, day: str, noted: Mapping[str, Total]) -> Total:
    known = noted.get(day)
    return known if known is not None and known.seen == _changed_at(pool, day) else _count(pool, day)


def _count(pool: Path, day: str) -> Total:
    """By the names. The bytes of an empty day are known."""
    names = paths.names_in(pool / "done" / day)
    total = Total(bytes=UNKNOWN if names else 0)
    for name in filter(batches.is_closed, names):
        total = total.plus(Total(*batches.counts(Batch(Path(name)))))
    return total


def _changed_at(pool: Path, day: str) -> int:
    return os.stat(pool / "done" / day).st_mtime_ns


def _file(pool: Path) -> Fact[_Noted]:
    return Fact(pool / "closed.json", _Noted)


def _read(pool: Path) -> Mapping[str, Total]:
    """Nothing, where it can't be read: it is all counted anew."""
    try:
        noted = _file(pool).read()
    except Damaged:
        noted = None
    return noted.days if noted is not None else {}


def _write(pool: Path, totals: Mapping[str, Total]) -> None:
    """Where there is no room for it, the day's time says that its total is an old one."""
    with contextlib.suppress(OSError):
        paths.write_note(_file(pool).path, json.dumps(asdict(_Noted(totals))))
