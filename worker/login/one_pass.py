"""One pass: reconcile, then claim and ack up to the free slots, then authenticate and submit.

While something of the site stops claimed jobs, no new message is taken: the queue is the right place for them to wait.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Optional

from .. import answer, folder, sentences
from ..batches import Pool
from ..broker import Delivery
from ..errors import InvalidSpec, Transient
from ..facts import Message, SiteFault
from ..folder import JobFolder
from ..outcome import Result
from ..settings import Queue
from . import pilots, reconcile
from .claim import claim, has_id, note_acked
from .reconcile import Standing
from .side_by_side import side_by_side
from .submit import Ready, next_batch, submit
from .tools import SiteAway, Tools

log = logging.getLogger(__name__)

_AT_ONCE = 250
"""Messages that are held at the same time, until they are claimed."""
_INODES_OF_A_JOB = 30
_TO_SUBMIT = 3
"""Slurm commands: squeue, the question for the largest array, sbatch."""


def run_pass(tools: Tools, drain: bool, standing: Optional[Standing] = None) -> int:
    """Returns one of the exit codes that `check.py --help` lists. `standing`: where to note how things stand then."""
    standing = standing or Standing()
    try:
        return _run(tools, standing, drain)
    finally:
        if not tools.watching:
            tools.quiet.save()


def _run(tools: Tools, standing: Standing, drain: bool) -> int:
    try:
        reconcile.reconcile(tools, standing, pilots.open_attempts(tools))
        pilots.tend(tools, standing)
        _submit_all(tools, standing)
        if may_take(tools, standing):
            _take(tools, standing, sys.maxsize if drain else 1)
            _submit_all(tools, standing)
        if not standing.unclear:
            folder.remove(tools.jobs.site_fault)
    except SiteAway as away:
        return _wait_for_the_site(tools, standing, away)
    except Transient as error:
        log.warning("broker away why=%r", str(error))
        return os.EX_UNAVAILABLE
    if tools.broker_away or tools.slurm_away or tools.accounting_away or standing.unclear:
        return os.EX_UNAVAILABLE
    return os.EX_DATAERR if standing.left_alone else os.EX_OK


def may_take(tools: Tools, standing: Standing) -> bool:
    """Not while an sbatch is unclear, or answers can't leave: the queue is the right place to wait."""
    if standing.unclear:
        fault = folder.read(SiteFault, tools.jobs.site_fault)
        log.warning(
            "an sbatch was unclear, no message is taken until Slurm has told twice jobs=%d why=%r",
            standing.unclear, fault.words if fault else "",
        )  # fmt: skip
    if standing.unclear or standing.ready or tools.broker_away:
        return False
    return _budget_suffices(tools, _TO_SUBMIT)


def _budget_suffices(tools: Tools, commands: int) -> bool:
    suffices = tools.config.site.scheduler == "local" or tools.budget.left() >= commands
    if not suffices:
        log.log(tools.each_pass, "no slurm commands are left for now, the next pass goes on")
    return suffices


def _submit_all(tools: Tools, standing: Standing) -> None:
    """Raises SiteAway; what was not submitted then stays in `standing.ready`."""
    if standing.ready and _budget_suffices(tools, _TO_SUBMIT):
        _check_slurm(tools)
        tools.rest()
    fault = folder.read(SiteFault, tools.jobs.site_fault) if standing.ready else None
    while standing.ready and not tools.stopping and _budget_suffices(tools, _TO_SUBMIT):
        batch = next_batch(tools, standing.ready)
        submit(tools, [each for each in batch if not (fault and _gives_up(tools, each, fault))])
        tools.quiet.changed_at = tools.server_now
        done = {job.id for job, _ in batch}
        standing.ready = [(job, step) for job, step in standing.ready if job.id not in done]
        for job, _ in batch:
            reconcile.settle(tools, job, standing)


def _gives_up(tools: Tools, ready: Ready, fault: SiteFault) -> bool:
    """One that may have been submitted before, and that Slurm surely does not have, has waited for long enough."""
    job, step = ready
    return step.again is not None and _give_up_after_patience(tools, job, step.attempt, fault)


def _take(tools: Tools, standing: Standing, most: int) -> None:
    """Claims and acks up to `most` messages. Login and Slurm are tried first: a message is not taken into a dead site."""
    claimed: list[JobFolder] = []
    for queue in tools.config.site.queues:
        places = standing.places(queue.name, tools.config.site.max_in_flight)
        wanted = min(most, places) - len(claimed)
        if wanted > 0 and tools.broker.waiting(queue) > 0:
            tools.token  # noqa: B018  # logs in, or raises SiteAway
            _check_slurm(tools)
            _check_disk(tools)
            tools.rest()
            claimed += _claim_from(tools, queue, wanted)
    if claimed:
        tools.broker.settle()
    for job in claimed:
        standing.in_flight += 1
        reconcile.settle(tools, job, standing)
    pilots.want(tools, standing)


def _claim_from(tools: Tools, queue: Queue, most: int) -> Iterator[JobFolder]:
    """Up to `most` new folders. What goes into batches for pilots is limited by the room that they have, and by one in a
    pass that takes one message."""
    pool = pilots.pool_of(tools.config, tools.jobs, queue)
    room = 1 if most == 1 else pilots.room(tools, queue)
    while most > 0 and not tools.stopping and (pool is None or room > 0):
        wanted = min(most, _AT_ONCE) if pool is None else min(room, queue.pilot.batch)
        deliveries = tools.broker.get_many(queue.name, wanted, wait=0)
        if not deliveries:
            return
        for alike in _with_ids_together(deliveries):
            claimed = _claim_or_give_back(tools, queue, pool, alike)
            folder.passing("before ack")
            tools.broker.ack_many(alike)
            folder.passing("after ack")
            if not has_id(alike[0]):
                tools.broker.settle()
                note_acked(tools.jobs, alike[0], tools.now())
            most -= len(claimed)
            yield from claimed
        room -= len(deliveries)


def _with_ids_together(deliveries: Sequence[Delivery]) -> Iterator[list[Delivery]]:
    """Of equal messages without ids, the next one is told from a redelivery by the ack of the one before."""
    for with_ids, alike in itertools.groupby(deliveries, has_id):
        together = list(alike)
        yield from [together] if with_ids else [[each] for each in together]


def _claim_or_give_back(
    tools: Tools, queue: Queue, pool: Optional[Pool], deliveries: Sequence[Delivery]
) -> list[JobFolder]:
    """The folders that are new. What was claimed before the disk failed will be known when it comes again."""
    try:
        others = deliveries if pool is None else pilots.claim_batch(tools, queue, pool, deliveries)
        return [job for job in side_by_side(lambda each: _claim(tools, queue, each), others) if job is not None]
    except OSError as error:
        for delivery in reversed(deliveries):
            tools.broker.give_back(delivery)
        raise SiteAway("disk", f"the jobs folder can't be written: {error.strerror}") from None


def _claim(tools: Tools, queue: Queue, delivery: Delivery) -> Optional[JobFolder]:
    """The message is understood at once, while others wait for the disk too; a rejection is left for later."""
    job = claim(tools.jobs, delivery, tools.config.site.limits.message_bytes, tools.now())
    if job is not None:
        with contextlib.suppress(InvalidSpec):
            reconcile.write_spec(tools.config, queue, job, delivery.properties.reply_to, delivery.body)
    return job


def _check_slurm(tools: Tools) -> None:
    """Raises SiteAway. A pass that asked before does not ask again; one with nothing open asks now."""
    if not tools.slurm_away and not tools.slurm_answered:
        tools.ask_queue()
    if tools.slurm_away:
        raise SiteAway("slurm", tools.slurm_away)


def _check_disk(tools: Tools) -> None:
    """Raises SiteAway where a message might not fit: to give it back counts against a quorum queue's delivery limit."""
    disk = os.statvfs(tools.jobs.path)
    # Some file systems count no inodes, and say 0 of 0.
    no_inodes = disk.f_files > 0 and disk.f_favail < _INODES_OF_A_JOB
    if no_inodes or disk.f_bavail * disk.f_frsize < 2 * tools.config.site.limits.message_bytes:
        raise SiteAway("disk", "the jobs folder's disk is full")


def _wait_for_the_site(tools: Tools, standing: Standing, away: SiteAway) -> int:
    """Notes since when the site is away, and answers the jobs that have waited for too long."""
    log.error(
        "site away, jobs wait and no message is taken kind=%s waiting=%d why=%r",
        away.kind, len(standing.ready), str(away),
    )  # fmt: skip
    try:
        fault = folder.read(SiteFault, tools.jobs.site_fault)
        if fault is None or fault.kind != away.kind or (away.retry_after and tools.now() >= fault.not_before):
            # A site that is away now for one reason and now for another has been away all the time.
            not_before = tools.now() + away.retry_after if away.retry_after else 0
            fault = SiteFault(away.kind, str(away), fault.since if fault else tools.now(), not_before)
            folder.write(tools.jobs.site_fault, fault)
        ready, standing.ready = standing.ready, []
        for job, step in ready:
            # One with an intent may be running: Slurm is asked first.
            intended = job.attempt(step.attempt).intent.exists()
            if not intended and _give_up_after_patience(tools, job, step.attempt, fault):
                reconcile.settle(tools, job, standing)
    except SiteAway as error:
        log.error("site away too kind=%s why=%r", error.kind, str(error))
    except OSError as error:
        log.error("jobs folder can't be written why=%r", error.strerror)
    return os.EX_NOPERM if away.kind == "login" else os.EX_UNAVAILABLE


_WORDS = {
    "login": "the service's account was refused",
    "api": "the service's own web address could not be reached from the cluster",
    "slurm": "the cluster did not take new jobs",
    "disk": "the cluster's disk could not be written",
}


def _give_up_after_patience(tools: Tools, job: JobFolder, number: int, fault: SiteFault) -> bool:
    """Only for a job that Slurm surely does not have. True where it has its result now."""
    timing = tools.config.site.timing
    patience = timing.login_patience if fault.kind == "login" else timing.patience
    message, attempt = folder.read(Message, job.message), job.attempt(number)
    waited = tools.now() - max(message.claimed_at if message else 0, fault.since)
    if waited < patience:
        return False
    reason = sentences.site_away(_WORDS[fault.kind], waited)
    folder.make_folder(attempt.path)
    answer.record(attempt, Result("failed", number, reason, step="submit", ended_at=tools.now()))
    return True
