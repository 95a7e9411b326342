"""The login side of pilots: claims jobs in batches, keeps as many pilots as there is work for, and goes on where one ended.

A job that was begun in a pilot and has no end there, and one that has to be tried again, leaves its batch for a folder of
its own: from then on it is a job like any other, with that as its first attempt. So does an answer that no pilot could
send. What was not begun goes back to todo.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Optional

from ..config import as_frozen
from ..errors import Damaged, InvalidSpec
from ..folder import batches, closed, fence, frozen, paths
from ..folder.answer import record
from ..folder.batches import Batch, Claimed, Handed, Pilot, Pool
from ..folder.facts import JobFolder, write_reply
from ..folder.jobs import JobsFolder
from ..folder.journal import Came, Journal, Progress, close_last_lease, read_progress
from ..folder.snapshot import read_attempt
from ..job import judge, sentences
from ..job.facts import Asked, Cancel, Ended, Origin, Outcome, Unfit
from ..job.names import JobId
from ..job.outcome import Result
from ..job.snapshot import AttemptFacts
from ..settings import Config, Queue, Timing
from . import archive, tally
from .days import day_of
from .declined import Declines
from .lease import Lease
from .pass_state import PassState
from .pools import KnownIds, pools, read_facts, why_unfit
from .settle import Settler
from .tally import Uncounted
from .understand import write_spec

log = logging.getLogger(__name__)

_FAILURES = 3
"""Pilots that ended, one after the other, before they began."""


class Pilots:
    def __init__(
        self, config: Config, jobs: JobsFolder, lease: Lease, known: KnownIds, declines: Declines, settler: Settler,
        seen: Uncounted, state: PassState,
    ) -> None:  # fmt: skip
        self._config, self._jobs, self._lease, self._known = config, jobs, lease, known
        self._declines, self._settler, self._seen, self._state = declines, settler, seen, state

    def open_attempts(self) -> list[tuple[JobFolder, AttemptFacts]]:
        """What Slurm has to be asked about. One that can't be read is reported where it is tended."""
        return [(crew, facts) for crew in self._crew() if (facts := read_facts(crew)) is not None and facts.open]

    def _crew(self) -> list[JobFolder]:
        """None where it can't be seen who there is: that is reported where they are tended."""
        with contextlib.suppress(Damaged):
            return batches.crew(self._jobs)
        return []

    def tend(self) -> None:
        """After Slurm was asked: takes back what ended pilots had, closes batches that are through."""
        with self._state.faults.left_alone_if_bad(JobFolder(batches.crew_of(self._jobs))):
            for crew in batches.crew(self._jobs):
                with self._state.faults.left_alone_if_bad(crew):
                    self._tend_pilot(crew)
        for queue, pool in pools(self._config, self._jobs):
            with self._state.faults.left_alone_if_bad(JobFolder(pool.path)):
                self._tend_pool(queue, pool)

    def _tend_pool(self, queue: Queue, pool: Pool) -> None:
        if not os.path.lexists(pool.path):
            return
        batches.remove_half_made(pool)
        if os.path.lexists(pool.put_back_asked.path):
            from ..operate.pilots import obey

            obey(pool, self._config.site_text)
        self._take_back_orphans(pool)
        asked = pool.asked_to_cancel()
        self._take_asked(pool, asked)
        for batch in pool.batches(pool.ended):
            with self._state.faults.left_alone_if_bad(JobFolder(batch.path)):
                self._close(pool, batch)
        self._give_up_waiting(queue, pool)
        self._settle_cancels(pool, asked)

    def _take_asked(self, pool: Pool, asked: Set[JobId]) -> None:
        """Out of todo, before a pilot takes it: the rename decides who answers a job that somebody wants to end."""
        for batch in pool.batches(pool.todo) if asked else ():
            with self._state.faults.left_alone_if_bad(JobFolder(batch.path)), contextlib.suppress(FileNotFoundError):
                if asked & _unfinished(batch):
                    batches.move(batch, pool.ended / f"{batch.path.name}~")

    def _settle_cancels(self, pool: Pool, asked: Set[JobId]) -> None:
        """Once no open batch has the job: what is asked goes on in the folder of its own, if it has one by now."""
        open_ids: set[JobId] = set()
        for batch in pool.open_batches() if asked else ():
            try:
                open_ids |= _unfinished(batch)
            except FileNotFoundError:  # a pilot has just taken it, or put it back
                return
        for job_id in asked - open_ids:
            job = self._jobs.find(job_id)
            if job is not None:
                _hand_on_cancel(pool.wish(job_id), job)
            pool.cancel_asked(job_id).remove()

    def _tend_pilot(self, crew: JobFolder) -> None:
        facts, timing = read_attempt(crew.attempt(1)), self._config.site.timing
        pilot = batches.pilot_file(crew).read()
        clock = judge.Clock(time.time(), self._lease.server_now)
        if pilot is None and facts.intent is not None:
            raise Damaged(f"{batches.pilot_file(crew)} is gone")
        closed = facts.closed or (_is_hopeless(facts, timing, clock) and fence.close(crew.attempt(1), None, clock.now))
        if facts.intent is None or pilot is None:  # a pass was killed before it could submit it
            paths.remove_tree(crew.path)
        elif facts.surely_not_there and facts.ended is None:
            self._give_up_declined(crew, facts)
        elif facts.ended is None and judge.is_lost(facts, timing) and (closed or facts.started is not None):
            # One whose submission was unclear, and that never came to be, had nothing.
            crew.attempt(1).ended.write(Ended("lost", "unknown to Slurm", time.time()))
        elif facts.ended is not None and judge.is_silent(facts, timing, clock):
            if self._take_back(crew, pilot) and judge.surely_over(facts, timing, clock):
                self._put_away(crew, pilot, facts)

    def _give_up_declined(self, crew: JobFolder, facts: AttemptFacts) -> None:
        """Another one follows when its shape is tried again. Where Slurm wants no such pilot at all, jobs go the ordinary
        way."""
        assert facts.declined is not None and facts.intent is not None
        attempt, words, now = crew.attempt(1), f"Slurm declines pilots: {facts.declined.words}", time.time()
        if not fence.close(attempt, Cancel("rejected", words, now), now):
            return
        if facts.declined.final or self._declines.blames_the_job(facts.intent.resources):
            attempt.unfit.write(Unfit(words, now))
        attempt.ended.write(Ended("rejected", "declined", now))

    def _take_back(self, crew: JobFolder, pilot: Pilot) -> bool:
        """The pilot is dead, as Slurm says: what it had is moved out of its reach first, and looked at once nothing of it can
        leave any more. Whether that is so of all."""
        pool = Pool(self._jobs, pilot.queue)
        for batch in pool.batches(pool.locked):
            if batch.pilot == crew.id:
                _move_to_ended(pool, batch)
        return all([self._close(pool, batch) for batch in pool.batches(pool.ended) if batch.pilot == crew.id])

    def _put_away(self, crew: JobFolder, pilot: Pilot, facts: AttemptFacts) -> None:
        pool = Pool(self._jobs, pilot.queue)
        self._note_fitness(pool, crew, facts, crew.attempt(1).unfit.read())
        log.info(
            "pilot ended pilot=%s slurm=%s state=%s", crew.id, facts.slurm_id, facts.ended.state if facts.ended else ""
        )
        archive.archive_pilot(self._jobs, crew, pool, time.time())

    def _take_back_orphans(self, pool: Pool) -> None:
        """Batches whose pilot is long gone: it took them at its very end, and that was seen late."""
        alive = {crew.id for crew in batches.crew(self._jobs)}
        for batch in pool.batches(pool.locked):
            crew = batches.pilot_folder(self._jobs, batch.pilot)
            if batch.pilot not in alive and not (crew and paths.is_there(crew.path)):
                _move_to_ended(pool, batch)

    def _note_fitness(self, pool: Pool, crew: JobFolder, facts: AttemptFacts, unfit: Optional[Unfit]) -> None:
        """Where pilots can't do their work, jobs go the ordinary way for a while: that is slower, and as true."""
        failures = pool.path / "failures"
        if unfit is None and facts.started is None and facts.ended is not None and facts.cancel is None:
            with open(failures, "a", encoding="utf-8") as file:
                file.write(f"{crew.id} {facts.ended.state}\n")
            if len(failures.read_text(encoding="utf-8").splitlines()) >= _FAILURES:
                unfit = Unfit(f"{_FAILURES} pilots ended before they began ({facts.ended.state})", time.time())
        if facts.started is not None or unfit is not None:
            paths.remove(failures)
        if unfit is not None:
            pool.unfit.write(replace(unfit, since=time.time()))

    def _close(self, pool: Pool, batch: Batch) -> bool:
        """False while something of it may not be seen yet. Nothing of its pilot's counts any more afterwards. Doing this twice
        is harmless: what was handed on is found, and the move comes last."""
        if not close_last_lease(batch, self._lease.server_now, self._config.site.timing.visible_after):
            return False
        crew = batches.pilot_folder(self._jobs, batch.pilot)
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
                counted.append(tally.of_a_pilot(claimed.workload, known.result, time.time()))
            elif known is not None or begun or claimed.id in asked:
                cut_off = _cut_off(claimed, progress, ended, crew) if begun else None
                self._hand_on(batch, claimed, known or cut_off)
                handed.append(claimed.id)
                came["left"] += 1
            else:
                left += 1
        if handed:
            if not batch.leases():  # no pilot had it, and who left it is told with a lease
                Journal(batch).close()
            batch.handed(batch.leases()).write(Handed(tuple(handed)))
        if left and why_unfit(self._state.faults, pool) is None:
            batches.move(batch, pool.todo / f"{batch.id}.{left}")
            return True
        if left:
            self._hand_on_all(batch)
            came["left"] += left
        self._finish(pool, batch, [each.id for each in jobs], came)
        self._seen.jobs.extend(counted)
        return True

    def _finish(self, pool: Pool, batch: Batch, ids: Sequence[str], came: Mapping[str, int]) -> None:
        self._known.done(pool, ids)
        day, timing = day_of(time.time()), self._config.site.timing
        if not (pool.done / day).exists():
            self._known.forget_before(pool, time.time() - max(timing.keep_ids, timing.keep_done))
        numbers = (came["succeeded"], came["failed"], came["left"])
        paths.remove(batch.site)
        closed.close(pool, batch, day, *numbers)
        log.info("batch done batch=%s succeeded=%d failed=%d left=%d", batch.id, *numbers)

    def _hand_on(self, batch: Batch, claimed: Claimed, came: Optional[Came]) -> None:
        """Makes it a job with a folder of its own. `message.json` comes last: without it there is no job yet."""
        if self._jobs.find(claimed.id) is not None:
            return
        job = self._jobs.job(claimed.id)
        paths.make_folder(job.path)
        config = _frozen_for(self._config, batch, claimed)
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
                job.outcome.claim(Outcome(came.result.outcome, 1, stem, "login", time.time()))
            else:
                record(attempt, came.result)
            if came.result.outcome != "rejected":
                _understand(config, job, claimed)
        if came is None or came.reply is None:
            _hand_on_cancel(Pool(self._jobs, claimed.message.queue).wish(claimed.id), job)
        if claimed.rerun_of:
            job.origin.write(Origin(JobId(claimed.rerun_of), "pilots", "", claimed.message.claimed_at, {}))
        job.message.claim(claimed.message)
        claimed_at = batch.jobs.stat().st_mtime
        os.utime(job.message.path, (claimed_at, claimed_at))  # it has waited since then
        outcome = came.result.outcome if came else "none yet"
        log.info("left its batch job=%s batch=%s outcome=%s", job.id, batch.id, outcome)
        self._state.places.in_flight += 1
        self._settler.settle(job)

    def _hand_on_all(self, batch: Batch) -> None:
        progress = read_progress(batch)
        for claimed in batches.read_jobs(batch):
            if claimed.id not in progress.came and claimed.id not in progress.handed:
                self._hand_on(batch, claimed, None)

    def _give_up_waiting(self, queue: Queue, pool: Pool) -> None:
        """Jobs that no pilot will run, or has run for too long, go the ordinary way, which has an answer for each."""
        unfit = why_unfit(self._state.faults, pool)
        for batch in pool.batches(pool.todo):
            with self._state.faults.left_alone_if_bad(JobFolder(batch.path)):
                try:
                    jobs = [each.id for each in batches.read_jobs(batch)]
                    waited = self._lease.server_now - batch.jobs.stat().st_mtime
                    if unfit is None and waited < queue.max_wait:
                        return  # the others are younger
                    taken = batches.move(batch, pool.ended / f"{batch.path.name}~")
                except FileNotFoundError:
                    continue  # a pilot was quicker
                log.warning(
                    "no pilot for it batch=%s jobs=%d why=%r", batch.id, batch.count, unfit.why if unfit else "max_wait"
                )
                self._hand_on_all(taken)
                self._finish(pool, taken, jobs, Counter(left=len(jobs)))


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


def _is_hopeless(facts: AttemptFacts, timing: Timing, clock: judge.Clock) -> bool:
    """Nobody has seen it start, and nobody waits for it any longer."""
    never_seen = facts.intent is not None and facts.ended is None and facts.started is None
    return never_seen and (judge.is_lost(facts, timing) or judge.given_up(facts, timing, clock) is not None)


def _move_to_ended(pool: Pool, batch: Batch) -> None:
    """A pilot that is not as dead as Slurm says may be doing the same."""
    with contextlib.suppress(FileNotFoundError):
        batches.move(batch, pool.ended / batch.path.name)


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
            write_spec(config, queue, job, message.properties.get("reply_to"), message.body_bytes)
