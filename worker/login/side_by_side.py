"""Many small writes at a time. Each of them waits for the disk, which syncs thirty files about as quickly as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_FEW = 8
_THREADS = 32


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """What `work` returns for each, in order; the first exception is raised when all have ended. Few items are worked on
    one after the other."""
    each = list(items)
    if len(each) < _FEW:
        return [work(item) for item in each]
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(work, each))
