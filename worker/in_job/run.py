"""One attempt of one job, on the compute node: start, fetch, execute, pack, answer. A failing step becomes the answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Callable, NamedTuple, Optional, Protocol

from ..errors import Damaged
from ..folder import paths
from ..folder.answer import concluded, record
from ..folder.facts import AttemptFolder, JobFolder, restore
from ..folder.jobs import JobsFolder
from ..folder.records import Fact, Listed, T
from ..job import sentences
from ..job.facts import Intent, Kept, Message, Outcome, Started
from ..job.outcome import Reply, Result
from ..job.retry import is_final
from ..job.spec import JobSpec
from ..settings import Config
from . import steps
from .interrupt import Interrupts
from .memory import MemoryWatch
from .patience import while_the_disk_is_away
from .publish import publish
from .steps import Placement, Work

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Intended:
    """What the login side has written of an attempt."""

    message: Message
    claimed_at: float
    """When message.json was written, by the file server's clock."""
    spec: JobSpec
    intent: Intent


class Reader(Protocol):
    """What a fact says, and when it was written."""

    def __call__(self, fact: Fact[T]) -> tuple[Optional[T], float]: ...


def _read(fact: Fact[T]) -> tuple[Optional[T], float]:
    return fact.read_dated()


def read_intended(job: JobFolder, attempt: AttemptFolder, read: Reader = _read) -> Optional[Intended]:
    """None where any of it is missing. `read`: how, for who has the patience to wait. Raises Damaged."""
    claimed = read(job.message)
    message, claimed_at = claimed
    spec = read(job.spec)[0]
    intent = read(attempt.intent)[0]
    if message is None or spec is None or intent is None:
        return None
    return Intended(message, claimed_at, spec, intent)


def run(
    config: Config, job: JobFolder, number: int, place: Placement, intended: Optional[Intended] = None,
    log_to: Optional[int] = None,
) -> None:  # fmt: skip
    """The whole life of an attempt. What it leaves are files; it returns when it has answered, or could not. `log_to`: the
    attempt's log, where it is open already. Raises Damaged where it was never intended."""
    intended = intended or read_intended(job, job.attempt(number))
    if intended is None:
        raise Damaged("this attempt was never intended")
    with paths.kept_open(job.path, job.attempt(number).path):
        _live(config, job, number, place, intended, log_to)
    JobsFolder(config.site.jobs_dir).ring(job.id)


def _live(
    config: Config, job: JobFolder, number: int, place: Placement, intended: Intended, log_to: Optional[int]
) -> None:
    attempt, spec, intent = job.attempt(number), intended.spec, intended.intent
    timing = config.site.timing
    time_limit = intent.resources.minutes * 60
    with Interrupts(time_limit - timing.margin(time_limit)) as interrupts:
        started = _start(job, attempt, place)
        if started is None:
            return
        work = Work(
            config, job.id, attempt, spec, intent.resources, place, started.at, interrupts, MemoryWatch(place.confined),
            log_to=log_to, queue=intended.message.queue,
        )  # fmt: skip
        result = steps.attempt(work)
        kept, came_to = Kept(intended.message, intended.claimed_at, spec, intent, started), result
        stored = while_the_disk_is_away(
            "the result waits", timing.publish_patience, lambda: _store(config, job, attempt, kept, came_to)
        )
        if stored and stored.listed and is_final(stored.result, spec, intent.resources):
            _answer(config, job, attempt, stored, intended.message, interrupts.is_due)


class _Stored(NamedTuple):
    result: Result
    """The one that counts."""
    listed: frozenset[str]
    """What is in the job's folder; nothing where its message is gone."""


def _store(config: Config, job: JobFolder, attempt: AttemptFolder, kept: Kept, result: Result) -> Optional[_Stored]:
    """None where the job is somewhere else by now. May be done again, as far as it ever came."""
    in_attempt, in_job = Listed(attempt.path).names, Listed(job.path).names
    if not in_attempt:
        if job.message.name not in in_job and JobsFolder(config.site.jobs_dir).find(job.id) is not None:
            log.info("the job has been put away meanwhile, leaving job=%s attempt=%d", job.id, attempt.number)
            return None
        paths.make_again(attempt.path)  # the program may have deleted it
    is_there = _put_back(job, attempt, kept, in_job | in_attempt)
    counts = record(attempt, result)
    if result.used is None or "fetch" not in result.used.steps:  # else it went when it was read
        paths.remove(attempt.token)
    return _Stored(counts, in_job if is_there else frozenset())


def _put_back(job: JobFolder, attempt: AttemptFolder, kept: Kept, listed: Collection[str]) -> bool:
    """What has vanished meanwhile: a purge of scratch space takes files that nobody has read for long. False where the
    message is among it: the job may have been put away, so the login side finds out, and goes on with what is left here.
    """
    if job.message.name not in listed and not job.message.is_there():
        log.warning("message.json is gone, what it said is left for the login side job=%s", job.id)
        attempt.kept.write(kept)
        return False
    for name in restore(kept, job, attempt, listed):
        log.warning("%s was gone, written again job=%s", name, job.id)
    return True


def _start(job: JobFolder, attempt: AttemptFolder, place: Placement) -> Optional[Started]:
    """None for a second copy of this attempt, which leaves without a word; and when the job has its outcome already."""
    started = Started(place.scheduler_id, place.restarts, place.node, time.time(), says_begun=True)
    if job.outcome.is_there():
        log.info("the job has been answered, nothing to do job=%s attempt=%d", job.id, attempt.number)
        return None
    if attempt.started.claim(started):
        log.info("started job=%s attempt=%d slurm=%s node=%s", job.id, attempt.number, place.scheduler_id, place.node)
        return started
    first = attempt.started.read()
    if first is not None and first.closed:
        log.info("this attempt was closed, leaving job=%s attempt=%d", job.id, attempt.number)
        return None
    # The count of restarts tells nothing where the controller came back with an older state.
    if first is not None and first.slurm_id == place.scheduler_id:
        log.warning("restarted by the scheduler, the first run is lost job=%s attempt=%d", job.id, attempt.number)
        record(attempt, Result(
            "node_failed", attempt.number, sentences.of_end("node_failed"), node=first.node,
            slurm_job_id=first.slurm_id, started_at=first.at, ended_at=time.time(),
        ))  # fmt: skip
    else:
        log.warning("a second copy, leaving job=%s attempt=%d slurm=%s", job.id, attempt.number, place.scheduler_id)
    return None


def _answer(
    config: Config,
    job: JobFolder,
    attempt: AttemptFolder,
    stored: _Stored,
    message: Message,
    is_due: Callable[[], bool],
) -> None:
    """A result that only the scheduler can judge is left for the next pass, as one is that is not final."""
    if stored.result.needs_verdict:
        return
    outcome, reply = _outcome(config, job, attempt, stored, message, is_due)
    if outcome is not None and outcome.by == "job" and outcome.attempt == attempt.number:
        publish(config, job, outcome, message, reply)


def _outcome(
    config: Config,
    job: JobFolder,
    attempt: AttemptFolder,
    stored: _Stored,
    message: Message,
    is_due: Callable[[], bool],
) -> tuple[Optional[Outcome], Optional[Reply]]:
    """None where the next pass goes on with what has to arrive before; and the reply, where it is at hand."""
    if stored.result.to_upload:
        from .upload import upload_and_conclude

        return upload_and_conclude(config, job, attempt, stored.result, message, is_due), None
    replies, now = config.site.replies, time.time()
    return concluded(job, attempt, stored.result, replies, "job", now, message, stored.listed)
