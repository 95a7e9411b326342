"""How many pilots are wanted."""

from __future__ import annotations

import contextlib
import math
import secrets
import time

from ..errors import Damaged
from ..folder import batches, paths
from ..folder.batches import PILOT, Pilot, Pool
from ..folder.facts import AttemptFolder, JobFolder
from ..folder.jobs import JobsFolder
from ..installed import Workloads
from ..job import judge
from ..job.spec import Resources
from ..settings import Config, Queue
from .declined import Declines
from .pass_state import PassState
from .pools import open_jobs, pools, read_facts, why_unfit


class Hiring:
    def __init__(
        self, config: Config, jobs: JobsFolder, workloads: Workloads, declines: Declines, state: PassState
    ) -> None:
        self._config, self._jobs, self._workloads = config, jobs, workloads
        self._declines, self._state = declines, state

    def want(self) -> None:
        """Makes ready what is to be submitted: never more pilots than jobs justify, those that wait in Slurm included."""
        if self._state.submits_nothing:
            return
        waiting = {job.id for job, _ in self._state.ready}
        for queue, pool in pools(self._config, self._jobs):
            if not _jobs_to_do(pool) or why_unfit(self._state.faults, pool) is not None:
                continue
            if not self._workloads.can_begin(queue) or not self._declines.may_try(_submission(queue).resources):
                continue
            try:
                crew = [each for each in batches.crew(self._jobs) if _works_for(each, queue)]
            except Damaged:  # reported where they are tended; nobody knows how many there are
                continue
            if any(each.attempt(1).unfit.is_there() for each in crew):
                continue  # its verdict waits until all that it wrote can be seen, and another one would find the same
            alive = [each for each in crew if _keeps_its_place(each.attempt(1))]
            ready = [each for each in crew if each.id in waiting]
            rules = queue.pilot
            worthwhile = min(rules.most, math.ceil(open_jobs(pool) / rules.jobs_per_pilot))
            for _ in range(worthwhile - len(alive) - len(ready)):
                self._state.ready.append((self._hire(queue), _submission(queue)))

    def _hire(self, queue: Queue) -> JobFolder:
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(time.time()))
        crew = JobFolder(batches.crew_of(self._jobs) / f"{PILOT}{stamp}-{secrets.token_hex(3)}")
        paths.make_folder(crew.path)
        batches.pilot_file(crew).write(Pilot(queue.name))
        return crew


def _keeps_its_place(attempt: AttemptFolder) -> bool:
    """Until it has ended; one that never began, until it is counted as a failure."""
    return attempt.intent.is_there() and not (attempt.ended.is_there() and attempt.started.is_there())


def _jobs_to_do(pool: Pool) -> int:
    with contextlib.suppress(Damaged):
        return sum(batch.count for batch in pool.batches(pool.todo)) if open_jobs(pool) else 0
    return 0


def _works_for(crew: JobFolder, queue: Queue) -> bool:
    """Not one that can't be read: it must not keep the place of one that works."""
    with contextlib.suppress(Damaged):
        pilot = batches.pilot_file(crew).read()
        return pilot is not None and pilot.queue == queue.name and read_facts(crew) is not None
    return False


def _submission(queue: Queue) -> judge.Submit:
    rules = queue.pilot
    return judge.Submit(1, Resources(rules.cpus, rules.memory_mb, int(rules.time)), f"{PILOT}{queue.name}")
