"""The passes of one process, and what it keeps from one to the next."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Callable, Optional

from scheduler import Scheduler, SpentOn

from .. import build
from ..build import Ends
from ..folder.jobs import JobsFolder
from ..settings import Config
from .budget import budget_of
from .guard import metrics_are_due
from .lease import Lease
from .notices import Notices, Stop
from .one_pass import Pass
from .pools import KnownIds
from .quiet import Quiet
from .tally import Uncounted
from .telling import tell

log = logging.getLogger(__name__)


class Passes:
    """`ends` is closed at the end. `open_scheduler`, `authenticate`: others than the site's scheduler and API."""

    def __init__(
        self, config: Config, jobs: JobsFolder, lease: Lease, ends: Ends, watching: bool = False,
        open_scheduler: Optional[Callable[[SpentOn], Scheduler]] = None,
        authenticate: Optional[Callable[[], str]] = None,
    ) -> None:  # fmt: skip
        self._config, self._jobs, self._lease, self._ends = config, jobs, lease, ends
        self._open_scheduler, self._authenticate = open_scheduler, authenticate or self._log_in
        self.stop = Stop()
        self.seen = Uncounted()
        self.budget, self.quiet = budget_of(config.site, jobs), Quiet(jobs.standing)
        self._notices, self._known = Notices(watching), KnownIds()
        self._latest: Optional[Pass] = None

    def __enter__(self) -> Passes:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()
        if self.budget.used:
            log.info("slurm commands %s", self.budget.in_words())

    def begin(self) -> Pass:
        """The next pass. Raises lease.Lost."""
        self._lease.check()
        self._notices.forget_gone(self._jobs.active)
        self._latest = Pass(
            self._config, self._jobs, self._lease, self._ends, lambda: self._scheduler, self._authenticate,
            self.budget, self.quiet, self._known, self.seen, self._notices, self.stop, self._latest,
        )  # fmt: skip
        return self._latest

    def run(self, drain: bool) -> int:
        """One pass, and what is told of it. Returns its exit code."""
        code = self.begin().run(drain)
        self.tell(code)
        return code

    def tell(self, code: int) -> None:
        """Counts what was seen and writes the metrics; where nothing was seen, only now and then."""
        if self.seen.jobs or self.seen.redelivered or self.budget.used or metrics_are_due(self._config):
            tell(self._config, self._jobs, self.seen, self.budget, code)

    @cached_property
    def _scheduler(self) -> Scheduler:
        spent_on = self.budget.spent_on
        return (
            self._open_scheduler(spent_on)
            if self._open_scheduler
            else build.open_scheduler(self._config.site, spent_on)
        )

    def _log_in(self) -> str:
        from ..api import Api

        return Api(self._config).authenticate()
