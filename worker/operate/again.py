"""Puts a job's message to work again, as a new job: the old one, its outcome and its answer stay as they are.

The new job's folder appears whole or not at all. The old one says that it runs again, and as what, before that; whoever is
interrupted in between has done nothing yet.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Optional, Union

from ..errors import InvalidSpec
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..folder.moves import brought_in
from ..job.facts import Again, Message, Origin
from ..job.names import JobId
from ..job.spec import JobSpec, with_resources
from ..login.reconcile import understand
from ..settings import Config
from .asking import NotPossible

_MADE_BY_US = re.compile(r"-r\d+$")
_MOST = 1000


def check(config: Config, jobs: JobsFolder, old: JobFolder, resources: Mapping[str, Union[int, str]],
          named: bool) -> None:  # fmt: skip
    """Raises NotPossible where the message would not become a job, by today's site file."""
    message = _whole_message(old)
    queue = config.queue(message.queue)
    if queue is None:
        raise NotPossible(f"its queue {message.queue} is not in the site file")
    try:
        asked = with_resources(message.body_bytes, resources, config.site.limits) if resources else message.body_bytes
        understand(config, queue, message.properties.get("reply_to"), asked)
    except InvalidSpec as error:
        raise NotPossible(f"would be rejected: {error}") from None
    check_not_running(jobs, old, named)


def check_not_running(jobs: JobsFolder, old: JobFolder, named: bool) -> None:
    """Raises NotPossible while it runs again already: the same command given twice shall not make two jobs. One that ran
    again before is taken only where it is `named`, not where filters find it."""
    before = earlier(old)
    if before and not named:
        raise NotPossible(f"ran again before, as {before[-1].job}")
    for again in before:
        if jobs.job(JobId(again.job)).path.exists():
            raise NotPossible(f"runs again already, as {again.job}")


def earlier(old: JobFolder) -> list[Again]:
    """When it was put to work again before."""
    found = []
    for number in range(1, _MOST):
        again = old.again(number).read()
        if again is not None:
            found.append(again)
        elif not old.again(number + 1).path.exists():
            break
    return found


def words(old: JobFolder, answer: bool) -> str:
    """What its requester will see of it."""
    message, delivered = old.message.read(), old.delivered.read()
    if not answer or message is None or not message.properties.get("reply_to"):
        return "runs again; nobody is answered"
    return (
        "runs again; its requester has had an answer, and gets one more" if delivered else "runs again; it is answered"
    )


def run_again(jobs: JobsFolder, old: JobFolder, verb: str, by: str, answer: bool,
              resources: Mapping[str, Union[int, str]], spec: Optional[JobSpec] = None) -> JobId:  # fmt: skip
    """Makes the new job; `spec`: what it is, where the message is not to be read anew. Its deadline and the time it has
    waited begin anew. Raises OSError."""
    message, now = _whole_message(old), time.time()
    new_id = _note_again(jobs, old, verb, by, now)
    left_out = ("timestamp", "expiration") if answer else ("timestamp", "expiration", "reply_to")
    properties = {name: value for name, value in message.properties.items() if name not in left_out}
    with brought_in(jobs, new_id) as new:
        new.origin.write(Origin(old.id, verb, by, now, dict(resources)))
        if spec is not None:
            new.spec.write(spec)
        new.message.write(replace(message, properties=properties, claimed_at=now))
    return new_id


def _note_again(jobs: JobsFolder, old: JobFolder, verb: str, by: str, now: float) -> JobId:
    """An id that no job has, noted in the old one's folder first."""
    base = _MADE_BY_US.sub("", old.id)
    for number in range(1, _MOST):
        new_id = JobId(f"{base}-r{number}")
        if jobs.find(new_id) is None and old.again(number).claim(Again(new_id, verb, by, now)):
            return new_id
    raise NotPossible(f"ran again {_MOST} times already")


def _whole_message(old: JobFolder) -> Message:
    message = old.message.read()
    if message is None:
        raise NotPossible("has no message")
    if message.body_size != len(message.body_bytes):
        raise NotPossible(f"its message of {message.body_size} bytes was too large to be kept whole")
    return message


def same_spec(config: Config, old: JobFolder) -> JobSpec:
    """What the old job was. Raises NotPossible."""
    spec = old.spec.read()
    if spec is None:
        raise NotPossible("was no valid job; see replay")
    if spec.workload not in config.site.workloads:
        raise NotPossible(f"its workload {spec.workload} is not in the site file")
    return spec
