"""What /proc says of processes: proc(5), /proc/<pid>/stat."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path


def processes() -> Iterator[tuple[int, list[str]]]:
    """After the last parenthesis come state, ppid, pgrp, session; num_threads is the 18th of these."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                yield int(name), Path("/proc", name, "stat").read_text(errors="replace").rpartition(")")[2].split()


def below(pid: int) -> list[tuple[int, int]]:
    """Children, their children and so on, the nearest first, each with how many threads it has."""
    children: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for each, fields in processes():
        children[int(fields[1])].append((each, int(fields[17])))
    found = list(children[pid])
    for child, _ in found:
        found += children[child]
    return found
