"""Pools of batches for pilots: what is known of them, and how jobs are claimed for them."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Optional

from ..errors import Damaged, InvalidSpec
from ..fit import unfit_for_pilots
from ..folder import batches
from ..folder.batches import Claimed, Pool
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..folder.snapshot import read_attempt
from ..installed import Workloads
from ..job.facts import Unfit
from ..job.names import JobId
from ..job.snapshot import AttemptFacts
from ..job.spec import JobSpec
from ..settings import Config, Queue
from ..sources import Taken, digest
from .away import raise_if_disk
from .claim import as_message, has_id, was_done
from .ids import Ids
from .pass_state import Faults
from .understand import understand

log = logging.getLogger(__name__)

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


class BatchClaims:
    """Claims jobs for pilots, in batches."""

    def __init__(self, config: Config, jobs: JobsFolder, workloads: Workloads, known: KnownIds, faults: Faults) -> None:
        self._config, self._jobs, self._workloads, self._known, self._faults = config, jobs, workloads, known, faults

    def claim(self, queue: Queue, pool: Pool, messages: Sequence[Taken]) -> list[Taken]:
        """Claims those that a pilot may run, as one batch, and passes over those that a batch has. Returns the others: each
        needs a folder of its own. Raises OSError before anything is claimed.
        """
        keep_bytes, now = self._config.site.limits.message_bytes, time.time()
        others: list[Taken] = []
        batch: dict[str, Claimed] = {}
        synced = False
        too_large: Counter[str] = Counter()
        named = [(JobId(digest(each)), each) for each in messages]
        known = self._known.among(pool, [job_id for job_id, each in named if has_id(each)], self._faults)
        fit = why_unfit(self._faults, pool) is None
        for job_id, taken in named:
            if has_id(taken) and (job_id in known or job_id in batch):
                if taken.redelivered and not synced:
                    synced = batches.sync_places(pool)
                log.info("claimed before, acked again job=%s", job_id)
                continue
            spec = self._for_a_pilot(queue, taken, too_large) if fit and has_id(taken) else None
            # In this order: a folder that another pass removes at this moment has its id noted before.
            if spec is not None and self._jobs.find(job_id) is None and not was_done(self._jobs, job_id):
                message = as_message(taken, keep_bytes, now)
                batch[job_id] = Claimed(job_id, message, spec.resources, workload=spec.workload)
            else:
                others.append(taken)
        for why, count in too_large.items():
            log.warning("no pilot can take these, each gets a Slurm job of its own queue=%s jobs=%d why=%r",
                        queue.name, count, why)  # fmt: skip
        if batch:
            pool.prepare()
            added = batches.add(pool, list(batch.values()), now, self._config.site_text)
            self._known.claimed(pool, batch)
            log.info("claimed batch=%s queue=%s jobs=%d", added.id, queue.name, len(batch))
        return others

    def room(self, queue: Queue) -> int:
        """How many more jobs may be claimed for pilots; for a queue without any, there is no such limit. None where it can't
        be seen what there is: the queue is the right place to wait until somebody repairs it."""
        pool = pool_of(self._config, self._jobs, queue)
        try:
            return sys.maxsize if pool is None else max(0, queue.pilot.max_open - open_jobs(pool))
        except Damaged:  # reported where its batches are tended
            return 0

    def _for_a_pilot(self, queue: Queue, taken: Taken, too_large: Counter[str]) -> Optional[JobSpec]:
        """None for a job that needs a Slurm job of its own, or no job at all: an ordinary claim tells the rest."""
        config = self._config
        if taken.needs_settling:
            return None
        try:
            spec = understand(config, queue, taken.properties.reply_to, taken.body)
        except InvalidSpec:
            return None
        if self._workloads.why_stopped(spec.workload):
            return None
        mode = config.site.workloads[spec.workload].mode_in(queue)
        if mode != "pilot":
            return None
        why = unfit_for_pilots(spec.resources, queue.pilot, config.site.timing)
        too_large.update([why] if why else [])
        return None if why else spec
