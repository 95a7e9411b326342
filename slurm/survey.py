"""What this cluster offers and allows: partitions, accounts, its configuration, and whether it would take a job.

For the doctor and for init. Commands: the manual pages of Slurm 22.05.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from scheduler import TooWide, Unavailable

from . import commands
from .cluster import Slurm


@dataclass(frozen=True)
class Partition:
    """`cpus`, `memory_mb`: of its largest nodes; None for a limit that it does not have."""

    name: str
    is_default: bool
    is_up: bool
    max_minutes: Optional[int]
    nodes: int
    cpus: int
    memory_mb: int
    gres: tuple[str, ...] = ()


class Survey(Slurm):
    """Every method raises Unavailable when Slurm gives no clear answer."""

    def version(self) -> str:
        return self._ask(["sbatch", "--version"]).strip()

    def settings(self) -> dict[str, str]:
        """slurm.conf as the controller has it."""
        pairs = re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", self._ask(commands.show_config()), re.MULTILINE)
        return dict(pairs)

    def controller(self) -> str:
        """The host of slurmctld, or its address where slurm.conf has one; empty where it does not say."""
        told = re.search(r"(?m)^SlurmctldHost\[0\]\s*=\s*([^\s(]+)(?:\(([^)]+)\))?", self._ask(commands.show_config()))
        return (told.group(2) or told.group(1)) if told else ""

    def partitions(self) -> list[Partition]:
        told = self._ask(["scontrol", "show", "partition", "--oneliner"])
        nodes = self._ask(["sinfo", "--all", "--noheader", "--Node", "--format=%R|%c|%m|%G"])
        return parse_partitions(told, nodes)

    def accounts(self) -> list[str]:
        """Those that this user may use, the default one first; none where there is no accounting."""
        me = self._environment["USER"]
        argv = [
            "sacctmgr",
            "--noheader",
            "--parsable2",
            "show",
            "user",
            me,
            "withassoc",
            "format=DefaultAccount,Account",
        ]
        rows = [line.split("|") for line in self._ask(argv).splitlines() if "|" in line]
        return list(dict.fromkeys(name for row in rows for name in row if name))

    def ask_accounting(self) -> str:
        """As a pass does it, about a week. What is limited, in words; empty where nothing is. Raises Unavailable."""
        asked = commands.sacct(["bf-doctor"], 7 * 86400)
        try:
            self._ask(asked)
            return ""
        except TooWide:
            pass
        self._ask(commands.sacct(["bf-doctor"], 600))
        try:
            self._ask([*asked, "--jobs=1"])
            return "only about a short time at once, unless it is about jobs by their ids"
        except Unavailable:
            return "only about a short time at once, also about jobs by their ids"


def parse_partitions(told: str, nodes: str) -> list[Partition]:
    """From `scontrol show partition --oneliner`, and sinfo's partition|cpus|memory|gres by node."""
    rows = [line.split("|") for line in nodes.splitlines() if line.count("|") == 3]
    found = []
    for line in told.splitlines():
        facts = dict(re.findall(r"(\w+)=(\S*)", line))
        name = facts.get("PartitionName")
        if not name:
            continue
        own = [row for row in rows if row[0] == name]
        found.append(
            Partition(
                name=name,
                is_default=facts.get("Default") == "YES",
                is_up=facts.get("State") == "UP",
                max_minutes=parse_minutes(facts.get("MaxTime", "UNLIMITED")),
                nodes=len(own),
                cpus=max((_number(row[1]) for row in own), default=0),
                memory_mb=max((_number(row[2]) for row in own), default=0),
                gres=tuple(sorted({row[3] for row in own if row[3] not in ("", "(null)")})),
            )
        )
    return found


def parse_minutes(text: str) -> Optional[int]:
    """Of a time limit as Slurm prints it: "7-00:00:00", "10:00:00", "30:00"; None for UNLIMITED."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not found:
        return None
    days, hours, minutes, _ = (int(part or 0) for part in found.groups())
    return (days * 24 + hours) * 60 + minutes


def _number(text: str) -> int:
    """sinfo adds a plus where nodes differ."""
    digits = re.match(r"\d+", text.strip())
    return int(digits.group()) if digits else 0
