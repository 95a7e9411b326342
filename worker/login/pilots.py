"""The login side of pilots: claims jobs in batches, keeps as many pilots as there is work for, and goes on where one ended.

A job that was begun in a pilot and has no end there, and one that has to be tried again, leaves its batch for a folder of
its own: from then on it is a job like any other, with that as its first attempt. So does an answer that no pilot could
send. What was not begun goes back to todo.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Optional

from ..config import as_frozen
from ..errors import Damaged, InvalidSpec
from ..fit import unfit_for_pilots
from ..folder import batches, closed, fence, frozen, paths
from ..folder.answer import record
from ..folder.batches import PILOT, Batch, Claimed, Handed, Pilot, Pool
from ..folder.facts import AttemptFolder, JobFolder, write_reply
from ..folder.jobs import JobsFolder
from ..folder.journal import Came, Journal, Progress, close_last_lease, read_progress
from ..folder.snapshot import read_attempt
from ..job import judge, sentences
from ..job.facts import Asked, Cancel, Ended, Origin, Outcome, Unfit
from ..job.names import JobId
from ..job.outcome import Result
from ..job.snapshot import AttemptFacts
from ..job.spec import JobSpec, Resources
from ..settings import Config, Queue, Timing
from ..sources import Taken, digest
from . import archive, declined, reconcile, tally
from .away import raise_if_disk
from .claim import as_message, has_id, was_done
from .days import day_of
from .ids import Ids
from .reconcile import Standing
from .tools import Tools

log = logging.getLogger(__name__)

_UNFIT_FOR = 3600.0
"""Seconds after which pilots are tried again where they could not do their work."""
_FAILURES = 3
"""Pilots that ended, one after the other, before they began."""


def pools(config: Config, jobs: JobsFolder) -> list[tuple[Queue, Pool]]:
    """Those of queues that have, or had, jobs for pilots."""
    found = [(queue, pool_of(config, jobs, queue)) for queue in config.site.queues]
    return [(queue, pool) for queue, pool in found if pool is not None]


def pool_of(config: Config, jobs: JobsFolder, queue: Queue) -> Optional[Pool]:
    """None for a queue without pilots."""
    pool = Pool(jobs, queue.name)
    uses_pilots = queue.mode == "pilot" or any(each.mode == "pilot" for each in config.site.workloads.values())
    return pool if uses_pilots or pool.path.is_dir() else None


# --- claiming


def claim_batch(tools: Tools, queue: Queue, pool: Pool, messages: Sequence[Taken]) -> list[Taken]:
    """Claims those that a pilot may run, as one batch, and passes over those that a batch has. Returns the others: each
    needs a folder of its own. Raises OSError before anything is claimed.
    """
    keep_bytes, now = tools.config.site.limits.message_bytes, tools.now()
    others: list[Taken] = []
    batch: dict[str, Claimed] = {}
    synced = False
    too_large: Counter[str] = Counter()
    named = [(JobId(digest(each)), each) for each in messages]
    known = _known(tools, pool, [job_id for job_id, each in named if has_id(each)])
    fit = _unfit(tools, pool) is None
    for job_id, taken in named:
        if has_id(taken) and (job_id in known or job_id in batch):
            if taken.redelivered and not synced:
                synced = batches.sync_places(pool)
            log.info("claimed before, acked again job=%s", job_id)
            continue
        spec = _for_a_pilot(tools, queue, taken, too_large) if fit and has_id(taken) else None
        if spec is not None and not was_done(tools.jobs, job_id) and tools.jobs.find(job_id) is None:
            message = as_message(taken, keep_bytes, now)
            batch[job_id] = Claimed(job_id, message, spec.resources, workload=spec.workload)
        else:
            others.append(taken)
    for why, count in too_large.items():
        log.warning("no pilot can take these, each gets a Slurm job of its own queue=%s jobs=%d why=%r",
                    queue.name, count, why)  # fmt: skip
    if batch:
        pool.prepare()
        added = batches.add(pool, list(batch.values()), now, tools.config.site_text)
        tools.pilot_ids.setdefault(pool.path, set()).update(batch)
        log.info("claimed batch=%s queue=%s jobs=%d", added.id, queue.name, len(batch))
    return others


def room(tools: Tools, queue: Queue) -> int:
    """How many more jobs may be claimed for pilots; for a queue without any, there is no such limit. None where it can't be
    seen what there is: the queue is the right place to wait until somebody repairs it."""
    pool = pool_of(tools.config, tools.jobs, queue)
    try:
        return sys.maxsize if pool is None else max(0, queue.pilot.max_open - _open_jobs(pool))
    except Damaged:  # reported where its batches are tended
        return 0


def _for_a_pilot(tools: Tools, queue: Queue, taken: Taken, too_large: Counter[str]) -> Optional[JobSpec]:
    """None for a job that needs a Slurm job of its own, or no job at all: an ordinary claim tells the rest."""
    config = tools.config
    if taken.needs_settling:
        return None
    try:
        spec = reconcile.understand(config, queue, taken.properties.reply_to, taken.body)
    except InvalidSpec:
        return None
    if tools.workloads.why_stopped(spec.workload):
        return None
    mode = config.site.workloads[spec.workload].mode_in(queue)
    if mode != "pilot":
        return None
    why = unfit_for_pilots(spec.resources, queue.pilot, config.site.timing)
    too_large.update([why] if why else [])
    return None if why else spec


def _known(tools: Tools, pool: Pool, ids: Sequence[str]) -> set[str]:
    """Those that a batch has, open or done."""
    if not pool.path.is_dir():
        return set()
    if pool.path not in tools.pilot_ids:
        tools.pilot_ids[pool.path] = pool.open_ids()
    done = _done_ids(tools, pool)
    known = (tools.pilot_ids[pool.path] & set(ids)) | done.known(ids)
    tools.damaged += done.lost
    done.lost = 0
    return known


def _done_ids(tools: Tools, pool: Pool) -> Ids:
    """One for all batches of this process: to read them takes a time that grows with all jobs that were ever done."""
    return tools.done_ids.setdefault(pool.path, Ids(pool.path / "ids"))


def _open_jobs(pool: Pool) -> int:
    return sum(batch.count for batch in pool.open_batches())


# --- pilots, as the scheduler sees them


def open_attempts(tools: Tools) -> list[tuple[JobFolder, AttemptFacts]]:
    """What Slurm has to be asked about. One that can't be read is reported where it is tended."""
    return [(crew, facts) for crew in _crew(tools) if (facts := _read_facts(crew)) is not None and facts.open]


def _crew(tools: Tools) -> list[JobFolder]:
    """None where it can't be seen who there is: that is reported where they are tended."""
    with contextlib.suppress(Damaged):
        return batches.crew(tools.jobs)
    return []


def _read_facts(crew: JobFolder) -> Optional[AttemptFacts]:
    """None where they can't be read."""
    try:
        return read_attempt(crew.attempt(1))
    except Damaged:
        return None
    except OSError as error:
        raise_if_disk(error)
        return None


def tend(tools: Tools, standing: Standing) -> None:
    """After Slurm was asked: takes back what ended pilots had, closes batches that are through, wants more pilots."""
    with reconcile.left_alone_if_bad(JobFolder(batches.crew_of(tools.jobs)), standing):
        for crew in batches.crew(tools.jobs):
            with reconcile.left_alone_if_bad(crew, standing):
                _tend_pilot(tools, crew, standing)
    for queue, pool in pools(tools.config, tools.jobs):
        with reconcile.left_alone_if_bad(JobFolder(pool.path), standing):
            _tend_pool(tools, queue, pool, standing)
    want(tools, standing)


def _tend_pool(tools: Tools, queue: Queue, pool: Pool, standing: Standing) -> None:
    if not os.path.lexists(pool.path):
        return
    batches.remove_half_made(pool)
    if os.path.lexists(pool.put_back_asked.path):
        from ..operate.pilots import obey

        obey(pool, tools.config.site_text)
    _take_back_orphans(tools, pool)
    asked = pool.asked_to_cancel()
    _take_asked(pool, asked, standing)
    for batch in pool.batches(pool.ended):
        with reconcile.left_alone_if_bad(JobFolder(batch.path), standing):
            _close(tools, pool, batch, standing)
    _give_up_waiting(tools, queue, pool, standing)
    _settle_cancels(tools, pool, asked)


def _take_asked(pool: Pool, asked: Set[JobId], standing: Standing) -> None:
    """Out of todo, before a pilot takes it: the rename decides who answers a job that somebody wants to end."""
    for batch in pool.batches(pool.todo) if asked else ():
        with reconcile.left_alone_if_bad(JobFolder(batch.path), standing), contextlib.suppress(FileNotFoundError):
            if asked & _unfinished(batch):
                batches.move(batch, pool.ended / f"{batch.path.name}~")


def _settle_cancels(tools: Tools, pool: Pool, asked: Set[JobId]) -> None:
    """Once no open batch has the job: what is asked goes on in the folder of its own, if it has one by now."""
    open_ids: set[JobId] = set()
    for batch in pool.open_batches() if asked else ():
        try:
            open_ids |= _unfinished(batch)
        except FileNotFoundError:  # a pilot has just taken it, or put it back
            return
    for job_id in asked - open_ids:
        job = tools.jobs.find(job_id)
        if job is not None:
            _hand_on_cancel(pool.wish(job_id), job)
        pool.cancel_asked(job_id).remove()


def _unfinished(batch: Batch) -> set[JobId]:
    """Its jobs that have come to nothing yet. Raises Damaged; FileNotFoundError where a pilot has just moved it."""
    try:
        jobs, progress = batches.read_jobs(batch), read_progress(batch)
    except Damaged:
        os.stat(batch.path)
        raise
    return {each.id for each in jobs if each.id not in progress.came and each.id not in progress.handed}


def _hand_on_cancel(asked: Optional[Asked], job: JobFolder) -> None:
    if asked is not None and not job.outcome.is_there() and not job.cancel_asked.is_there():
        job.cancel_asked.write(asked)


def _tend_pilot(tools: Tools, crew: JobFolder, standing: Standing) -> None:
    facts, timing = read_attempt(crew.attempt(1)), tools.config.site.timing
    pilot = batches.pilot_file(crew).read()
    clock = judge.Clock(tools.now(), tools.server_now)
    if pilot is None and facts.intent is not None:
        raise Damaged(f"{batches.pilot_file(crew)} is gone")
    closed = facts.closed or (_is_hopeless(facts, timing, clock) and fence.close(crew.attempt(1), None, clock.now))
    if facts.intent is None or pilot is None:  # a pass was killed before it could submit it
        paths.remove_tree(crew.path)
    elif facts.surely_not_there and facts.ended is None:
        _give_up_declined(tools, crew, facts)
    elif facts.ended is None and judge.is_lost(facts, timing) and (closed or facts.started is not None):
        # One whose submission was unclear, and that never came to be, had nothing.
        crew.attempt(1).ended.write(Ended("lost", "unknown to Slurm", tools.now()))
    elif facts.ended is not None and judge.is_silent(facts, timing, clock):
        if _take_back(tools, crew, pilot, standing) and judge.surely_over(facts, timing, clock):
            _put_away(tools, crew, pilot, facts)


def _give_up_declined(tools: Tools, crew: JobFolder, facts: AttemptFacts) -> None:
    """Another one follows when its shape is tried again. Where Slurm wants no such pilot at all, jobs go the ordinary way."""
    assert facts.declined is not None and facts.intent is not None
    attempt, words, now = crew.attempt(1), f"Slurm declines pilots: {facts.declined.words}", tools.now()
    if not fence.close(attempt, Cancel("rejected", words, now), now):
        return
    if facts.declined.final or declined.blames_the_job(tools, facts.intent.resources):
        attempt.unfit.write(Unfit(words, now))
    attempt.ended.write(Ended("rejected", "declined", now))


def _is_hopeless(facts: AttemptFacts, timing: Timing, clock: judge.Clock) -> bool:
    """Nobody has seen it start, and nobody waits for it any longer."""
    never_seen = facts.intent is not None and facts.ended is None and facts.started is None
    return never_seen and (judge.is_lost(facts, timing) or judge.given_up(facts, timing, clock) is not None)


def _take_back(tools: Tools, crew: JobFolder, pilot: Pilot, standing: Standing) -> bool:
    """The pilot is dead, as Slurm says: what it had is moved out of its reach first, and looked at once nothing of it can
    leave any more. Whether that is so of all."""
    pool = Pool(tools.jobs, pilot.queue)
    for batch in pool.batches(pool.locked):
        if batch.pilot == crew.id:
            _move_to_ended(pool, batch)
    return all([_close(tools, pool, batch, standing) for batch in pool.batches(pool.ended) if batch.pilot == crew.id])


def _put_away(tools: Tools, crew: JobFolder, pilot: Pilot, facts: AttemptFacts) -> None:
    pool = Pool(tools.jobs, pilot.queue)
    _note_fitness(tools, pool, crew, facts, crew.attempt(1).unfit.read())
    log.info(
        "pilot ended pilot=%s slurm=%s state=%s", crew.id, facts.slurm_id, facts.ended.state if facts.ended else ""
    )
    archive.archive_pilot(tools.jobs, crew, pool, tools.now())


def _take_back_orphans(tools: Tools, pool: Pool) -> None:
    """Batches whose pilot is long gone: it took them at its very end, and that was seen late."""
    alive = {crew.id for crew in batches.crew(tools.jobs)}
    for batch in pool.batches(pool.locked):
        crew = batches.pilot_folder(tools.jobs, batch.pilot)
        if batch.pilot not in alive and not (crew and paths.is_there(crew.path)):
            _move_to_ended(pool, batch)


def _move_to_ended(pool: Pool, batch: Batch) -> None:
    """A pilot that is not as dead as Slurm says may be doing the same."""
    with contextlib.suppress(FileNotFoundError):
        batches.move(batch, pool.ended / batch.path.name)


def _note_fitness(tools: Tools, pool: Pool, crew: JobFolder, facts: AttemptFacts, unfit: Optional[Unfit]) -> None:
    """Where pilots can't do their work, jobs go the ordinary way for a while: that is slower, and as true."""
    failures = pool.path / "failures"
    if unfit is None and facts.started is None and facts.ended is not None and facts.cancel is None:
        with open(failures, "a", encoding="utf-8") as file:
            file.write(f"{crew.id} {facts.ended.state}\n")
        if len(failures.read_text(encoding="utf-8").splitlines()) >= _FAILURES:
            unfit = Unfit(f"{_FAILURES} pilots ended before they began ({facts.ended.state})", tools.now())
    if facts.started is not None or unfit is not None:
        paths.remove(failures)
    if unfit is not None:
        pool.unfit.write(replace(unfit, since=tools.now()))


def _unfit(tools: Tools, pool: Pool) -> Optional[Unfit]:
    unfit = tools.note(pool.unfit)
    return unfit if unfit is not None and tools.now() - unfit.since < _UNFIT_FOR else None


# --- batches that came back


def _close(tools: Tools, pool: Pool, batch: Batch, standing: Standing) -> bool:
    """False while something of it may not be seen yet. Nothing of its pilot's counts any more afterwards. Doing this twice is
    harmless: what was handed on is found, and the move comes last."""
    if not close_last_lease(batch, tools.server_now, tools.config.site.timing.visible_after):
        return False
    crew = batches.pilot_folder(tools.jobs, batch.pilot)
    ended = crew.attempt(1).ended.read() if crew is not None else None
    jobs, progress, asked = batches.read_jobs(batch), read_progress(batch), pool.asked_to_cancel()
    handed, left, came, counted = [], 0, Counter[str](), list[tally.Ended]()
    for place, claimed in enumerate(jobs):
        if claimed.id in progress.handed:
            came["left"] += 1
            continue
        known, begun = progress.came.get(claimed.id), _may_have_begun(place, claimed, progress, ended)
        if known is not None and claimed.id in progress.sent:
            came["succeeded" if known.result.outcome == "succeeded" else "failed"] += 1
            counted.append(tally.of_a_pilot(claimed.workload, known.result, tools.now()))
        elif known is not None or begun or claimed.id in asked:
            cut_off = _cut_off(claimed, progress, ended, crew) if begun else None
            _hand_on(tools, batch, claimed, known or cut_off, standing)
            handed.append(claimed.id)
            came["left"] += 1
        else:
            left += 1
    if handed:
        if not batch.leases():  # no pilot had it, and who left it is told with a lease
            Journal(batch).close()
        batch.handed(batch.leases()).write(Handed(tuple(handed)))
    if left and _unfit(tools, pool) is None:
        batches.move(batch, pool.todo / f"{batch.id}.{left}")
        return True
    if left:
        _hand_on_all(tools, batch, standing)
        came["left"] += left
    _finish(tools, pool, batch, [each.id for each in jobs], came)
    tools.ended.extend(counted)
    return True


def _finish(tools: Tools, pool: Pool, batch: Batch, ids: Sequence[str], came: Mapping[str, int]) -> None:
    _done_ids(tools, pool).add(ids)
    tools.pilot_ids.get(pool.path, set()).difference_update(ids)
    day, timing = day_of(tools.now()), tools.config.site.timing
    if not (pool.done / day).exists():
        _done_ids(tools, pool).forget_before(tools.now() - max(timing.keep_ids, timing.keep_done))
    numbers = (came["succeeded"], came["failed"], came["left"])
    paths.remove(batch.site)
    closed.close(pool, batch, day, *numbers)
    log.info("batch done batch=%s succeeded=%d failed=%d left=%d", batch.id, *numbers)


def _may_have_begun(place: int, claimed: Claimed, progress: Progress, ended: Optional[Ended]) -> bool:
    """A pilot that was killed left its marks; of those of a node that failed, only what was synced is sure."""
    if claimed.id in progress.started:
        return True
    return ended is not None and ended.end in ("node_failed", "lost") and place < progress.upto


def _cut_off(claimed: Claimed, progress: Progress, ended: Optional[Ended], crew: Optional[JobFolder]) -> Came:
    """What an attempt came to whose pilot ended before it."""
    facts = read_attempt(crew.attempt(1)) if crew is not None else None
    end, state = (ended.end, ended.state) if ended else ("lost", "unknown to Slurm")
    known = end in ("node_failed", "preempted")
    return Came(
        Result(
            outcome=end if known else "failed",
            attempt=1,
            reason=sentences.of_end(end) if known else sentences.pilot_ended(state),
            step="" if known else "start",
            may_work_again=not known,
            node=facts.started.node if facts and facts.started else "",
            slurm_job_id=facts.slurm_id or "" if facts else "",
            started_at=progress.started.get(claimed.id),
            ended_at=ended.at if ended else None,
        ),
        None,
    )


def _hand_on(tools: Tools, batch: Batch, claimed: Claimed, came: Optional[Came], standing: Standing) -> None:
    """Makes it a job with a folder of its own. `message.json` comes last: without it there is no job yet."""
    if tools.jobs.find(claimed.id) is not None:
        return
    job = tools.jobs.job(claimed.id)
    paths.make_folder(job.path)
    config = _frozen_for(tools.config, batch, claimed)
    if came is not None and came.reply is None and claimed.workload not in ("", *config.site.workloads):
        came = None  # without its workload it can't be understood, so it waits for it and begins anew
    if frozen.read(batch.site):
        paths.link_first(batch.site, job.site)  # on disk when message.json is
    if came is not None:
        attempt = job.attempt(1)
        paths.make_folder(attempt.path)
        if came.reply is not None:
            stem = f"reply-{secrets.token_hex(4)}"
            body = (batch.path / came.body_file).read_bytes() if came.body_file else came.reply.body
            paths.write_bytes(attempt.reply_body(stem), body)
            write_reply(attempt, stem, came.reply)
            record(attempt, replace(came.result, body=stem))
            job.outcome.claim(Outcome(came.result.outcome, 1, stem, "login", tools.now()))
        else:
            record(attempt, came.result)
        if came.result.outcome != "rejected":
            _understand(config, job, claimed)
    if came is None or came.reply is None:
        _hand_on_cancel(Pool(tools.jobs, claimed.message.queue).wish(claimed.id), job)
    if claimed.rerun_of:
        job.origin.write(Origin(JobId(claimed.rerun_of), "pilots", "", claimed.message.claimed_at, {}))
    job.message.claim(claimed.message)
    claimed_at = batch.jobs.stat().st_mtime
    os.utime(job.message.path, (claimed_at, claimed_at))  # it has waited since then
    log.info("left its batch job=%s batch=%s outcome=%s", job.id, batch.id, came.result.outcome if came else "none yet")
    standing.in_flight += 1
    reconcile.settle(tools, job, standing)


def _frozen_for(config: Config, batch: Batch, claimed: Claimed) -> Config:
    """What the job was claimed with, where the site file does not have it any more."""
    known = claimed.workload in config.site.workloads and config.queue(claimed.message.queue) is not None
    return config if known else as_frozen(config, frozen.read(batch.site))


def _understand(config: Config, job: JobFolder, claimed: Claimed) -> None:
    """Without its spec it would not be tried again, and be put away as a rejected one; one that the site no longer allows
    is not."""
    message = claimed.message
    queue = config.queue(message.queue)
    if queue is not None:
        with contextlib.suppress(InvalidSpec):
            reconcile.write_spec(config, queue, job, message.properties.get("reply_to"), message.body_bytes)


def _hand_on_all(tools: Tools, batch: Batch, standing: Standing) -> None:
    progress = read_progress(batch)
    for claimed in batches.read_jobs(batch):
        if claimed.id not in progress.came and claimed.id not in progress.handed:
            _hand_on(tools, batch, claimed, None, standing)


def _give_up_waiting(tools: Tools, queue: Queue, pool: Pool, standing: Standing) -> None:
    """Jobs that no pilot will run, or has run for too long, go the ordinary way, which has an answer for each."""
    unfit = _unfit(tools, pool)
    for batch in pool.batches(pool.todo):
        with reconcile.left_alone_if_bad(JobFolder(batch.path), standing):
            try:
                jobs = [each.id for each in batches.read_jobs(batch)]
                waited = tools.server_now - batch.jobs.stat().st_mtime
                if unfit is None and waited < queue.max_wait:
                    return  # the others are younger
                taken = batches.move(batch, pool.ended / f"{batch.path.name}~")
            except FileNotFoundError:
                continue  # a pilot was quicker
            log.warning(
                "no pilot for it batch=%s jobs=%d why=%r", batch.id, batch.count, unfit.why if unfit else "max_wait"
            )
            _hand_on_all(tools, taken, standing)
            _finish(tools, pool, taken, jobs, Counter(left=len(jobs)))


# --- how many pilots


def want(tools: Tools, standing: Standing) -> None:
    """Makes ready what is to be submitted: never more pilots than jobs justify, those that wait in Slurm included."""
    if standing.submits_nothing:
        return
    waiting = {job.id for job, _ in standing.ready}
    for queue, pool in pools(tools.config, tools.jobs):
        if not _jobs_to_do(pool) or _unfit(tools, pool) is not None or not tools.workloads.can_begin(queue):
            continue
        if not declined.may_try(tools, standing, _submission(queue).resources):
            continue
        try:
            crew = [each for each in batches.crew(tools.jobs) if _works_for(each, queue)]
        except Damaged:  # reported where they are tended; nobody knows how many there are
            continue
        if any(each.attempt(1).unfit.is_there() for each in crew):
            continue  # its verdict waits until all that it wrote can be seen, and another one would find the same
        alive = [each for each in crew if _keeps_its_place(each.attempt(1))]
        ready = [each for each in crew if each.id in waiting]
        rules = queue.pilot
        worthwhile = min(rules.most, math.ceil(_open_jobs(pool) / rules.jobs_per_pilot))
        for _ in range(worthwhile - len(alive) - len(ready)):
            standing.ready.append((_hire(tools, queue), _submission(queue)))


def _keeps_its_place(attempt: AttemptFolder) -> bool:
    """Until it has ended; one that never began, until it is counted as a failure."""
    return attempt.intent.is_there() and not (attempt.ended.is_there() and attempt.started.is_there())


def _jobs_to_do(pool: Pool) -> int:
    with contextlib.suppress(Damaged):
        return sum(batch.count for batch in pool.batches(pool.todo)) if _open_jobs(pool) else 0
    return 0


def _works_for(crew: JobFolder, queue: Queue) -> bool:
    """Not one that can't be read: it must not keep the place of one that works."""
    with contextlib.suppress(Damaged):
        pilot = batches.pilot_file(crew).read()
        return pilot is not None and pilot.queue == queue.name and _read_facts(crew) is not None
    return False


def _hire(tools: Tools, queue: Queue) -> JobFolder:
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(tools.now()))
    crew = JobFolder(batches.crew_of(tools.jobs) / f"{PILOT}{stamp}-{secrets.token_hex(3)}")
    paths.make_folder(crew.path)
    batches.pilot_file(crew).write(Pilot(queue.name))
    return crew


def _submission(queue: Queue) -> judge.Submit:
    rules = queue.pilot
    return judge.Submit(1, Resources(rules.cpus, rules.memory_mb, int(rules.time)), f"{PILOT}{queue.name}")
