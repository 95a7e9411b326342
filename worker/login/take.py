"""Takes messages: from which queue, how many, and never more than can be submitted soon.

Queues are independent: one that can't be read keeps no other one from it, and they take turns for the places.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

from ..build import Ends
from ..installed import Workloads
from ..settings import Queue, Site
from ..sources import QueueFault
from .budget import LOOK, Budget
from .claiming import Claimed, Claiming
from .notices import Notices, Stop
from .pass_state import PassState
from .pools import BatchClaims
from .settle import Settler
from .submit import Submitter
from .turns import Turns

log = logging.getLogger(__name__)

_SOON = 3600.0
"""Seconds in which all that is claimed can be submitted, also if each job needs an sbatch of its own..."""
_FOR_ONE = LOOK + 3
"""...and each sbatch comes with a look, an scancel and an sbatch --test-only."""


class Taking:
    """`try_the_site`: raises SiteAway where a message would be taken into a dead site. `turns`: the file that says whose turn
    it is."""

    def __init__(
        self, site: Site, turns: Path, ends: Ends, workloads: Workloads, budget: Budget, batches: BatchClaims,
        claiming: Claiming, settler: Settler, submitter: Submitter, try_the_site: Callable[[], None], notices: Notices,
        stop: Stop, state: PassState,
    ) -> None:  # fmt: skip
        self._site, self._turns, self._ends, self._workloads, self._budget = site, turns, ends, workloads, budget
        self._batches, self._claiming, self._settler, self._submitter = batches, claiming, settler, submitter
        self._try_the_site, self._notices, self._stop, self._state = try_the_site, notices, stop, state

    def take(self, drain: bool) -> None:
        """Claims and acks messages as far as there are places, in rounds: in each one, the queues of the highest priority
        that have any get the same share. Login and Slurm are tried first: a message is not taken into a dead site."""
        turns = Turns(self._turns)
        left, open_queues = sys.maxsize if drain else 1, list(self._site.queues)
        while left > 0 and open_queues and not self._stop.asked:
            queues = self._with_messages(turns.in_order(open_queues))
            if not queues or not self._submitter.may_submit() or not self._may_claim():
                break
            self._try_the_site()
            share = max(1, min(left, self.places(queues[0])) // len(queues))
            open_queues = [queue for queue in open_queues if queue in queues or queue.priority < queues[0].priority]
            for queue in queues:
                wanted = min(left, share, self.places(queue), self._may_claim())
                taken = self._take_from(queue, wanted, drain) if wanted > 0 else 0
                left -= taken
                if taken:
                    turns.had(queue.name)
                else:
                    open_queues.remove(queue)
        turns.save(self._site.queues)

    def _with_messages(self, queues: Sequence[Queue]) -> list[Queue]:
        """Of the highest priority of which any queue has a message and a place for it."""
        found: list[Queue] = []
        for queue in queues:
            if found and queue.priority != found[0].priority:
                break
            with self._faults_noted(queue):
                if self.places(queue) > 0 and self._ends.source(queue).waiting(queue) > 0:
                    found.append(queue)
        return found

    def places(self, queue: Queue) -> int:
        """How many messages of it may be taken."""
        can_begin = queue.name not in self._state.faults.queues and self._workloads.can_begin(queue)
        if not can_begin or self._batches.room(queue) == 0:
            return 0
        return self._state.places.left(queue.name, self._site.max_in_flight)

    def _may_claim(self) -> int:
        """How many jobs more could be submitted soon; one could be now."""
        now = self._budget.left() - (self._submitter.commands_for_one() - 1) - LOOK
        soon = int(self._site.slurm.commands_per_second * _SOON / _FOR_ONE)
        return max(0, max(1, now) + soon - self._submitter.batches_of(self._state.ready))

    def _take_from(self, queue: Queue, wanted: int, drain: bool) -> int:
        """How many messages it was. What was claimed before the queue failed is settled all the same."""
        taken, claimed = 0, list[Claimed]()
        with self._faults_noted(queue):
            for count, jobs in self._claiming.claim(queue, wanted, drain):
                taken += count
                claimed += jobs
        if taken:
            self._ends.source(queue).ensure_acked()
        if queue.source:  # the broker's need no settling
            claimed = self._settled(queue, claimed)
        for job, facts in claimed:
            self._state.places.in_flight += 1
            self._settler.settle(job, facts)
        return taken

    def _settled(self, queue: Queue, claimed: Sequence[Claimed]) -> list[Claimed]:
        """Asked for all at once. What a crash leaves unsettled, the judge asks for one by one."""
        maybe = [job for job, facts in claimed if facts is None or facts.message.needs_settling]
        unsure = [(job, message) for job in maybe if (message := job.message.read()) and message.needs_settling]
        if unsure:
            self._settler.settle_claims(queue.name, unsure)
        return [(job, None if facts is None or facts.message.needs_settling else facts) for job, facts in claimed]

    @contextlib.contextmanager
    def _faults_noted(self, queue: Queue) -> Iterator[None]:
        """One queue that can't be read is its own trouble. A watch says it once."""
        try:
            yield
        except QueueFault as fault:
            self._state.faults.queues[queue.name] = str(fault)
            level = logging.ERROR if self._notices.is_news(queue.name, str(fault)) else logging.DEBUG
            log.log(level, "jobs queue can't be read, the others go on queue=%s why=%r", queue.name, str(fault))
