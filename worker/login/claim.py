"""Claims a message: from what was taken to a folder that survives a power failure, before its source is told to forget it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..folder import done_ids, paths
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..job.facts import FORMAT, WITH_SOURCE, Acked, Message
from ..job.names import JobId
from ..sources import Taken, digest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    job: JobFolder
    message: Message
    claimed_at: float
    """When message.json was written, by the file server's clock."""


def sync_names(jobs: JobsFolder) -> None:
    """After this, what was claimed before survives a power failure: the names of all these jobs in `active/` are on disk.
    Raises OSError."""
    paths.sync_folder(jobs.active)


def claim(
    jobs: JobsFolder,
    taken: Taken,
    keep_bytes: int,
    now: float,
    places: Sequence[Path] = (),
    job_id: Optional[JobId] = None,
) -> Optional[Claim]:
    """Makes the job's folder, whose own name is on disk only after `sync_names`: one sync for many. None for a redelivery of
    what is claimed already: then there is only an ack to send.

    `keep_bytes`: how much of the body is kept; a larger one is no valid job anyway. `places`: where jobs may be, if that was
    asked already; `job_id`: one that was free for it (free_ids). Raises OSError before anything is claimed.
    """
    job_id = job_id or free_id(jobs, taken, places)
    if job_id is None:
        _sync_claim(jobs, JobId(digest(taken)))
        log.info("claimed before, acked again job=%s", digest(taken))
        return None
    job = jobs.job(job_id)
    _make_folder(job)
    message = as_message(taken, keep_bytes, now)
    claimed_at = job.message.claim_dated(message)
    if claimed_at is None:
        return None
    log.info("claimed job=%s queue=%s bytes=%d correlation_id=%r%s", job.id, taken.queue, len(taken.body),
             taken.properties.correlation_id, f" returns={taken.returns}" if taken.returns else "")  # fmt: skip
    return Claim(job, message, claimed_at)


def _make_folder(job: JobFolder) -> None:
    """Something else in its place must not send the message back again and again, until a quorum queue drops it."""
    try:
        job.path.mkdir(mode=0o700)
    except FileExistsError:
        if not job.path.is_dir():  # else its maker was killed
            aside = paths.put_aside(job.path)
            log.error("something else stood in the place of a new job, put aside as %s job=%s", aside, job.id)
            job.path.mkdir(mode=0o700)


def _sync_claim(jobs: JobsFolder, job_id: JobId) -> None:
    """Whoever claimed it may have been killed before its name was on disk, and the broker is about to forget it."""
    for job in _numbered_ones(jobs, job_id):
        with contextlib.suppress(FileNotFoundError):  # it has just been put away
            paths.sync_folder(job.path)
            paths.sync_folder(job.path.parent)


def note_acked(jobs: JobsFolder, taken: Taken, now: float) -> None:
    """For a message without any id, once the broker has surely forgotten it: tells the next equal one from a retaken."""
    for job in _equal_ones(jobs, taken):
        if not job.acked.is_there():
            job.acked.write(Acked(at=now))


def has_id(taken: Taken) -> bool:
    return taken.properties.message_id is not None or taken.properties.correlation_id is not None


def free_id(jobs: JobsFolder, taken: Taken, places: Sequence[Path] = ()) -> Optional[JobId]:
    """The id for a new job; None if the message is known."""
    base = JobId(digest(taken))
    if has_id(taken):
        return None if jobs.find(base, places) or was_done(jobs, base) else base
    return free_ids(jobs, [taken])[0]


def was_done(jobs: JobsFolder, job_id: JobId) -> bool:
    """Whether only its id is left of it (done_ids.py): then it is not done again, and nothing is answered once more."""
    outcome = done_ids.outcome_of(jobs, job_id)
    if outcome:
        log.info("done before, its folder was removed since job=%s outcome=%s", job_id, outcome)
    return bool(outcome)


def free_ids(jobs: JobsFolder, equal: Sequence[Taken]) -> list[Optional[JobId]]:
    """The same for equal messages that are taken together and have neither message_id nor correlation_id: they may be several
    jobs. Such a message is a redelivery only if the broker says so and there is a claim of it whose ack was never settled; of
    several, no more than there are such claims. What is known is synced, because it may be acked then.

    One case can't be told: a message that went back unclaimed long ago, and comes alone right after a kill between the ack of
    an equal one and the note of that. It is taken for that one. Messages with an id have no such case.
    """
    base = JobId(digest(equal[0]))
    known = list(_numbered_ones(jobs, base))
    unsure = sum(not job.acked.is_there() for job in known)
    if unsure:
        _sync_claim(jobs, base)
    number, ids = len(known), list[Optional[JobId]]()
    for taken in equal:
        if taken.redelivered and unsure > 0:
            unsure -= 1
            ids.append(None)
            log.info("claimed before, acked again job=%s", base)
        else:
            number += 1
            ids.append(_numbered(base, number))
    return ids


def _equal_ones(jobs: JobsFolder, taken: Taken) -> Iterator[JobFolder]:
    """The jobs made of equal messages without ids, in order."""
    return _numbered_ones(jobs, JobId(digest(taken)))


def _numbered_ones(jobs: JobsFolder, base: JobId) -> Iterator[JobFolder]:
    number = 1
    while (job := jobs.find(_numbered(base, number))) is not None:
        yield job
        number += 1


def _numbered(base: JobId, number: int) -> JobId:
    return base if number == 1 else JobId(f"{base}-{number}")


def as_message(taken: Taken, keep_bytes: int, now: float) -> Message:
    kept = taken.body[: keep_bytes + 1]
    try:
        body: object = kept.decode("utf-8")
    except UnicodeDecodeError:
        body = kept
    known = {name: value for name, value in vars(taken.properties).items() if value not in (None, b"")}
    return Message(
        format=WITH_SOURCE if taken.source else FORMAT,
        queue=taken.queue,
        body=body,  # type: ignore[arg-type]
        body_size=len(taken.body),
        properties=known,
        claimed_at=now,
        source=taken.source,
        needs_settling=taken.needs_settling,
    )
