"""Did the kernel end a process of this job for lack of memory? Read from our own control group.

Slurm tells of a killed child only after the job has ended, when a success would long be sent. Sources: the kernel's
cgroup-v1/memory documentation (memory.oom_control, oom_kill since Linux 4.13) and cgroup-v2 (memory.events).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional


class MemoryWatch:
    """Compares the count of kills now with the count at the start. `known` is False where the group is shared with others
    (`confined` is False) or shows no count: then only the scheduler can tell."""

    def __init__(self, confined: bool, proc: Path = Path("/proc/self")) -> None:
        self._file = _counter_file(proc) if confined else None
        self._before = self._count()
        self.known = self._before is not None

    def begin(self) -> None:
        """What was counted so far is somebody else's."""
        self._before = self._count()

    def ran_out(self) -> bool:
        now = self._count()
        return now is not None and self._before is not None and now > self._before

    def _count(self) -> Optional[int]:
        try:
            text = self._file.read_text() if self._file else ""
        except OSError:
            return None
        found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        return int(found.group(1)) if found else None


def _counter_file(proc: Path) -> Optional[Path]:
    """None where there is none, or where we are in the root group: then nothing limits this job by itself."""
    try:
        groups = [line.split(":", 2) for line in (proc / "cgroup").read_text().splitlines() if line.count(":") >= 2]
        mounted = [line.split() for line in (proc / "mounts").read_text().splitlines()]
    except OSError:
        return None
    v1 = next((path for _, controllers, path in groups if "memory" in controllers.split(",")), None)
    v2 = next((path for _, controllers, path in groups if controllers == ""), None)
    for path, kind, option, file in (
        (v1, "cgroup", "memory", "memory.oom_control"),
        (v2, "cgroup2", "", "memory.events"),
    ):
        where = next((m[1] for m in mounted if m[2] == kind and (not option or option in m[3].split(","))), None)
        if path is not None and path != "/" and where is not None:
            return Path(where + path) / file
    return None
