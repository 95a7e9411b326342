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

from ..errors import Transient
from ..folder import disk
from ..settings import Config, Queue
from ..sources import QueueFault
from . import one_pass
from .guard import guarded, tell_what_is_new
from .reconcile import Standing
from .take import disk_takes_a_claim, places
from .tools import Tools
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
    return guarded(config, lambda tools: _Watch(tools).run())


class _Watch:
    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._site = tools.config.site
        tools.watching = True
        self._free = 0
        """How many messages may be taken now..."""
        self._queues: list[Queue] = []
        """...and from where, the one first whose turn it is."""
        self._shunned: dict[str, float] = {}
        """Queues that can't be listened to, and when that is tried again."""
        self._paused = False
        self._back_off = 0.0
        self._code = os.EX_OK
        self._count: Counter[str] = Counter()
        self._told_at = self._renewed_at = time.monotonic()

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        log.info("watching queues=%s", ",".join(queue.name for queue in self._site.queues))
        try:
            while not self._tools.stopping:
                self._round()
            self._stop_listening()
        finally:
            signal.alarm(0)
            self._tools.quiet.save()
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
        while not self._tools.stopping and time.monotonic() < end:
            time.sleep(_SLICE)

    def _stop(self, *_: object) -> None:
        self._tools.stopping = True

    # --- one pass

    def _pass(self) -> None:
        """The alarm ends a pass that hangs, and the process with it: the next one, or cron, goes on where the files say."""
        standing, begun = Standing(), time.monotonic()
        signal.alarm(max(1, int(self._site.timing.lease_expires)))
        self._tools.renew()
        code = one_pass.run_pass(self._tools, drain=True, standing=standing)
        signal.alarm(0)
        self._code, self._paused = code, standing.paused is not None
        if self._tools.redelivered:
            self._count["redelivered"] += self._tools.redelivered
        tell_what_is_new(self._tools, code)
        self._count["passes"] += 1
        for name, times in self._tools.forget_commands().items():
            self._count[name] += times
        self._back_off = 0 if standing.well else min(_LONGEST_BACK_OFF, max(1, 2 * self._back_off))
        may_take = standing.well and one_pass.may_listen(self._tools, standing)
        may_take = may_take and disk_takes_a_claim(self._tools, try_it=not self._free)
        most = self._site.max_in_flight
        self._free = max(0, most - standing.in_flight) if may_take else 0
        if time.monotonic() - begun > _HEARTBEAT:
            self._tools.close()
        self._queues = self._worth_hearing(standing)
        if not (self._free and self._queues):
            self._stop_listening()

    def _worth_hearing(self, standing: Standing) -> list[Queue]:
        tools, now = self._tools, time.monotonic()
        self._shunned = {name: until for name, until in self._shunned.items() if now < until}
        in_order = Turns(tools.jobs.turns).in_order(self._site.queues)
        return [each for each in in_order if each.name not in self._shunned and places(tools, standing, each) > 0]

    def _stop_listening(self) -> None:
        try:
            if "ends" in self._tools.__dict__:
                self._tools.ends.stop_listening()
        except Transient:
            self._tools.close()

    # --- until the next one

    def _wait(self) -> str:
        """Why the next pass is due."""
        end = time.monotonic() + self._pause()
        while not self._tools.stopping:
            self._keep_up()
            left = min(_SLICE, end - time.monotonic())
            if left <= 0:
                return "clock"
            if self._heard(left):
                return "messages"
            if self._tools.jobs.rung():
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
            came = self._tools.ends.listen(heard, seconds)
            return came or any(self._tools.ends.source(queue).waiting(queue, make=False) > 0 for queue in others)
        except QueueFault as fault:
            log.warning("jobs queue can't be listened to, the others go on why=%r", str(fault))
            self._shunned[fault.queue] = time.monotonic() + _LONGEST_BACK_OFF
            return True
        except Transient as error:
            log.warning("broker away why=%r", str(error))
            self._tools.close()
            return True

    def _pause(self) -> float:
        """Seconds until the clock alone wakes us. With nothing in flight and everything well, it need not."""
        slurm, tools = self._site.slurm, self._tools
        if self._back_off:
            return self._back_off * random.uniform(0.8, 1.2)
        if (self._free or self._paused) and not tools.jobs.active_names() and tools.jobs.pilots_idle():
            return _HOUR if self._free and len(self._queues) == len(self._site.queues) else _LONGEST_BACK_OFF
        if not tools.traits.runs_commands:
            return max(1.0, slurm.poll_fastest)
        return max(1.0, slurm.poll_fastest, tools.quiet.asked_at + tools.slurm_pause - tools.server_now)

    def _keep_up(self) -> None:
        """The lease is ours as long as it is renewed; and once an hour it is told what was done."""
        now = time.monotonic()
        if now - self._renewed_at > self._site.timing.lease_expires / _LEASE_RENEWALS:
            self._tools.check_lease()
            self._tools.quiet.save()
            tell_what_is_new(self._tools, self._code)
            self._renewed_at = now
        if now - self._told_at > _HOUR:
            told = " ".join(f"{name}={times}" for name, times in sorted(self._count.items()))
            log.info("in the last hour %s", told)
            self._count.clear()
            self._told_at = now
