"""What one pass works with. Each tool is made when it is first needed: an empty pass imports and opens almost nothing."""

from __future__ import annotations

import errno
import logging
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Optional

from ..broker import open_broker
from ..errors import LoginRefused, Transient
from ..folder import JobsFolder, read
from ..settings import Config
from .budget import Budget, RationedInformant
from .lease import Lease

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slurm import Informant, JobView, Scheduler

    from ..broker import Broker
    from .tally import Ended


log = logging.getLogger(__name__)


_LONGEST_RETRY_AFTER = 3600.0
"""Seconds; what an API asks for beyond it is not believed."""


class SiteAway(Exception):
    """Something of the site stops claimed jobs: they wait, and no new message is taken. `kind`: login, api, slurm, disk."""

    def __init__(self, kind: str, words: str, retry_after: float = 0) -> None:
        super().__init__(words)
        self.kind = kind
        self.retry_after = retry_after


def raise_if_disk(error: OSError) -> None:
    """Raises SiteAway where it is the disk that is at fault, and so every job's."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE):
        raise SiteAway("disk", f"the jobs folder can't be written: {error.strerror}") from None


@dataclass
class Tools:
    config: Config
    jobs: JobsFolder
    lease: Optional[Lease] = None
    slurm_away: str = ""
    """What Slurm said in this pass instead of an answer."""
    slurm_answered: bool = False
    accounting_away: str = ""
    broker_away: str = ""
    ended: list[Ended] = field(default_factory=list)
    """The jobs that were put away in this pass."""

    def now(self) -> float:
        return time.time()

    def check_lease(self) -> None:
        """Before each sbatch and each publish. Raises lease.Lost."""
        if self.lease is not None:
            self.lease.check()

    @property
    def server_now(self) -> float:
        return self.lease.server_now if self.lease is not None else self.now()

    @cached_property
    def scheduler(self) -> Scheduler:
        return self.informant

    @cached_property
    def informant(self) -> Informant:
        if self.config.site.scheduler == "local":
            from slurm.local import Local

            return Local(self.jobs.path / "local")
        from slurm.cluster import Slurm

        s = self.config.site.slurm
        slurm = Slurm(
            s.bin_dir, s.account, s.partition, s.extra_options, s.accounting, s.command_timeout, s.array_limit
        )
        return RationedInformant(slurm, self.budget)

    @cached_property
    def budget(self) -> Budget:
        s = self.config.site.slurm
        return Budget(self.jobs.budget, s.commands_per_second, s.commands_at_once)

    def ask_queue(self) -> Sequence[JobView]:
        """What Slurm shows; the one place that notes whether it answered in this pass. Empty where it did not.

        Raises Spent.
        """
        from slurm import Unavailable

        try:
            views = self.scheduler.queue()
            self.slurm_answered = True
            return views
        except Unavailable as error:
            self.slurm_away = str(error)
            return []

    @cached_property
    def broker(self) -> Broker:
        return open_broker(self.config)

    @cached_property
    def token(self) -> str:
        """One login per pass, and none before the time that the API gave last. Raises SiteAway."""
        from ..api import Api
        from ..facts import SiteFault

        fault = read(SiteFault, self.jobs.site_fault)
        left = min(fault.not_before - self.now(), _LONGEST_RETRY_AFTER) if fault else 0
        if fault and left > 0:
            raise SiteAway(fault.kind, f"{fault.words}; it asked to be left alone for {left:.0f} s more", left)

        try:
            return Api(self.config).authenticate()
        except LoginRefused as error:
            raise SiteAway("login", str(error)) from None
        except Transient as error:
            raise SiteAway("api", str(error), error.retry_after) from None

    @property
    def used_slurm(self) -> bool:
        return "budget" in self.__dict__ and bool(self.budget.used)

    def tell_commands(self) -> None:
        used = self.budget.used if self.used_slurm else {}
        if used:
            log.info("slurm commands %s", " ".join(f"{name}={times}" for name, times in sorted(used.items())))

    def close(self) -> None:
        if "broker" in self.__dict__:
            self.broker.close()
