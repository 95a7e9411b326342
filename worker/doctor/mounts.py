"""How the jobs folder is mounted, from /proc/self/mountinfo (proc(5)), and which of it Batchferry can't live with.

What Linux's NFS client shows of its options, and that it shows no default: `nfs_show_mount_options` in its fs/nfs/super.c.
What they mean: nfs(5). That a name may stay hidden for as long as a folder's attributes are kept was measured: 30 s, the least
by default, to 60 s, the most; 0 with lookupcache=none, 3 s with actimeo=3; with NFS 3 until the folder changes again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from ..job.sentences import duration
from .report import Report

_MOUNTS = Path("/proc/self/mountinfo")
_NFS = ("nfs", "nfs4")
_DIRECTORY_SECONDS = 60
"""acdirmax, where it is not shown."""
_ADVICE = "docs/install.md, Which file system"


@dataclass(frozen=True)
class Mount:
    """Where it is mounted, its type, such as "nfs4" or "lustre", and its options; those without a value have an empty one."""

    point: str
    kind: str
    options: Mapping[str, str] = field(default_factory=dict)


def mount_of(path: Path, mounts: Path = _MOUNTS) -> Optional[Mount]:
    """None where it can't be told."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    known = [(line.split(" ")[2], mount) for line in lines if (mount := _parsed(line)) is not None]
    same = [mount for number, mount in known if number == wanted]
    if same:
        return same[-1]
    # The numbers differ for some network file systems and overlays: then the longest mount point above it counts.
    real = str(path.resolve())
    above = [each for _, each in known if real == each.point or real.startswith(each.point.rstrip("/") + "/")]
    return max(above, key=lambda each: len(each.point)) if above else None


def _parsed(line: str) -> Optional[Mount]:
    """ "36 35 98:0 /root /point rw,noatime master:1 - type source rw,errors=continue": the optional fields end at the dash."""
    ours, _, theirs = line.partition(" - ")
    words, more = ours.split(" "), theirs.split(" ")
    if len(words) < 6 or not more[0]:
        return None
    options = [*words[5].split(","), *(more[2].split(",") if len(more) > 2 else ())]
    return Mount(_plain(words[4]), more[0], dict(option.partition("=")[::2] for option in options))


def _plain(point: str) -> str:
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found.group(1), 8)), point)


def look_at_options(report: Report, mount: Mount, visible_after: float) -> None:
    """Of NFS alone: others show nothing of what they keep, and for how long."""
    if mount.kind not in _NFS:
        return
    options = mount.options
    report.begin("mount options")
    before = len(report.findings)
    soft = next((name for name in ("soft", "softerr") if name in options), "")
    if soft:
        report.fault(f"{mount.point} is mounted {soft}: what is written may be lost when its server is slow to answer",
                     f"Have it mounted hard ({_ADVICE}).")  # fmt: skip
    if options.get("vers", "").startswith("3"):
        report.warn("NFS 3: a new name may stay hidden from other hosts until its folder changes again",
                    f"Have it mounted with vers=4.2 ({_ADVICE}).")  # fmt: skip
    kept = kept_for(options)
    if kept > visible_after:
        found = f"names are believed missing for up to {duration(kept)}, and visible_after is {duration(visible_after)}"
        report.warn(found,
                    f"Set visible_after above it, or mount it with lookupcache=none or actimeo=3 ({_ADVICE}).")  # fmt: skip
    if "nolock" in options:
        report.warn("nolock: locks of programs hold on one host only. Batchferry itself needs none there",
                    "Have it mounted without nolock where a workload's program locks files.")  # fmt: skip
    if len(report.findings) == before:
        report.ok(f"hard, vers={options.get('vers', '?')}, names are believed missing for {duration(kept)} at most")


def kept_for(options: Mapping[str, str]) -> float:
    """Seconds for which this client may believe that a name is not there."""
    if "noac" in options or options.get("lookupcache") in ("none", "pos", "positive"):
        return 0
    shown = options.get("acdirmax", "")
    return float(shown) if shown.isdigit() else _DIRECTORY_SECONDS
