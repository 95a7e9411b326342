"""What Slurm is asked to cancel: as few commands as it takes."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from scheduler import SlurmJobId, Unavailable, is_element

from .budget import Budget, Spent
from .questions import Questions

log = logging.getLogger(__name__)

_AT_ONCE = 500
"""Jobs in one scancel: their ids are far from an argument list's limit."""


class Cancels:
    def __init__(self, questions: Questions, budget: Budget) -> None:
        self._questions, self._budget = questions, budget
        self._ids: dict[bool, list[SlurmJobId]] = {True: [], False: []}

    def add(self, ids: Iterable[SlurmJobId], only_waiting: bool = False) -> None:
        """`only_waiting`: only those are meant that have not begun."""
        self._ids[only_waiting].extend(ids)

    def send(self) -> None:
        """What is not asked now is asked by the next pass, which finds the same reasons."""
        for only_waiting, ids in self._ids.items():
            while ids and not self._questions.away:
                some, ids[:] = ids[:_AT_ONCE], ids[_AT_ONCE:]
                try:
                    self._budget.begin("cancel", len({is_element(each) for each in some}))
                    self._questions.scheduler.cancel(some, only_waiting)
                except Spent:
                    log.info("no slurm command is left, cancelled in the next pass jobs=%d", len(some) + len(ids))
                    return
                except Unavailable as error:
                    log.warning("cancel failed, asked again in the next pass jobs=%d why=%r", len(some), str(error))
                    self._questions.away = str(error)
