"""What one pass works with. Each tool is made when it is first needed: an empty pass imports and opens almost nothing."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from ..errors import Damaged, LoginRefused, Transient
from ..folder import paths
from ..folder.jobs import JobsFolder
from ..folder.records import Fact, T
from ..installed import Workloads
from ..settings import Config
from .away import SiteAway
from .budget import Budget
from .lease import Lease

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scheduler import Informant, JobView, Scheduler, Traits

    from ..build import Ends
    from .ids import Ids
    from .known_shapes import Shapes
    from .quiet import Quiet
    from .reserve import Reserve
    from .tally import Ended


log = logging.getLogger(__name__)


_CRON_IS_EARLY = 0.9
"""A pass that comes a little before its minute is over must not have to wait for the next one."""
_TOKEN_IS_OLD = 300.0
"""Seconds for which a login is known to be good."""
_LONGEST_RETRY_AFTER = 3600.0
"""Seconds; what an API asks for beyond it is not believed."""


@dataclass
class Tools:
    config: Config
    jobs: JobsFolder
    lease: Optional[Lease] = None
    opened: Optional[Ends] = None
    """Where jobs come from and answers go, if somebody has looked there already."""
    slurm_away: str = ""
    """What Slurm said in this pass instead of an answer."""
    slurm_answered: bool = False
    accounting_away: str = ""
    broker_away: str = ""
    pilot_ids: dict[Path, set[str]] = field(default_factory=dict)
    """By a pool's folder: the ids of the jobs in its open batches, once they were read..."""
    done_ids: dict[Path, Ids] = field(default_factory=dict)
    """...and of those that are done."""
    watching: bool = False
    """One process for many passes: it keeps what works, and asks Slurm by the clock."""
    there: set[str] = field(default_factory=set)
    """The ids of jobs and pilots that Slurm has, as far as this pass knows."""
    stopping: bool = False
    """Told to end: nothing new is begun."""
    slurm_answered_at: float = 0
    token_at: float = 0
    told: dict[str, int] = field(default_factory=dict)
    complaints: dict[str, str] = field(default_factory=dict)
    uploads_until: Optional[float] = None
    """By the clock that only rises: for so long this pass goes on with uploads."""
    damaged: int = 0
    """Files that were put aside in this pass."""
    redelivered: int = 0
    """Messages that came again: each was got before, and went back."""
    ended: list[Ended] = field(default_factory=list)
    """The jobs that were put away in this pass."""

    def now(self) -> float:
        return time.time()

    def renew(self) -> None:
        """Before another pass of the same process. A token may have been withdrawn, and Slurm may have gone away."""
        self.check_lease()
        if self.told:
            active = set(os.listdir(self.jobs.active))
            self.told = {job_id: times for job_id, times in self.told.items() if job_id in active}
        self.slurm_away = self.accounting_away = self.broker_away = ""
        self.damaged, self.uploads_until = 0, None
        self.workloads.look_again()
        slowest = self.config.site.slurm.poll_slowest
        self.slurm_answered = self.slurm_answered and 0 <= self.now() - self.slurm_answered_at < slowest
        self.__dict__.pop("shapes", None)
        self.__dict__.pop("reserve", None)
        if not 0 <= self.now() - self.token_at < _TOKEN_IS_OLD:
            self.__dict__.pop("token", None)

    def check_lease(self) -> None:
        """Before each sbatch and each publish. Raises lease.Lost."""
        if self.lease is not None:
            self.lease.check()

    @property
    def server_now(self) -> float:
        return self.lease.server_now if self.lease is not None else self.now()

    @cached_property
    def scheduler(self) -> Scheduler:
        """Its methods raise Spent besides their own errors."""
        return self.informant

    @cached_property
    def informant(self) -> Informant:
        from ..build import open_scheduler

        return open_scheduler(self.config.site, self.budget.spent_on)

    @cached_property
    def traits(self) -> Traits:
        """Of the site's scheduler, which need not be made for it."""
        from ..build import traits

        return traits(self.config.site)

    @cached_property
    def budget(self) -> Budget:
        s = self.config.site.slurm
        return Budget(self.jobs.budget, s.commands_per_second, s.commands_at_once)

    @cached_property
    def shapes(self) -> Shapes:
        """What Slurm declined. The file is looked for only where something is to be submitted."""
        from .known_shapes import Shapes

        return Shapes(self.jobs, self.config.site.slurm)

    @property
    def in_slurm(self) -> int:
        return len(self.there)

    @cached_property
    def quiet(self) -> Quiet:
        from .quiet import Quiet

        return Quiet(self.jobs.standing)

    @cached_property
    def workloads(self) -> Workloads:
        return Workloads(self.config.root, self.config.site)

    def may_use(self, work: str, commands: int) -> bool:
        """Whether so many Slurm commands are left for this work. If not, its turn comes."""
        return not self.rationed or self.budget.may(work, commands)

    def begin(self, work: str, commands: int) -> None:
        """The same, and this is its turn. Raises Spent."""
        if self.rationed:
            self.budget.begin(work, commands)

    def had_turn(self, work: str) -> None:
        if self.rationed:
            self.budget.had_turn(work)

    def leave_enough(self, commands: int) -> None:
        """Before people's questions, which take so many Slurm commands. Raises Spent."""
        if self.rationed:
            self.budget.leave_enough(commands)

    @property
    def rationed(self) -> bool:
        return self.traits.runs_commands

    def note(self, fact: Fact[T]) -> Optional[T]:
        """A fact that may be lost, since a pass finds it out anew. One that can't be read is put aside."""
        try:
            return fact.read()
        except Damaged as error:
            aside = paths.put_aside(fact.path)
            log.error("damaged, put aside as %s; what it said is found out anew what=%r", aside, str(error))
            self.damaged += 1
            return None

    @property
    def each_pass(self) -> int:
        """The level of what would be said again in each pass: fit for one a minute, and not for a process that watches."""
        return logging.DEBUG if self.watching else logging.INFO

    def is_new(self, job_id: str, times: int) -> bool:
        """Whether this process has not said it of the job yet."""
        before, self.told[job_id] = self.told.get(job_id), times
        return before != times

    def is_news(self, about: str, words: str) -> bool:
        """Whether this process has not said it yet, or has said something else since."""
        before, self.complaints[about] = self.complaints.get(about), words
        return before != words

    @property
    def asked_just_now(self) -> bool:
        """Whether squeue was asked so short a time ago that nothing need be new of jobs of which nothing has been new."""
        if not self.traits.runs_commands:
            return False
        ago, pause = self.server_now - self.quiet.asked_at, self.slurm_pause
        just_now = 0 <= ago < pause * _CRON_IS_EARLY
        if just_now:
            log.log(self.each_pass, "slurm not asked, nothing has changed jobs=%d asked=%.0fs ago pause=%.0fs",
                    len(self.quiet.rows), ago, pause)  # fmt: skip
        return just_now

    @property
    def slurm_pause(self) -> float:
        """Seconds between two questions about jobs of which nothing is new. Where the site allows few commands and half of
        them are used up, every second one is left for other things."""
        s = self.config.site.slurm
        scarce = self.budget.left() < s.commands_at_once / 2
        least = 2 / s.commands_per_second if scarce and s.commands_per_second > 0 else 0
        return max(self.quiet.pause(s.poll_fastest, s.poll_slowest), least)

    def ask_queue(self) -> Sequence[JobView]:
        """What Slurm shows; the one place that notes whether it answered in this pass. Empty where it did not.

        Raises Spent.
        """
        from scheduler import Unavailable

        try:
            views = self.scheduler.queue()
            self.slurm_answered, self.slurm_answered_at = True, self.now()
            return views
        except Unavailable as error:
            self.slurm_away = str(error)
            return []

    @cached_property
    def reserve(self) -> Reserve:
        from .reserve import Reserve

        return Reserve(self.jobs, self.config.site.limits.message_bytes)

    @cached_property
    def ends(self) -> Ends:
        """Where jobs come from, and where answers go."""
        from ..build import open_ends

        return self.opened or open_ends(self.config)

    @cached_property
    def token(self) -> str:
        """One login per pass, and none before the time that the API gave last. Raises SiteAway."""
        from ..api import Api
        from ..folder.facts import site_fault_of

        fault = self.note(site_fault_of(self.jobs))
        left = min(fault.not_before - self.now(), _LONGEST_RETRY_AFTER) if fault else 0
        if fault and left > 0:
            raise SiteAway(fault.kind, f"{fault.words}; it asked to be left alone for {left:.0f} s more", left)

        try:
            token = Api(self.config).authenticate()
            self.token_at = self.now()
            return token
        except LoginRefused as error:
            raise SiteAway("login", str(error)) from None
        except Transient as error:
            raise SiteAway("api", str(error), error.retry_after) from None

    @property
    def used_slurm(self) -> bool:
        return bool(self.commands_used)

    @property
    def commands_used(self) -> str:
        """How many of each kind, in words for the log."""
        used = self.__dict__["budget"].used if "budget" in self.__dict__ else {}
        return " ".join(f"{name}={times}" for name, times in sorted(used.items()))

    def tell_commands(self) -> None:
        if self.commands_used:
            log.info("slurm commands %s", self.commands_used)

    def forget_commands(self) -> dict[str, int]:
        """What was used since this was asked last."""
        if not self.used_slurm:
            return {}
        used = dict(self.budget.used)
        self.budget.used.clear()
        self.budget.seconds.clear()
        return used

    def rest(self) -> None:
        """What follows may take longer than the broker's heartbeat."""
        if not self.watching:
            self.close()

    def close(self) -> None:
        if "ends" in self.__dict__:
            self.ends.close()
