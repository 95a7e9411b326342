"""What people may do to a job, and none of it at once: facts that the next pass obeys. Safe while a pass runs.

The operator's verbs call these; so will whoever else may ask for the same.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Optional, Union

from ..job.facts import Again, Asked, Message, Origin
from ..job.names import JobId
from ..job.spec import JobSpec
from . import done_ids, paths
from .batches import Pool
from .facts import JobFolder
from .jobs import JobsFolder
from .moves import bring_back, brought_in

_MADE_BY_US = re.compile(r"-r\d+$")
_MOST = 1000


class NotPossible(Exception):
    """It can't be done with this job. `why`: also what to do instead; `job`: the one that repeats it, where that is why."""

    def __init__(self, why: str, job: str = "") -> None:
        super().__init__(f"{why}, as {job}" if job else why)
        self.why, self.job = why, job


def cancel(jobs: JobsFolder, job: JobFolder, by: str, reason: str) -> None:
    """It shall end, wherever it stands, and be answered `cancelled`. `by`: user@host; `reason`: a sentence for its requester,
    or nothing. Raises NotPossible and OSError."""
    check_cancel(job)
    job.cancel_asked.write(Asked(by, time.time(), reason))
    jobs.ring(job.id)


def check_cancel(job: JobFolder) -> None:
    """Raises NotPossible. A job that comes to its own end meanwhile keeps that."""
    if job.outcome.is_there():
        raise NotPossible("has its outcome already")
    if job.cancel_asked.is_there():
        raise NotPossible("is asked to end already")


def cancel_in_batch(pool: Pool, job_id: JobId, by: str, reason: str) -> None:
    """The same for one that has no folder of its own. A batch moves while this is written, so it stands beside all of them:
    a pilot that has the batch obeys within a second or two, and otherwise the next pass. Raises NotPossible and OSError."""
    check_cancel_in_batch(pool, job_id)
    paths.make_folder(pool.cancel)
    pool.cancel_asked(job_id).write(Asked(by, time.time(), reason))
    pool.jobs.ring(job_id)


def check_cancel_in_batch(pool: Pool, job_id: JobId) -> None:
    """Raises NotPossible. A job that comes to its own end meanwhile keeps that."""
    if pool.cancel_asked(job_id).is_there():
        raise NotPossible("is asked to end already")


def retry_at_once(jobs: JobsFolder, job: JobFolder, by: str) -> None:
    """One that waits before its next attempt need not wait any longer. Raises OSError."""
    with_result = [number for number in job.attempt_numbers() if job.attempt(number).result.is_there()]
    job.retry_asked.write(Asked(by, time.time(), attempt=max(with_result, default=0)))
    jobs.ring(job.id)


def send_again(jobs: JobsFolder, job: JobFolder) -> JobFolder:
    """Its answer is to be sent now, also where it was given up; returns the job, which is active then. What keeps the answer
    from being sent is removed first: a pass that found that in an active job would put it away again. Whoever is killed in
    between leaves a job that is put away without a word, which is seen. Raises OSError."""
    job.unroutable.remove()
    job.undeliverable.remove()
    active = job if job.path.parent == jobs.active else bring_back(job, jobs)
    jobs.ring(active.id)
    return active


def run_again(jobs: JobsFolder, old: JobFolder, verb: str, by: str, answer: bool,
              resources: Mapping[str, Union[int, str]], spec: Optional[JobSpec] = None) -> JobId:  # fmt: skip
    """Puts its message to work again, as a new job: the old one, its outcome and its answer stay as they are. `answer`:
    whether its requester gets another one; `resources`: instead of what the message asks for; `spec`: what it is, where the
    message is not to be read anew. Its deadline and the time it has waited begin anew.

    The new job's folder appears whole or not at all. The old one says that it runs again, and as what, before that; whoever
    is interrupted in between has done nothing yet. Raises NotPossible and OSError.
    """
    message, now = whole_message(old), time.time()
    new_id = _note_again(jobs, old, verb, by, now)
    left_out = ("timestamp", "expiration") if answer else ("timestamp", "expiration", "reply_to")
    properties = {name: value for name, value in message.properties.items() if name not in left_out}
    with brought_in(jobs, new_id) as new:
        new.origin.write(Origin(old.id, verb, by, now, dict(resources)))
        if spec is not None:
            new.spec.write(spec)
        new.message.write(replace(message, properties=properties, claimed_at=now, needs_settling=False))
    jobs.ring(new_id)
    return new_id


def _note_again(jobs: JobsFolder, old: JobFolder, verb: str, by: str, now: float) -> JobId:
    """An id that no job has, or had, noted in the old one's folder first."""
    base = _MADE_BY_US.sub("", old.id)
    for number in range(1, _MOST):
        new_id = JobId(f"{base}-r{number}")
        free = jobs.find(new_id) is None and not done_ids.outcome_of(jobs, new_id)
        if free and old.again(number).claim(Again(new_id, verb, by, now)):
            return new_id
    raise NotPossible(f"ran again {_MOST} times already")


def earlier(old: JobFolder) -> list[Again]:
    """When it was put to work again before."""
    found = []
    for number in range(1, _MOST):
        again = old.again(number).read()
        if again is not None:
            found.append(again)
        elif not old.again(number + 1).is_there():
            break
    return found


def whole_message(old: JobFolder) -> Message:
    """Raises NotPossible where it was not kept whole."""
    message = old.message.read()
    if message is None:
        raise NotPossible("has no message")
    if message.body_size != len(message.body_bytes):
        raise NotPossible(f"its message of {message.body_size} bytes was too large to be kept whole")
    return message
