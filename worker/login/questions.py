"""What Slurm is asked in one pass: within the budget of commands, and no more often than something new is to be expected."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from typing import Callable, Optional

from scheduler import JobView, Scheduler, SlurmJobId, Unavailable, is_element

from ..settings import SlurmSettings
from .away import SiteAway
from .budget import Budget, Spent
from .notices import Notices
from .quiet import Quiet

log = logging.getLogger(__name__)

_CRON_IS_EARLY = 0.9
"""A pass that comes a little before its minute is over must not have to wait for the next one."""
_AT_ONCE = 500
"""Jobs in one scancel: their ids are far from an argument list's limit."""


class Questions:
    """`open_scheduler`: called when the scheduler is needed. Its methods raise Spent besides their own errors. `before`: the
    last pass's of the same process, whose answer is good for a while."""

    def __init__(
        self, settings: SlurmSettings, budget: Budget, quiet: Quiet, notices: Notices,
        open_scheduler: Callable[[], Scheduler], before: Optional[Questions] = None,
    ) -> None:  # fmt: skip
        self._settings, self._budget, self._quiet, self._notices = settings, budget, quiet, notices
        self._open_scheduler = open_scheduler
        self._answered_at: float = before._answered_at if before is not None and before.answered else 0
        self.answered: bool = self._answered_at > 0 and 0 <= time.time() - self._answered_at < settings.poll_slowest
        self.away = ""
        """What Slurm said in this pass instead of an answer."""
        self.accounting_away = ""

    @property
    def scheduler(self) -> Scheduler:
        return self._open_scheduler()

    def queue(self) -> Sequence[JobView]:
        """What Slurm shows; the one place that notes whether it answered in this pass. Empty where it did not. Raises
        Spent."""
        try:
            views = self.scheduler.queue()
            self.answered, self._answered_at = True, time.time()
            return views
        except Unavailable as error:
            self.away = str(error)
            return []

    def check(self) -> None:
        """Raises SiteAway. A pass that asked before does not ask again; one with nothing open asks now."""
        if not self.away and not self.answered:
            self.queue()
        if self.away:
            raise SiteAway("slurm", self.away)

    def pause(self) -> float:
        """Seconds between two questions about jobs of which nothing is new. Where the site allows few commands and half of
        them are used up, every second one is left for other things. 0 where no command has to be run."""
        if not self._budget.counts:
            return 0.0
        s = self._settings
        scarce = self._budget.left() < s.commands_at_once / 2
        least = 2 / s.commands_per_second if scarce and s.commands_per_second > 0 else 0
        return max(self._quiet.pause(s.poll_fastest, s.poll_slowest), least)

    def just_asked(self, now: float) -> bool:
        """Whether squeue was asked so short a time ago that nothing need be new of jobs of which nothing has been new."""
        ago, pause = now - self._quiet.asked_at, self.pause()
        just_now = 0 <= ago < pause * _CRON_IS_EARLY
        if just_now:
            log.log(self._notices.each_pass, "slurm not asked, nothing has changed jobs=%d asked=%.0fs ago pause=%.0fs",
                    len(self._quiet.rows), ago, pause)  # fmt: skip
        return just_now


class Cancels:
    """What Slurm is asked to cancel: as few commands as it takes."""

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
