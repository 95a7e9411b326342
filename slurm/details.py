"""What Slurm tells people about one job: what it used, why it waits, what its partition has. Pure.

Formats: the manual pages of sacct, squeue and sinfo, Slurm 22.05.
"""

from __future__ import annotations

import re
from typing import Optional

from scheduler import Outlook, Stock, Usage

USAGE_FIELDS = "JobID,ElapsedRaw,AllocCPUS,TotalCPU,MaxRSS"
OUTLOOK_FORMAT = "%T|%r|%P|%S"
SINFO_FIELDS = "CPUsState:40,Gres:400,GresUsed:400"
"""Columns of a fixed width, because a node's gres may hold every character that could part them."""


def parse_usage(text: str) -> Optional[Usage]:
    """The rows of `sacct -n -P -o USAGE_FIELDS` for one job: the job itself first, then its steps. None for no row."""
    rows = [row for row in (line.split("|") for line in text.splitlines()) if len(row) == 5]
    if not rows:
        return None
    _, elapsed, cpus, total, _ = rows[0]
    memory = [found for row in rows if (found := _megabytes(row[4])) is not None]
    return Usage(
        elapsed_seconds=float(elapsed) if elapsed.isdigit() else None,
        cpus=int(cpus) if cpus.isdigit() and int(cpus) else None,
        cpu_seconds=_seconds(total),
        memory_mb=max(memory) if memory else None,
    )


def parse_outlook(text: str) -> Optional[Outlook]:
    """The row of `squeue -h -o OUTLOOK_FORMAT` with SLURM_TIME_FORMAT=%s. None for a job that squeue does not show."""
    rows = [row for row in (line.split("|") for line in text.splitlines()) if len(row) == 4]
    if not rows:
        return None
    state, reason, partition, start = rows[0]
    return Outlook(state, reason, partition, float(start) if start.isdigit() else None)


def parse_nodes(text: str) -> list[Stock]:
    """The rows of `sinfo -N -h -O SINFO_FIELDS`: CPUs, then each type of GPU, of all nodes together."""
    totals: dict[str, list[int]] = {}
    for line in text.splitlines():
        cpus, gres, used = line[:40].strip(), line[40:440].strip(), line[440:].strip()
        counts = cpus.split("/")
        if len(counts) == 4 and all(count.isdigit() for count in counts):
            _add(totals, "CPUs", int(counts[3]), int(counts[0]))
        for name, count in _gpus(gres):
            _add(totals, name, count, 0)
        for name, count in _gpus(used):
            _add(totals, name, 0, count)
    return [Stock(what, total, in_use) for what, (total, in_use) in totals.items()]


def _add(totals: dict[str, list[int]], what: str, total: int, used: int) -> None:
    before = totals.setdefault(what, [0, 0])
    totals[what] = [before[0] + total, before[1] + used]


def _gpus(gres: str) -> list[tuple[str, int]]:
    """ "gpu:v100l:4(S:0-1),gpu:p100l:2(IDX:0)" as [("gpu:v100l", 4), ("gpu:p100l", 2)]."""
    found = re.findall(r"(?:^|,)(gpu(?::[A-Za-z_][\w.-]*)?):(\d+)", re.sub(r"\([^)]*\)", "", gres))
    return [(name, int(count)) for name, count in found]


def _seconds(text: str) -> Optional[float]:
    """sacct's [DD-[HH:]]MM:SS[.mmm]."""
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+(?:\.\d+)?)", text)
    if not found:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _megabytes(text: str) -> Optional[float]:
    """sacct's 1234K, 1.50M or 2G; without a unit, bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text)
    return (
        float(found.group(1)) * {"": 2**-20, "K": 2**-10, "M": 1, "G": 2**10, "T": 2**20}[found.group(2)]
        if found
        else None
    )
