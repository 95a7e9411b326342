"""What the words of the site file stand for: the one place that knows the schedulers by name.

It imports a kind only once that kind is asked for: an empty pass and a compute node pay for none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from scheduler import Informant, SpentOn, Traits

    from .settings import Site


def traits(site: Site) -> Traits:
    """How the site's scheduler differs from others. Makes none, and loads no scheduler's code."""
    if site.scheduler == "local":
        from scheduler import ONE_MACHINE

        return ONE_MACHINE
    from slurm.traits import TRAITS

    return TRAITS


def open_scheduler(site: Site, spent_on: Optional[SpentOn] = None) -> Informant:
    """The site's scheduler. Nothing is asked of it yet, and no file is opened. `spent_on`: entered around each command
    that it runs; what this raises comes out of the scheduler's methods."""
    if site.scheduler == "local":
        from scheduler.local import Local

        return Local(site.jobs_dir / "local")
    from slurm.cluster import Slurm

    s = site.slurm
    return Slurm(
        s.bin_dir, s.account, s.partition, s.extra_options, s.accounting, s.command_timeout, s.array_limit, spent_on
    )
