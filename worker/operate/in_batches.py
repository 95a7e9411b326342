"""A job that lies in a pilot's batch: where it stands, its life, and what happens next.

It has no folder of its own; it is found by reading batches, the open ones first and then the last day's.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable, Optional

from ..errors import Damaged
from ..folder import batches
from ..folder.batches import Batch, Claimed, Pool
from ..folder.facts import is_running, read_started
from ..folder.jobs import JobsFolder
from ..folder.journal import Progress, read_progress
from ..folder.paths import contents
from ..job.facts import Asked
from ..job.outcome import Result
from ..job.stage import ERROR, LOCKED, TODO, Stage, stage_in_batch
from ..settings import Config
from . import screen
from .timeline import Event, asked_for, resources

_MOST_FOUND = 100


@dataclass(frozen=True)
class InBatch:
    """`place` and `of` say which job of its batch it is."""

    queue: str
    batch: Batch
    claimed: Claimed
    stage: Stage
    place: int
    of: int
    started_at: Optional[float] = None
    result: Optional[Result] = None
    confirmed: bool = False
    cancel: Optional[Asked] = None
    """Somebody wants it to end."""

    @property
    def state(self) -> str:
        return self.stage.word

    @property
    def since(self) -> float:
        return self.stage.since


def find(config: Config, jobs: JobsFolder, name: str) -> list[InBatch]:
    """The jobs with this id or beginning; no more than a person would read."""
    if not re.fullmatch(r"[0-9a-f]{1,32}", name) or not jobs.pilots.is_dir():
        return []
    return list(itertools.islice(_fitting(config, jobs, name), _MOST_FOUND))


def newest(config: Config, jobs: JobsFolder) -> Optional[InBatch]:
    """The job that was claimed last. The names of batches begin with the time at which they were made."""
    found: list[InBatch] = []
    for queue in config.site.queues if jobs.pilots.is_dir() else ():
        pool = Pool(jobs, queue.name)
        everything = (*_seen(pool.open_batches), *_seen(pool.closed))
        batch = max(everything, key=lambda each: each.id, default=None)
        with contextlib.suppress(OSError):  # it has just been moved
            found += _in(pool, queue.name, batch, "") if batch is not None else ()
    return max(found, key=lambda each: each.claimed.message.claimed_at, default=None)


def _fitting(config: Config, jobs: JobsFolder, name: str) -> Iterator[InBatch]:
    mark = f'"id":"{name}'.encode()
    for queue in config.site.queues:
        pool = Pool(jobs, queue.name)
        for batch in itertools.chain(_seen(pool.open_batches), reversed(_seen(pool.closed))):
            with contextlib.suppress(Damaged, OSError):  # one that has just been moved, or can't be read: see pilots
                if mark in (contents(batch.jobs, batches.LARGEST) or b""):
                    yield from _in(pool, queue.name, batch, name)


def _seen(look: Callable[[], list[Batch]]) -> list[Batch]:
    try:
        return look()
    except (Damaged, OSError):
        return []


def _in(pool: Pool, queue: str, batch: Batch, name: str) -> Iterator[InBatch]:
    try:
        everything, progress = batches.read_jobs(batch), read_progress(batch)
    except Damaged:
        return
    for place, claimed in enumerate(everything, 1):
        if claimed.id.startswith(name) and claimed.id not in progress.handed:
            came, cancel = progress.came.get(claimed.id), pool.wish(claimed.id)
            yield InBatch(
                queue, batch, claimed, stage_of(batch, claimed, progress), place, len(everything),
                progress.started.get(claimed.id), came.result if came else None, claimed.id in progress.sent, cancel,
            )  # fmt: skip


def stage_of(batch: Batch, claimed: Claimed, progress: Progress) -> Stage:
    """Where this job of the batch stands."""
    came, started_at = progress.came.get(claimed.id), progress.started.get(claimed.id)
    return stage_in_batch(batch.path.parent.name, claimed.message.claimed_at, started_at, came.result if came else None)


def timeline(job: InBatch) -> list[Event]:
    """In the order of time."""
    events = [Event(job.claimed.message.claimed_at, "claimed", f"from {screen.plain(job.queue)}, for pilots")]
    if job.claimed.rerun_of:
        events.append(Event(job.claimed.message.claimed_at, "put back", f"it repeats {job.claimed.rerun_of}"))
    if job.started_at is not None:
        asks = resources(job.claimed.resources)
        events.append(Event(job.started_at, "started", f"in {job.batch.pilot or 'a pilot'}, asks for {asks}", 1))
    if job.cancel is not None:
        events.append(asked_for("cancel", job.cancel))
    if job.result is not None:
        reason = f": {screen.plain(job.result.reason)}" if job.result.reason else ""
        words = f"{job.result.outcome}{reason}"
        events.append(Event(job.since, "result", words, 1))
        if job.confirmed:
            events.append(Event(job.since, "confirmed", "the broker has its answer", 1))
    return events


def explain(jobs: JobsFolder, job: InBatch) -> Iterator[str]:
    """Why it is where it is, and what happens next, in sentences."""
    at = screen.when(job.claimed.message.claimed_at)
    yield f"Claimed at {at} from the queue {job.queue}; it is on disk and safe, as job {job.place} of {job.of} in {job.batch}."
    if job.result is not None and job.confirmed:
        yield f"It came to {job.result.outcome}{f': {job.result.reason}' if job.result.reason else '.'}"
        yield "The broker has confirmed its answer."
        if job.state == ERROR:
            yield "Nothing more happens with it by itself; check.py pilots --put-back makes a new job of it."
    elif job.result is not None:
        yield f"It came to {job.result.outcome}, and the broker has not confirmed its answer yet."
        yield "If the pilot ends before that, a pass sends it."
    elif job.cancel is not None:
        yield f"{screen.plain(job.cancel.by)} asked at {screen.when(job.cancel.at)} to cancel it."
        if job.state == LOCKED:
            yield f"Its pilot will end it within seconds, and answer `cancelled`{_where(jobs, job)}."
            yield "If the pilot ends before that, the next pass answers."
        else:
            yield "The next pass takes its batch and answers it `cancelled`."
    elif job.started_at is not None and job.state == LOCKED:
        yield f"It runs since {screen.when(job.started_at)}{_where(jobs, job)}."
        yield "If its pilot ends before it, the next pass makes it a job of its own, with that as its first attempt."
    elif job.state == LOCKED:
        yield f"A pilot has taken its batch, and begins it when its turn comes{_where(jobs, job)}."
        yield "If the pilot ends before that, the next pass gives it back for another one."
    elif job.state == TODO:
        yield f"No pilot has taken its batch yet; {_crew(jobs)}."
        yield "Passes submit pilots as long as there is work for them; ./check.py pilots lists them."
    else:
        yield "Its pilot has ended; the next pass gives it to another one, or makes it a job of its own."


def _where(jobs: JobsFolder, job: InBatch) -> str:
    crew = batches.pilot_folder(jobs, job.batch.pilot)
    started = None
    with contextlib.suppress(Damaged, OSError):  # only for people
        started = read_started(crew.attempt(1)) if crew is not None else None
    return f", in {job.batch.pilot} on {started.node} (Slurm's id {started.slurm_id})" if started else ""


def _crew(jobs: JobsFolder) -> str:
    attempts = []
    with contextlib.suppress(Damaged, OSError):
        attempts = [crew.attempt(1) for crew in batches.crew(jobs)]
    run = sum(map(is_running, attempts))
    wait = sum(a.intent.path.exists() and not a.started.path.exists() and not a.ended.path.exists() for a in attempts)
    return _running(run, wait) if run or wait else "there is no pilot"


def _running(run: int, wait: int) -> str:
    has = f"{screen.counted(run, 'pilot')} {'is' if run == 1 else 'are'} running"
    return f"{has}, and {wait} {'waits' if wait == 1 else 'wait'} in Slurm"
