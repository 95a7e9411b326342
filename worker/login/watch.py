"""`check.py --watch`: pass after pass in one process. It wakes on a new message, on the bell of a job that has answered, and
by the clock for the rest; the facts on disk are all it knows, so that cron takes over at any moment, and back.

It listens only while a message may be taken: after a pass in which login, Slurm and broker were well.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections import Counter
from typing import Optional

from ..build import Ends, open_ends
from ..errors import Transient
from ..folder import disk
from ..folder.jobs import JobsFolder
from ..settings import Config, Queue, Site
from ..sources import QueueFault
from .guard import guarded
from .lease import Lease
from .one_pass import Pass
from .passes import Passes
from .turns import Turns

log = logging.getLogger(__name__)

_SLICE = 0.5
"""Seconds between two looks at the bells and at whether we are told to stop."""
_LONGEST_BACK_OFF = 60.0
_HEARTBEAT = 20.0
"""Seconds after which a connection that nobody served is opened anew, before the broker gives it up."""
_HOUR = 3600.0
_LEASE_RENEWALS = 20
"""In the time after which others would take a silent holder for dead."""


def watch(config: Config) -> int:
    """Returns an exit code: 0 when it was told to stop."""

    def watched(jobs: JobsFolder, held: Lease) -> int:
        ends = open_ends(config)
        with Passes(config, jobs, held, ends, watching=True) as passes:
            watch = _Watch(config.site, jobs, held, ends, passes)
            code = watch.run()
            passes.tell(code)
            return code

    return guarded(config, watched)


class _Watch:
    def __init__(self, site: Site, jobs: JobsFolder, lease: Lease, ends: Ends, passes: Passes) -> None:
        self._site, self._jobs, self._lease, self._ends, self._passes = site, jobs, lease, ends, passes
        self._free = 0
        """How many messages may be taken now..."""
        self._queues: list[Queue] = []
        """...and from where, the one first whose turn it is."""
        self._shunned: dict[str, float] = {}
        """Queues that can't be listened to, and when that is tried again."""
        self._paused = False
        self._back_off = 0.0
        self._latest: Optional[Pass] = None
        self._code = os.EX_OK
        self._count: Counter[str] = Counter()
        self._told_at = self._renewed_at = time.monotonic()

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        log.info("watching queues=%s", ",".join(queue.name for queue in self._site.queues))
        try:
            while not self._passes.stop.asked:
                self._round()
            self._stop_listening()
        finally:
            signal.alarm(0)
            self._passes.quiet.save()
        log.info("told to stop, stopped; jobs in Slurm go on, and any later pass takes over")
        return os.EX_OK

    def _round(self) -> None:
        """Not every look at the disk is a pass's: the lease and the bells are looked at in between."""
        try:
            self._pass()
            self._count[self._wait()] += 1
        except OSError as error:
            if not disk.is_away(error):
                raise
            signal.alarm(0)
            self._wait_for_the_disk(error)

    def _wait_for_the_disk(self, error: OSError) -> None:
        """Whether the lease is still ours then, the next pass finds out before it does anything."""
        log.error("site away, jobs wait and no message is taken kind=disk why=%r", disk.words(error))
        self._stop_listening()
        self._count["disk"] += 1
        self._back_off = min(_LONGEST_BACK_OFF, max(1, 2 * self._back_off))
        end = time.monotonic() + self._back_off
        while not self._passes.stop.asked and time.monotonic() < end:
            time.sleep(_SLICE)

    def _stop(self, *_: object) -> None:
        self._passes.stop.asked = True

    # --- one pass

    def _pass(self) -> None:
        """The alarm ends a pass that hangs, and the process with it: the next one, or cron, goes on where the files say."""
        begun = time.monotonic()
        signal.alarm(max(1, int(self._site.timing.lease_expires)))
        self._latest = one = self._passes.begin()
        self._code = one.run(drain=True)
        signal.alarm(0)
        self._paused = one.state.paused is not None
        if self._passes.seen.redelivered:
            self._count["redelivered"] += self._passes.seen.redelivered
        self._passes.tell(self._code)
        self._count["passes"] += 1
        self._count.update(self._passes.budget.forget_used())
        self._back_off = 0 if one.well else min(_LONGEST_BACK_OFF, max(1, 2 * self._back_off))
        may_take = one.may_listen(try_disk=not self._free)
        self._free = max(0, self._site.max_in_flight - one.state.places.in_flight) if may_take else 0
        if time.monotonic() - begun > _HEARTBEAT:
            self._ends.close()
        self._queues = self._worth_hearing(one)
        if not (self._free and self._queues):
            self._stop_listening()

    def _worth_hearing(self, one: Pass) -> list[Queue]:
        now = time.monotonic()
        self._shunned = {name: until for name, until in self._shunned.items() if now < until}
        in_order = Turns(self._jobs.turns).in_order(self._site.queues)
        return [each for each in in_order if each.name not in self._shunned and one.places(each) > 0]

    def _stop_listening(self) -> None:
        try:
            self._ends.stop_listening()
        except Transient:
            self._ends.close()

    # --- until the next one

    def _wait(self) -> str:
        """Why the next pass is due."""
        end = time.monotonic() + self._pause()
        while not self._passes.stop.asked:
            self._keep_up()
            left = min(_SLICE, end - time.monotonic())
            if left <= 0:
                return "clock"
            if self._heard(left):
                return "messages"
            if self._jobs.rung():
                return "bells"
        return "stop"

    def _heard(self, seconds: float) -> bool:
        """After a connection that was lost, the next pass finds out how things stand. To listen to no queue keeps the
        connection alive. A message that is heard is held, so no more queues are heard than messages may be taken; the
        others are asked how many they have."""
        if self._back_off:
            time.sleep(seconds)
            return False
        heard, others = self._queues[: self._free], self._queues[self._free :] if self._free else []
        try:
            came = self._ends.listen(heard, seconds)
            return came or any(self._ends.source(queue).waiting(queue, make=False) > 0 for queue in others)
        except QueueFault as fault:
            log.warning("jobs queue can't be listened to, the others go on why=%r", str(fault))
            self._shunned[fault.queue] = time.monotonic() + _LONGEST_BACK_OFF
            return True
        except Transient as error:
            log.warning("broker away why=%r", str(error))
            self._ends.close()
            return True

    def _pause(self) -> float:
        """Seconds until the clock alone wakes us. With nothing in flight and everything well, it need not."""
        if self._back_off:
            return self._back_off * random.uniform(0.8, 1.2)
        if (self._free or self._paused) and not self._jobs.active_names() and self._jobs.pilots_idle():
            return _HOUR if self._free and len(self._queues) == len(self._site.queues) else _LONGEST_BACK_OFF
        return max(1.0, self._site.slurm.poll_fastest, self._latest.pause() if self._latest else 0)

    def _keep_up(self) -> None:
        """The lease is ours as long as it is renewed; and once an hour it is told what was done."""
        now = time.monotonic()
        if now - self._renewed_at > self._site.timing.lease_expires / _LEASE_RENEWALS:
            self._lease.check()
            self._passes.quiet.save()
            self._passes.tell(self._code)
            self._renewed_at = now
        if now - self._told_at > _HOUR:
            told = " ".join(f"{name}={times}" for name, times in sorted(self._count.items()))
            log.info("in the last hour %s", told)
            self._count.clear()
            self._told_at = now
