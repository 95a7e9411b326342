"""What is known of pools of batches, for whoever claims for them, tends them or starts pilots."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Optional

from ..errors import Damaged
from ..folder.batches import Pool
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..folder.snapshot import read_attempt
from ..job.facts import Unfit
from ..job.snapshot import AttemptFacts
from ..settings import Config, Queue
from .away import raise_if_disk
from .ids import Ids
from .pass_state import Faults

_UNFIT_FOR = 3600.0
"""Seconds after which pilots are tried again where they could not do their work."""


def pools(config: Config, jobs: JobsFolder) -> list[tuple[Queue, Pool]]:
    """Those of queues that have, or had, jobs for pilots."""
    found = [(queue, pool_of(config, jobs, queue)) for queue in config.site.queues]
    return [(queue, pool) for queue, pool in found if pool is not None]


def pool_of(config: Config, jobs: JobsFolder, queue: Queue) -> Optional[Pool]:
    """None for a queue without pilots."""
    pool = Pool(jobs, queue.name)
    uses_pilots = queue.mode == "pilot" or any(each.mode == "pilot" for each in config.site.workloads.values())
    return pool if uses_pilots or pool.path.is_dir() else None


def open_jobs(pool: Pool) -> int:
    return sum(batch.count for batch in pool.open_batches())


def why_unfit(faults: Faults, pool: Pool) -> Optional[Unfit]:
    found = faults.read(pool.unfit)
    return found if found is not None and time.time() - found.since < _UNFIT_FOR else None


def read_facts(crew: JobFolder) -> Optional[AttemptFacts]:
    """None where they can't be read."""
    try:
        return read_attempt(crew.attempt(1))
    except Damaged:
        return None
    except OSError as error:
        raise_if_disk(error)
        return None


class KnownIds:
    """The ids of all jobs that batches have, for all passes of a process: to read them takes a time that grows with all jobs
    that were ever done."""

    def __init__(self) -> None:
        self._open: dict[Path, set[str]] = {}
        """By a pool's folder, once its open batches were read..."""
        self._done: dict[Path, Ids] = {}
        """...and those that are done."""

    def among(self, pool: Pool, ids: Sequence[str], faults: Faults) -> set[str]:
        """Those that a batch has, open or done."""
        if not pool.path.is_dir():
            return set()
        if pool.path not in self._open:
            self._open[pool.path] = pool.open_ids()
        done = self._done_of(pool)
        known = (self._open[pool.path] & set(ids)) | done.known(ids)
        faults.damaged += done.lost
        done.lost = 0
        return known

    def claimed(self, pool: Pool, ids: Collection[str]) -> None:
        self._open.setdefault(pool.path, set()).update(ids)

    def done(self, pool: Pool, ids: Collection[str]) -> None:
        """On disk after the return. Raises OSError."""
        self._done_of(pool).add(ids)
        self._open.get(pool.path, set()).difference_update(ids)

    def forget_before(self, pool: Pool, then: float) -> None:
        """Those that are done; `then` in seconds since 1970."""
        self._done_of(pool).forget_before(then)

    def _done_of(self, pool: Pool) -> Ids:
        return self._done.setdefault(pool.path, Ids(pool.path / "ids"))
