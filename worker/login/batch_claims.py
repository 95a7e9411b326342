"""Claims jobs for pilots, in batches."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Optional

from ..errors import Damaged, InvalidSpec
from ..fit import unfit_for_pilots
from ..folder import batches
from ..folder.batches import Claimed, Pool
from ..folder.jobs import JobsFolder
from ..installed import Workloads
from ..job.names import JobId
from ..job.spec import JobSpec
from ..settings import Config, Queue
from ..sources import Taken, digest
from .claim import as_message, has_id
from .pass_state import Faults
from .pools import KnownIds, open_jobs, pool_of, why_unfit
from .understand import understand

log = logging.getLogger(__name__)


class BatchClaims:
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
            if spec is not None and self._jobs.find(job_id) is None:
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
        mode = config.site.workloads[spec.workload].mode or queue.mode
        if mode != "pilot":
            return None
        why = unfit_for_pilots(spec.resources, queue.pilot, config.site.timing)
        too_large.update([why] if why else [])
        return None if why else spec
