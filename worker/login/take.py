"""Takes messages: from which queue, how many, and never more than can be submitted soon.

Queues are independent: one that can't be read keeps no other one from it, and they take turns for the places.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional

from ..errors import InvalidSpec
from ..folder import paths
from ..folder.batches import Pool
from ..folder.facts import JobFolder
from ..job.names import JobId
from ..job.snapshot import JobFacts
from ..settings import Queue
from ..sources import QueueFault, Taken, digest
from . import pilots, reconcile
from .away import SiteAway, disk_away
from .budget import LOOK
from .claim import claim, free_ids, has_id, note_acked, sync_names
from .reconcile import Standing
from .side_by_side import side_by_side
from .submit import batches_of, commands_for_one
from .tools import Tools
from .turns import Turns

log = logging.getLogger(__name__)

_AT_ONCE = 250
"""Messages that are held at the same time, until they are claimed."""
_INODES_OF_A_JOB = 30
_SOON = 3600.0
"""Seconds in which all that is claimed can be submitted, also if each job needs an sbatch of its own..."""
_FOR_ONE = LOOK + 3
"""...and each sbatch comes with a look, an scancel and an sbatch --test-only."""


Claimed = tuple[JobFolder, Optional[JobFacts]]
"""Without facts where the message is no valid job."""


def take(tools: Tools, standing: Standing, drain: bool) -> None:
    """Claims and acks messages as far as there are places, in rounds: in each one, the queues of the highest priority
    that have any get the same share. Login and Slurm are tried first: a message is not taken into a dead site."""
    turns = Turns(tools.jobs.turns)
    left, open_queues = sys.maxsize if drain else 1, list(tools.config.site.queues)
    while left > 0 and open_queues and not tools.stopping:
        queues = _with_messages(tools, standing, turns.in_order(open_queues))
        if not queues or not may_submit(tools) or not _may_claim(tools, standing):
            break
        _try_the_site(tools)
        share = max(1, min(left, places(tools, standing, queues[0])) // len(queues))
        open_queues = [queue for queue in open_queues if queue in queues or queue.priority < queues[0].priority]
        for queue in queues:
            wanted = min(left, share, places(tools, standing, queue), _may_claim(tools, standing))
            taken = _take_from(tools, standing, queue, wanted, drain) if wanted > 0 else 0
            left -= taken
            if taken:
                turns.had(queue.name)
            else:
                open_queues.remove(queue)
    turns.save(tools.config.site.queues)
    pilots.want(tools, standing)


def may_submit(tools: Tools) -> bool:
    """Counted before the first command of a submission: one that could not be finished would be begun in each pass. Where
    it is not enough, everybody else leaves it what it needs."""
    suffices = tools.may_use("submit", commands_for_one(tools))
    if not suffices:
        log.log(tools.each_pass, "no slurm commands are left for now, the next pass goes on")
    return suffices


def check_slurm(tools: Tools) -> None:
    """Raises SiteAway. A pass that asked before does not ask again; one with nothing open asks now."""
    if not tools.slurm_away and not tools.slurm_answered:
        tools.ask_queue()
    if tools.slurm_away:
        raise SiteAway("slurm", tools.slurm_away)


def _with_messages(tools: Tools, standing: Standing, queues: Sequence[Queue]) -> list[Queue]:
    """Of the highest priority of which any queue has a message and a place for it."""
    found: list[Queue] = []
    for queue in queues:
        if found and queue.priority != found[0].priority:
            break
        with faults_noted(tools, standing, queue):
            if places(tools, standing, queue) > 0 and tools.ends.source(queue).waiting(queue) > 0:
                found.append(queue)
    return found


def places(tools: Tools, standing: Standing, queue: Queue) -> int:
    if queue.name in standing.queue_faults or not tools.workloads.can_begin(queue) or pilots.room(tools, queue) == 0:
        return 0
    return standing.places(queue.name, tools.config.site.max_in_flight)


def _may_claim(tools: Tools, standing: Standing) -> int:
    """How many jobs more could be submitted soon; one could be now."""
    if not tools.rationed:
        return sys.maxsize
    now = tools.budget.left() - (commands_for_one(tools) - 1) - LOOK
    soon = int(tools.config.site.slurm.commands_per_second * _SOON / _FOR_ONE)
    return max(0, max(1, now) + soon - batches_of(tools, standing.ready))


def _try_the_site(tools: Tools) -> None:
    tools.token  # noqa: B018  # logs in, or raises SiteAway
    check_slurm(tools)
    _check_disk(tools)
    tools.rest()


def _take_from(tools: Tools, standing: Standing, queue: Queue, wanted: int, drain: bool) -> int:
    """How many messages it was. What was claimed before the queue failed is settled all the same."""
    taken, claimed = 0, list[Claimed]()
    with faults_noted(tools, standing, queue):
        for count, jobs in _claim_from(tools, queue, wanted, drain):
            taken += count
            claimed += jobs
    if taken:
        tools.ends.source(queue).ensure_acked()
    if queue.source:  # the broker's need no settling
        claimed = _settled(tools, queue, claimed)
    for job, facts in claimed:
        standing.in_flight += 1
        reconcile.settle(tools, job, standing, facts)
    return taken


def _settled(tools: Tools, queue: Queue, claimed: Sequence[Claimed]) -> list[Claimed]:
    """Asked for all at once. What a crash leaves unsettled, the judge asks for one by one."""
    maybe = [job for job, facts in claimed if facts is None or facts.message.needs_settling]
    unsure = [(job, message) for job in maybe if (message := job.message.read()) and message.needs_settling]
    if unsure:
        reconcile.settle_claims(tools, queue.name, unsure)
    return [(job, None if facts is None or facts.message.needs_settling else facts) for job, facts in claimed]


@contextlib.contextmanager
def faults_noted(tools: Tools, standing: Standing, queue: Queue) -> Iterator[None]:
    """One queue that can't be read is its own trouble. A watch says it once."""
    try:
        yield
    except QueueFault as fault:
        standing.queue_faults[queue.name] = str(fault)
        level = logging.ERROR if tools.is_news(queue.name, str(fault)) else logging.DEBUG
        log.log(level, "jobs queue can't be read, the others go on queue=%s why=%r", queue.name, str(fault))


def _claim_from(tools: Tools, queue: Queue, most: int, drain: bool) -> Iterator[tuple[int, list[Claimed]]]:
    """Up to `most` new folders, with the number of messages. What goes into batches for pilots is limited by the room that
    they have, and by one in a pass that takes one message."""
    source, pool = tools.ends.source(queue), pilots.pool_of(tools.config, tools.jobs, queue)
    room = pilots.room(tools, queue) if drain else 1
    while most > 0 and not tools.stopping and (pool is None or room > 0) and not paths.is_there(tools.jobs.paused):
        wanted = min(most, _AT_ONCE) if pool is None else min(room, queue.pilot.batch)
        messages = source.take(queue.name, wanted, wait=0)
        if not messages:
            return
        tools.redelivered += sum(taken.redelivered for taken in messages)
        for alike in _with_ids_together(messages):
            claimed = _claim_or_give_back(tools, queue, pool, alike)
            paths.crash_point("before ack")
            source.ack(alike)
            paths.crash_point("after ack")
            if not has_id(alike[0]):
                source.ensure_acked()
                note_acked(tools.jobs, alike[0], tools.now())
            most -= len(claimed)
            yield len(alike), claimed
        if not tools.reserve.held:
            raise SiteAway("disk", "the jobs folder's disk is full, or our quota of it")
        room -= len(messages)


def _with_ids_together(messages: Sequence[Taken]) -> Iterator[list[Taken]]:
    """Equal messages without ids are claimed and acked together: were we killed after the ack of the first, the second would
    come again marked as a redelivery, and be taken for the first."""
    for with_ids, alike in itertools.groupby(messages, has_id):
        equal: dict[str, list[Taken]] = {}
        for taken in alike:
            equal.setdefault("" if with_ids else digest(taken), []).append(taken)
        yield from equal.values()


def _claim_or_give_back(tools: Tools, queue: Queue, pool: Optional[Pool], messages: Sequence[Taken]) -> list[Claimed]:
    """The folders that are new. What was claimed before the disk failed is known when it comes again: a claim that failed may
    stand all the same, so without ids each message keeps the id that was free for it before the first try."""
    ids: Optional[list[Optional[JobId]]] = None
    try:
        ids = None if has_id(messages[0]) else free_ids(tools.jobs, messages)
        return _claim_all(tools, queue, pool, messages, ids)
    except OSError as error:
        try:
            if tools.reserve.give_up(error):
                again = [replace(taken, redelivered=True) for taken in messages]
                return _claim_all(tools, queue, pool, again, ids)
        except OSError:
            log.warning("a claim failed again, each message is tried alone queue=%s messages=%d",
                        queue.name, len(messages))  # fmt: skip
        return _claim_one_by_one(tools, queue, pool, messages, ids)


def _claim_one_by_one(
    tools: Tools, queue: Queue, pool: Optional[Pool], messages: Sequence[Taken], ids: Optional[list[Optional[JobId]]]
) -> list[Claimed]:
    """What the disk takes is claimed and acked, and only the rest goes back: each return counts."""
    claimed, left = list[Claimed](), list[Taken]()
    why: Optional[OSError] = None
    for place, taken in enumerate(messages):
        try:
            own = None if ids is None else ids[place : place + 1]
            claimed += _claim_all(tools, queue, pool, [replace(taken, redelivered=True)], own)
        except OSError as error:
            left, why = [*left, taken], error
    if why is None:
        return claimed
    source = tools.ends.source(queue)
    source.ack([taken for taken in messages if all(taken is not each for each in left)])
    log.warning("messages go back, because they can't be claimed queue=%s messages=%d why=%r",
                queue.name, len(left), why.strerror)  # fmt: skip
    for taken in reversed(left):
        source.give_back(taken)
    raise disk_away(why) from None


def _claim_all(
    tools: Tools, queue: Queue, pool: Optional[Pool], messages: Sequence[Taken], ids: Optional[list[Optional[JobId]]]
) -> list[Claimed]:
    """After the return all of them may be acked. `ids`: those of messages that have none of their own."""
    if ids is not None:
        named = [(each, job_id) for each, job_id in zip(messages, ids) if job_id is not None]
        return _on_disk(tools, messages, [_claim(tools, queue, each, (), job_id) for each, job_id in named])
    others = messages if pool is None else pilots.claim_batch(tools, queue, pool, messages)
    where = tools.jobs.places()
    return _on_disk(tools, others, side_by_side(lambda each: _claim(tools, queue, each, where), others))


def _on_disk(tools: Tools, messages: Sequence[Taken], claimed: Sequence[Optional[Claimed]]) -> list[Claimed]:
    if messages:
        sync_names(tools.jobs)
    return [each for each in claimed if each is not None]


def _claim(
    tools: Tools, queue: Queue, taken: Taken, where: Sequence[Path], job_id: Optional[JobId] = None
) -> Optional[Claimed]:
    """The message is understood at once, while others wait for the disk too; a rejection is left for later."""
    claimed = claim(tools.jobs, taken, tools.config.site.limits.message_bytes, tools.now(), where, job_id)
    if claimed is None:
        return None
    try:
        spec = reconcile.write_spec(tools.config, queue, claimed.job, taken.properties.reply_to, taken.body)
    except InvalidSpec:
        return claimed.job, None
    return claimed.job, JobFacts(replace(claimed.message, body=""), claimed.claimed_at, spec=spec)


def disk_takes_a_claim(tools: Tools, try_it: bool) -> bool:
    """Whether a message that came now could be claimed. `try_it`: also writes a file, which costs a sync."""
    try:
        _check_disk(tools) if try_it else _check_room(tools)
    except (SiteAway, OSError) as away:
        if tools.is_news("disk", str(away)):
            log.warning("messages are not listened for why=%r", str(away))
        return False
    tools.complaints.pop("disk", None)
    return True


def _check_disk(tools: Tools) -> None:
    """Raises SiteAway where a message might not fit: to give it back counts against a quorum queue's delivery limit."""
    _check_room(tools)
    try:
        tools.reserve.hold()
    except OSError as error:
        raise disk_away(error) from None


def _check_room(tools: Tools) -> None:
    disk = os.statvfs(tools.jobs.path)
    # Some file systems count no inodes, and say 0 of 0.
    no_inodes = disk.f_files > 0 and disk.f_favail < _INODES_OF_A_JOB
    if no_inodes or disk.f_bavail * disk.f_frsize < 2 * tools.config.site.limits.message_bytes:
        raise SiteAway("disk", "the jobs folder's disk is full")
