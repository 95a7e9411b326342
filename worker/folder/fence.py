"""Closes an attempt, so that nothing of it can begin any more: whoever has won its started.json is the one that began.

Absence of a job in Slurm proves nothing: accounting may be silent, an element may just be starting, a restored controller
may bring a job back. So before an attempt that was never seen to start is answered for, or its Slurm name is given up, the
login side claims that file itself. A worker that finds it leaves without a word.
"""

from __future__ import annotations

from typing import Optional

from ..errors import Damaged
from ..job.facts import Cancel, Started, closed_at
from . import paths
from .facts import AttemptFolder
from .records import Exclusive


def close_program(attempt: AttemptFolder, now: float) -> bool:
    """For an attempt that has ended without a result, and of which nothing says that its program had begun: then none ever
    will. False where it had. Whatever names a network file system hides, a link to one that is there fails.
    Raises OSError and Damaged.
    """
    return _shut(attempt.begun, now)


def close(attempt: AttemptFolder, why: Optional[Cancel], now: float) -> bool:
    """False where the attempt has begun: then it is asked to end, or left to. True as often as this is repeated.

    `why`: what the attempt came to if nothing of it began. It is on disk before the fence is, so that whoever finds a closed
    attempt without a result can say what it came to; the first reason stays. None where ended.json says it.
    Raises OSError and Damaged.
    """
    paths.make_folder(attempt.path)
    if why is not None and attempt.cancel.read() is None:
        attempt.cancel.write(why)
    return _shut(attempt.started, now)


def _shut(fact: Exclusive[Started], now: float) -> bool:
    """Whether the login side has this exclusive fact, from now on or before."""
    if fact.claim(closed_at(now)):
        return True
    first = fact.read()
    if first is None:
        raise Damaged(f"{fact.path.parent.name}/{fact.name} exists and can't be read")
    return first.closed
