"""A scheduler of the tests that takes a token for each command, as the real one does where it runs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from scheduler import BatchRequest, JobView, Scheduler, SlurmJobId, Traits
from worker.login.budget import Budget


class Spending:
    """Each question is one command. The methods raise Spent besides their own errors."""

    def __init__(self, scheduler: Scheduler, budget: Budget) -> None:
        self._scheduler, self._spent_on = scheduler, budget.spent_on

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
