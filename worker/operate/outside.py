"""What only others know: how many messages wait, and what Slurm shows. Whoever does not answer is named, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional

from scheduler import JobView, Unavailable, elements

from ..build import open_ends
from ..errors import Transient
from ..folder.jobs import JobsFolder
from ..job.facts import Intent
from ..login.budget import Spent, scheduler_for_people
from ..settings import Config, Site
from ..sources import QueueFault


@dataclass
class Outside:
    """The answers, and for each one that did not answer, why."""

    waiting: dict[str, int] = field(default_factory=dict)
    """Messages by queue."""
    queue_faults: dict[str, str] = field(default_factory=dict)
    """Queues that can't be read: why, and what to do."""
    broker_away: str = ""
    slurm_away: str = ""
    views: Mapping[tuple[str, Optional[int]], JobView] = field(default_factory=dict)
    """By Slurm name and element (None for a job that is no array)."""

    def view(self, intent: Optional[Intent]) -> Optional[JobView]:
        if intent is None:
            return None
        return self.views.get((intent.name, intent.element)) or self.views.get((intent.name, None))


def ask(config: Config, jobs: JobsFolder, broker: bool = True, slurm: bool = True) -> Outside:
    """One passive declare per queue, and one squeue, which counts against the budget of Slurm commands."""
    outside = Outside()
    if broker:
        _ask_broker(outside, config)
    if slurm:
        _ask_slurm(outside, config.site, jobs)
    return outside


def _ask_broker(outside: Outside, config: Config) -> None:
    ends = open_ends(config)
    try:
        for queue in config.site.queues:
            try:
                outside.waiting[queue.name] = ends.source(queue).waiting(queue, make=False)
            except QueueFault as fault:
                outside.queue_faults[queue.name] = str(fault)
    except Transient as error:
        outside.broker_away = str(error)
    finally:
        ends.close()


def _ask_slurm(outside: Outside, site: Site, jobs: JobsFolder) -> None:
    try:
        views = scheduler_for_people(site, jobs, 1).queue()
    except Spent:
        outside.slurm_away = "its commands are used up for now (slurm.commands_per_second)"
    except Unavailable as error:
        outside.slurm_away = str(error)
    else:
        outside.views = {(view.name, element): view for view in views for element in elements(view.slurm_id) or [None]}
