"""Sends the answer from inside the job; while the broker is away for longer than `publish_patience`, it stays for the
next pass."""

from __future__ import annotations

import logging
import time
from typing import Optional

from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from ..build import open_ends
from ..errors import Transient
from ..folder.answer import deliver
from ..folder.facts import JobFolder
from ..job.facts import Message, Outcome
from ..job.outcome import Reply
from ..settings import Config

log = logging.getLogger(__name__)


def publish(config: Config, job: JobFolder, outcome: Outcome, message: Message, reply: Optional[Reply]) -> None:
    """`reply`: without its body, for who has just stored it."""
    ends = open_ends(config)
    retrying = Retrying(
        retry=retry_if_exception_type(Transient),
        stop=stop_after_delay(config.site.timing.publish_patience),
        wait=wait_exponential_jitter(initial=1, max=15),
        before_sleep=before_sleep_log(log, logging.WARNING),
        reraise=True,
    )
    try:
        retrying(deliver, job, outcome, ends.delivery, config.site, time.time, message, reply)
    except Transient as error:
        log.warning("broker away, the answer is kept for the next pass job=%s why=%r", job.id, str(error))
    finally:
        ends.close()
