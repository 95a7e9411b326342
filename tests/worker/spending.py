"""A scheduler of the tests that takes a token for each command, as the real one does where it runs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from scheduler import BatchRequest, JobView, Outlook, Scheduler, SlurmJobId, SpentOn, Traits, Usage


class Spending:
    """Each question is one command. The methods raise Spent besides their own errors."""

    def __init__(self, scheduler: Any, spent_on: SpentOn) -> None:
        self._scheduler: Scheduler = scheduler
        self._spent_on = spent_on

    @property
    def traits(self) -> Traits:
        return self._scheduler.traits

    def submit(self, request: BatchRequest) -> SlurmJobId:
        with self._spent_on("sbatch"):
            return self._scheduler.submit(request)

    def objection(self, request: BatchRequest) -> str:
        with self._spent_on("sbatch"):
            return self._scheduler.objection(request)

    def largest_array(self) -> int:
        with self._spent_on("scontrol"):
            return self._scheduler.largest_array()

    def queue(self) -> Sequence[JobView]:
        with self._spent_on("squeue"):
            return self._scheduler.queue()

    def history(self, names: Sequence[str], since: float, until: Optional[float] = None) -> Sequence[JobView]:
        with self._spent_on("sacct"):
            return self._scheduler.history(names, since, until)

    def cancel(self, ids: Sequence[SlurmJobId], only_waiting: bool = False) -> None:
        with self._spent_on("scancel"):
            self._scheduler.cancel(ids, only_waiting)

    def usage(self, slurm_id: SlurmJobId) -> Optional[Usage]:
        with self._spent_on("sacct"):
            return self._scheduler.usage(slurm_id)

    def outlook(self, slurm_id: SlurmJobId) -> Optional[Outlook]:
        with self._spent_on("squeue"):
            return self._scheduler.outlook(slurm_id)
