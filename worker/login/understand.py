"""From a message to what shall run."""

from __future__ import annotations

from typing import Union

from ..errors import InvalidSpec
from ..folder import answer
from ..folder.facts import JobFolder
from ..job.spec import JobSpec, parse_spec
from ..settings import Config, Queue


def write_spec(
    config: Config, queue: Queue, job: JobFolder, reply_to: Union[str, bytes, int, None], body: bytes
) -> JobSpec:
    """Raises InvalidSpec, and then there is none. Until the folder of an attempt is made, a power failure may take it: then
    the message is understood anew."""
    spec = understand(config, queue, reply_to, body)
    job.spec.write(spec, sync_name=False)
    return spec


def understand(config: Config, queue: Queue, reply_to: Union[str, bytes, int, None], body: bytes) -> JobSpec:
    """What a message asks for. Raises InvalidSpec, also where its answer may not go where it says."""
    site = config.site
    refusal = None if queue.source else answer.refused_reply_to(reply_to, site)
    if refusal:
        raise InvalidSpec(refusal)
    return parse_spec(body, queue, site.workloads, config.credentials.api_url, site.api.input_hosts, site.limits)
