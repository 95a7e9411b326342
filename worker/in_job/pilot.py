"""A pilot: one Slurm job that works through many jobs, as many side by side as fit, and answers each of them.

The order is the promise, as for a job of its own: what a job came to is on disk in the batch's journal, and a link on the
file server says that the batch is ours still, before its answer is sent; and that it may have been started is on disk
before it is.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import selectors
import signal
import time
from collections import deque
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Optional

from ..build import kind_of, open_answers, traits
from ..errors import Damaged, Fault, Misconfigured, StepFailed
from ..folder import batches, frozen
from ..folder.answer import reply_of
from ..folder.batches import Batch, Claimed, Pool
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..folder.journal import Came, Journal, TakenAway, looks_ours, read_progress
from ..folder.paths import GONE, look_anew, remove_tree
from ..job import sentences
from ..job.facts import Started, Unfit
from ..job.names import JobId
from ..job.outcome import Reply, Result, failure_body
from ..settings import Config, Queue
from .memory import MemoryWatch
from .runner import Done, Runner, make_place
from .scratch import IN_FOLDER, place_to_work
from .steps import Placement

log = logging.getLogger(__name__)

_LOOK = 0.2
"""Seconds between two looks for a batch to take."""
_LOOK_WHETHER_OURS = 1.0
"""Seconds between two looks whether a batch is still ours, before a job is begun."""
_LOOK_FOR_CANCELS = 1.0
"""Seconds between two looks whether somebody wants one of our jobs to end."""
_SYNC_AFTER = 0.02
"""Seconds that a result waits for others before it is synced."""
_SYNC_AT = 200
_AHEAD = 100
"""Jobs that are noted as "may be started" at once; where a node fails, so many go on as Slurm jobs of their own."""
_DISMISSAL = 20.0
"""Seconds in which a runner has to end; Slurm's KillWait is 30 by default."""
_AT_HAND = 0.1
_MOST_AT_HAND = 3
"""Seconds of work, and jobs, that a runner is given before it has done its last one. More would wait behind a long one."""


@dataclass
class _Lease:
    """A batch that this pilot has taken."""

    batch: Batch
    journal: Journal
    left: deque[tuple[int, Claimed]]
    """Jobs not yet begun, each with its place in the batch."""
    may_start: int = 0
    """Jobs before this place may be begun: that is on disk."""
    looked: float = field(default_factory=time.monotonic)
    """When it was last seen to be ours."""
    running: int = 0
    lines: int = 0
    """In the journal, and not yet on disk."""
    unsaid: list[Reply] = field(default_factory=list)
    """Answers that wait for that."""
    unconfirmed: set[str] = field(default_factory=set)
    site: str = ""
    """The site file as it was when its jobs were claimed."""
    unknown: bool = False
    """Of one of its jobs only the scheduler can tell why it was stopped: the batch stays until it does."""


class _Hand:
    """A runner, as the pilot sees it: what it was given, in order."""

    def __init__(self, pid: int, pipe: Connection) -> None:
        self.pid, self.pipe = pid, pipe
        self.given: deque[tuple[_Lease, Claimed]] = deque()
        self.site: Optional[str] = None
        """What it was told last that the site file was."""

    @property
    def cpus(self) -> int:
        return max((claimed.resources.cpus for _, claimed in self.given), default=0)

    @property
    def memory_mb(self) -> int:
        return max((claimed.resources.memory_mb for _, claimed in self.given), default=0)

    @property
    def seconds(self) -> int:
        return sum(claimed.resources.time_seconds for _, claimed in self.given)


def run(config: Config, crew: JobFolder, place: Placement) -> None:
    """The whole life of a pilot. What it leaves are journals; the login side reads on where it ends."""
    attempt = crew.attempt(1)
    pilot, intent = batches.pilot_file(crew).read(), attempt.intent.read()
    if pilot is None or intent is None:
        raise Damaged("this pilot was never intended")
    queue = config.queue(pilot.queue)
    if queue is None:
        raise Misconfigured([Fault(config.site_file, f"the queue {pilot.queue} has left the site file")])
    try:
        with _working_place(config, crew) as working_place:  # before it has started, so that it counts as not begun
            _work_there(config, queue, crew, place, intent.resources.minutes * 60, working_place)
    except StepFailed as failed:
        log.error("pilot ends, it can't begin here pilot=%s node=%s why=%r", crew.id, place.node, failed.reason)


def _work_there(
    config: Config, queue: Queue, crew: JobFolder, place: Placement, seconds: float, working_place: Path
) -> None:
    attempt = crew.attempt(1)
    if not attempt.started.claim(Started(place.scheduler_id, place.restarts, place.node, time.time())):
        log.info("a second copy, leaving pilot=%s slurm=%s", crew.id, place.scheduler_id)
        return
    log.info("pilot started pilot=%s slurm=%s node=%s", crew.id, place.scheduler_id, place.node)
    if not MemoryWatch(place.confined).known and traits(config.site).enforces_memory:
        attempt.unfit.write(Unfit("a pilot can't see whether memory ran out on this cluster", time.time()))
        return
    end = time.monotonic() + seconds - config.site.timing.margin(seconds)
    pilot = _Pilot(config, queue, Pool(JobsFolder(config.site.jobs_dir), queue.name), crew, place, end)
    try:
        pilot.run(working_place)
    finally:
        remove_tree(working_place)


def _working_place(config: Config, crew: JobFolder) -> contextlib.AbstractContextManager[Path]:
    if config.site.scratch == IN_FOLDER:
        return contextlib.nullcontext(crew.attempt(1).work)  # made by whoever wins started.json, and by nobody else
    return place_to_work(config.site.scratch, crew.id)


class _Pilot:
    def __init__(self, config: Config, queue: Queue, pool: Pool, crew: JobFolder, place: Placement, end: float) -> None:
        self._config, self._queue, self._rules, self._pool, self._crew, self._place, self._end = (
            config,
            queue,
            queue.pilot,
            pool,
            crew,
            place,
            end,
        )
        self._leases: list[_Lease] = []
        self._lease_of: dict[str, _Lease] = {}
        """By the id of a job whose answer is on its way."""
        self._hands: list[_Hand] = []
        self._leaving: Optional[float] = None
        """Since when no job is begun any more."""
        self._stopping = False
        """Those that run are being stopped."""
        self._looked = self._told_to_stop = self._looked_for_cancels = 0.0
        self._idle: Optional[float] = None
        """Since when it has nothing to do, and each look finds no batch."""
        self._oldest_line: Optional[float] = None
        self._mean = 1.0
        """Seconds that a job took lately."""
        self._done = 0
        self._bell, self._ring = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell, selectors.EVENT_READ)

    def run(self, working_place: Path) -> None:
        count = max(1, self._rules.cpus)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a runner may be sent it before it listens
        for number in range(count):
            self._hire(working_place / str(number), alone=count == 1)
        for hand in self._hands:
            self._selector.register(hand.pipe, selectors.EVENT_READ, hand)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        for asked in (signal.SIGTERM, signal.SIGINT):
            signal.signal(asked, self._be_asked_to_stop)
        self._answers = open_answers(self._config, kind_of(self._config.site, self._queue.source), self._be_rung)
        try:
            while not self._is_over():
                self._take()
                self._obey_cancels()
                self._hand_out()
                self._listen()
                self._sync_if_due()
                self._hear_the_broker()
                self._put_back_what_is_over()
        except TakenAway as error:
            log.error("stopped: %s", error)
        finally:
            self._answers.close()
            self._hear_the_broker()
            self._dismiss_all()
        self._close_the_rest()
        log.info("pilot ended pilot=%s jobs=%d", self._crew.id, self._done)

    # --- when it ends

    def _is_over(self) -> bool:
        now, patience = time.monotonic(), self._config.site.timing.publish_patience
        if now >= self._end:
            self._leave("its time is over")
            self._stopping = True
        if self._stopping and now - self._told_to_stop >= 1:
            self._told_to_stop = now
            self._signal_hands(signal.SIGTERM)
        if any(hand.given for hand in self._hands):
            return False
        if self._answers.away_for() >= patience or (self._leaving is not None and now - self._leaving >= patience):
            self._leave("the broker is away, answers are left for the next pass")
            return not any(lease.lines for lease in self._leases)
        return self._leaving is not None and all(lease.unknown and not _waits(lease) for lease in self._leases)

    def _leave(self, why: str) -> None:
        if self._leaving is None:
            self._leaving = time.monotonic()
            log.info("pilot leaves pilot=%s why=%r", self._crew.id, why)

    def _be_asked_to_stop(self, *_: object) -> None:
        self._leave("it was asked to stop")
        self._stopping = True

    def _be_rung(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._ring, b".")

    # --- runners

    def _hire(self, working_place: Path, alone: bool) -> None:
        """Before any thread is started: a fork takes only the thread that makes it along."""
        ours, theirs = multiprocessing.Pipe()
        make_place(working_place)
        pid = os.fork()
        if pid:
            theirs.close()
            self._hands.append(_Hand(pid, ours))
            return
        try:
            for pipe in (ours, *(hand.pipe for hand in self._hands)):
                pipe.close()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            token = self._crew.attempt(1).token
            Runner(self._config, self._place, working_place, token, alone, self._pool.wish).serve(theirs)
        except Exception:
            log.exception("unforeseen, a runner ends pilot=%s", self._crew.id)
        finally:
            os._exit(0)

    def _signal_hands(self, number: int) -> None:
        for hand in self._hands:
            with contextlib.suppress(ProcessLookupError):
                os.kill(hand.pid, number)

    def _dismiss_all(self) -> None:
        for hand in self._hands:
            hand.pipe.close()  # what it waits at
        self._signal_hands(signal.SIGTERM)
        end = time.monotonic() + _DISMISSAL
        for hand in self._hands:
            while os.waitpid(hand.pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > end:
                    os.kill(hand.pid, signal.SIGKILL)
                time.sleep(0.02)

    def _lose(self, hand: _Hand) -> None:
        """For lack of memory perhaps. What it had is the scheduler's to tell; the others end in peace."""
        self._leave("one of its processes is gone")
        for lease, _ in hand.given:
            lease.running -= 1
            lease.unknown = True
        self._hands.remove(hand)
        self._selector.unregister(hand.pipe)
        hand.pipe.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(hand.pid, 0)

    # --- jobs

    def _take(self) -> None:
        """Another batch, while fewer jobs are left than runners could take at once. Only a look that found none says that
        there is nothing to do: how long the start, the broker or a frozen machine took does not."""
        now = time.monotonic()
        if self._leases:
            self._idle = None
        if self._leaving is not None or sum(len(lease.left) for lease in self._leases) >= 2 * len(self._hands):
            return
        if now - self._looked < _LOOK and not self._leases:
            return
        self._looked = now
        for batch in self._pool.batches(self._pool.todo):
            try:
                taken = batches.move(batch, self._pool.locked / f"{batch.path.name}~{self._crew.id}")
            except FileNotFoundError:
                continue  # another pilot was quicker
            try:
                self._leases.append(_open(taken))
                self._looked_for_cancels = 0.0
                log.info("batch taken pilot=%s batch=%s jobs=%d", self._crew.id, taken.id, len(self._leases[-1].left))
            except Damaged as error:
                log.error("damaged, left alone batch=%s why=%r", taken, str(error))
            return
        if not self._leases:
            self._idle = now if self._idle is None else self._idle
            if now - self._idle >= self._rules.idle:
                self._leave("there is nothing to do")

    def _hand_out(self) -> None:
        ahead = min(_MOST_AT_HAND, int(_AT_HAND / max(self._mean, 0.001)))
        for level in range(1 + ahead):
            for hand in self._hands:
                if self._leaving is None and len(hand.given) == level:
                    self._hand_one_to(hand)

    def _hand_one_to(self, hand: _Hand) -> None:
        lease = next((each for each in self._leases if each.left), None)
        if lease is None or lease.left[0][0] >= lease.may_start:
            return
        claimed = lease.left[0][1]
        if not self._fits(hand, claimed):
            return
        self._look_whether_ours(lease)
        if time.monotonic() + hand.seconds + claimed.resources.time_seconds > self._end:
            if not hand.given:
                self._leave("the next job would not fit into what is left of its time")
            return
        lease.left.popleft()
        lease.running += 1
        lease.journal.started(claimed.id, time.time())
        hand.given.append((lease, claimed))
        try:
            hand.pipe.send((claimed, None if hand.site == lease.site else lease.site))
            hand.site = lease.site
        except OSError:
            self._lose(hand)

    def _look_whether_ours(self, lease: _Lease) -> None:
        if time.monotonic() - lease.looked >= _LOOK_WHETHER_OURS:
            lease.looked = time.monotonic()
            if not looks_ours(lease.batch):
                raise TakenAway(f"the batch {lease.batch} was taken away, nothing more is begun")

    def _fits(self, hand: _Hand, claimed: Claimed) -> bool:
        others = [each for each in self._hands if each is not hand]
        cpus = max(hand.cpus, claimed.resources.cpus) + sum(each.cpus for each in others)
        memory_mb = max(hand.memory_mb, claimed.resources.memory_mb) + sum(each.memory_mb for each in others)
        return cpus <= self._rules.cpus and memory_mb <= self._rules.memory_mb

    def _listen(self) -> None:
        for ready, _ in self._selector.select(_SYNC_AFTER if self._oldest_line is not None else _LOOK):
            hand = ready.data
            if hand is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._bell, 65536)
                continue
            try:
                self._note(hand, hand.pipe.recv())
            except (EOFError, OSError):
                self._lose(hand)

    # --- those that somebody wants to end

    def _obey_cancels(self) -> None:
        """One that was not begun is skipped; of one that runs, its runner is told to look, until it has ended."""
        now = time.monotonic()
        if now - self._looked_for_cancels < _LOOK_FOR_CANCELS:
            return
        self._looked_for_cancels = now
        try:
            asked = self._pool.asked_to_cancel()
            for lease in self._leases if asked else ():
                for entry in [entry for entry in lease.left if entry[1].id in asked]:
                    self._skip(lease, entry)
        except (Damaged, OSError) as error:
            log.warning("not seen who is to be cancelled pilot=%s why=%r", self._crew.id, str(error))
            return
        for hand in self._hands:
            if hand.given and hand.given[0][1].id in asked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(hand.pid, signal.SIGUSR2)

    def _skip(self, lease: _Lease, entry: tuple[int, Claimed]) -> None:
        asked = self._pool.wish(entry[1].id)
        if asked is not None:
            lease.left.remove(entry)
            words, place = sentences.cancelled_by_operator(asked.reason), self._place
            self._came(lease, entry[1], Result(
                "cancelled", 1, words, node=place.node, slurm_job_id=place.scheduler_id, ended_at=time.time(),
            ))  # fmt: skip

    # --- what they came to

    def _note(self, hand: _Hand, done: Done) -> None:
        lease, claimed = hand.given.popleft()
        lease.running -= 1
        result = done.result
        if result is None:
            lease.unknown = True
            return
        if result.started_at and result.ended_at:
            self._mean = 0.9 * self._mean + 0.1 * (result.ended_at - result.started_at)
        self._came(lease, claimed, result, done.final, done.body)

    def _came(self, lease: _Lease, claimed: Claimed, result: Result, final: bool = True, outputs: bytes = b"") -> None:
        came = Came(result, None)
        if final:
            body = outputs if result.outcome == "succeeded" else failure_body(result)
            replies = self._config.site.replies
            reply = reply_of(claimed.message, claimed.id, result, (), body, replies, time.time(), claimed.rerun_of)
            kept = lease.journal.keep_body(claimed.id, body)
            came = Came(result, replace(reply, body=b"") if kept else reply, kept)
            lease.unsaid.append(reply)
        lease.journal.came(claimed.id, came)
        lease.lines += 1
        self._done += 1
        self._oldest_line = self._oldest_line or time.monotonic()

    def _sync_if_due(self) -> None:
        if self._oldest_line is None:
            return
        lines = sum(lease.lines for lease in self._leases)
        if lines >= _SYNC_AT or time.monotonic() - self._oldest_line >= _SYNC_AFTER:
            for lease in self._leases:
                _sync(lease)
                self._say(lease)
            self._oldest_line = None

    def _say(self, lease: _Lease) -> None:
        unsaid, lease.unsaid = lease.unsaid, []
        if not unsaid:
            return
        lease.journal.say()
        lease.journal.sent(reply.message_id for reply in unsaid if not reply.routing_key)  # nobody waits for these
        to_send = [reply for reply in unsaid if reply.routing_key]
        for reply in to_send:
            lease.unconfirmed.add(reply.message_id)
            self._lease_of[reply.message_id] = lease
        self._answers.send(to_send)

    def _hear_the_broker(self) -> None:
        confirmed: dict[int, list[str]] = {}
        for job_id, why in self._answers.confirmations():
            lease = self._lease_of.pop(job_id, None)
            if lease is None:
                continue  # a second copy, after a reconnect
            lease.unconfirmed.discard(job_id)
            if why:
                log.warning("answer not taken, left for the next pass job=%s why=%r", job_id, why)
            else:
                confirmed.setdefault(id(lease), []).append(job_id)
        for lease in self._leases:
            if id(lease) in confirmed:
                lease.journal.sent(confirmed[id(lease)])
            lease.journal.sync_sent()

    def _put_back_what_is_over(self) -> None:
        """Whoever is left in it, unanswered, is the login side's."""
        for lease in list(self._leases):
            if lease.unknown or _waits(lease) or (lease.left and self._leaving is None):
                continue
            self._leases.remove(lease)
            lease.journal.close()
            try:
                batches.move(lease.batch, self._pool.ended / lease.batch.path.name)
            except OSError as error:
                if error.errno not in GONE:
                    raise
                raise TakenAway(f"the batch {lease.batch} was taken away") from None
            JobsFolder(self._config.site.jobs_dir).ring(JobId(lease.batch.id))

    def _close_the_rest(self) -> None:
        """Of these only the scheduler can tell what became of some job. Nothing of them leaves any more, so whoever reads
        them need not wait for us."""
        for lease in self._leases:
            with contextlib.suppress(TakenAway):
                lease.journal.close()


def _open(taken: Batch) -> _Lease:
    look_anew(taken.path)
    progress = read_progress(taken)
    left = [
        (place, claimed)
        for place, claimed in enumerate(batches.read_jobs(taken))
        if claimed.id not in progress.came and claimed.id not in progress.handed
    ]
    lease = _Lease(taken, Journal(taken), deque(left), site=frozen.read(taken.site))
    _sync(lease)
    return lease


def _sync(lease: _Lease) -> None:
    """What is in the journal is on disk then, and that the next jobs may be begun."""
    ahead = lease.left[min(_AHEAD, len(lease.left)) - 1][0] + 1 if lease.left else 0
    begun_soon = lease.left and lease.may_start <= lease.left[min(_AHEAD // 2, len(lease.left) - 1)][0]
    if begun_soon:
        lease.journal.may_start(ahead)
    lease.journal.sync()
    if begun_soon:
        lease.may_start = ahead
    lease.lines = 0


def _waits(lease: _Lease) -> bool:
    """Something of it is under way."""
    return bool(lease.running or lease.lines or lease.unsaid or lease.unconfirmed)
