"""Which time accounting is asked about.

A site may refuse long ones (MaxQueryTimeRange in slurmdbd.conf; questions with ids are exempt, but an sbatch without a clear
answer has none). What is too long is asked about piece by piece: one a pass, the newest first, because most ends are news. Of
a name that shows nothing, nothing follows before all pieces were asked.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scheduler import JobView, Scheduler, TooWide

from ..folder.records import Fact
from .pass_state import Faults

log = logging.getLogger(__name__)

_GRACE = 86400.0
"""Seconds before the first of them may have ended, for clocks that differ or were set..."""
_LITTLE_GRACE = 3600.0
"""...and where every hour counts."""
_OFTEN_ALLOWED = 86400.0 - 60
_SHORTEST = 600.0


@dataclass(frozen=True)
class Asked:
    """How far a question has come that takes several passes. A cache: without it, the question begins anew."""

    longest: float = 0
    """Seconds that may be asked about at once; 0 for any number."""
    names: tuple[str, ...] = ()
    """Those that all pieces were about."""
    down_to: float = 0
    """What was since then was asked about."""


def ask(
    scheduler: Scheduler, noted: Path, faults: Faults, names: Sequence[str], since: float, now: float
) -> tuple[Sequence[JobView], Collection[str]]:
    """What accounting shows, and the names of which this is all that it has. `noted`: where a question of several passes
    is noted. Raises Unavailable and Spent."""
    asked = Fact(noted, Asked)
    before = faults.read(asked) or Asked()
    longest = before.longest
    start = min(since, now) - (_LITTLE_GRACE if longest else _GRACE)
    whole = not longest or now - start <= longest
    if whole or not start < before.down_to <= now:
        before = Asked(longest, tuple(names), now)
    begin = start if whole else max(start, before.down_to - longest)
    try:
        views = scheduler.history(names, begin, None if before.down_to == now else before.down_to)
    except TooWide:
        shorter = max(_SHORTEST, min(_OFTEN_ALLOWED, (before.down_to - begin) / 2))
        asked.write(Asked(shorter))
        log.info("accounting refuses so long a time, it is asked piece by piece seconds=%.0f", shorter)
        raise
    done = begin <= start
    if not whole:
        asked.write(Asked(longest) if done else replace(before, down_to=begin))
    return views, set(before.names) & set(names) if done else ()
