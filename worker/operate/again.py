"""Whether a job's message may be put to work again, and what its requester sees of that; `folder/acts.py` does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Union

from ..errors import InvalidSpec
from ..folder.acts import NotPossible, earlier, whole_message
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..job.names import JobId
from ..job.spec import JobSpec, with_resources
from ..login.understand import understand
from ..settings import Config


def check(config: Config, jobs: JobsFolder, old: JobFolder, resources: Mapping[str, Union[int, str]],
          named: bool) -> None:  # fmt: skip
    """Raises NotPossible where the message would not become a job, by today's site file."""
    message = whole_message(old)
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
        raise NotPossible("ran again before", before[-1].job)
    for again in before:
        if jobs.job(JobId(again.job)).path.exists():
            raise NotPossible("runs again already", again.job)


def words(old: JobFolder, answer: bool) -> str:
    """What its requester will see of it."""
    message, delivered = old.message.read(), old.delivered.read()
    if not answer or message is None or not message.properties.get("reply_to"):
        return "runs again; nobody is answered"
    return (
        "runs again; its requester has had an answer, and gets one more" if delivered else "runs again; it is answered"
    )


def same_spec(config: Config, old: JobFolder) -> JobSpec:
    """What the old job was. Raises NotPossible."""
    spec = old.spec.read()
    if spec is None:
        raise NotPossible("was no valid job; see replay")
    if spec.workload not in config.site.workloads:
        raise NotPossible(f"its workload {spec.workload} is not in the site file")
    return spec
