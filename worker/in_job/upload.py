"""Uploads the outputs from inside the job, while bytes move and there is time; what is left is the next pass's."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Callable, Optional

from tenacity import Retrying, before_sleep_log, retry_if_exception, wait_exponential_jitter

from ..errors import Damaged, LoginRefused, Transient
from ..folder.facts import AttemptFolder, JobFolder
from ..job import sentences
from ..job.facts import Message, Outcome
from ..job.outcome import Result
from ..settings import Config
from ..transfer import Undelivered, answer_delivered, answer_undelivered, moved_at, upload

log = logging.getLogger(__name__)

_LOOK = 2.0
"""Seconds between two looks whether somebody wants the job to end."""
_IN_VAIN = 10
"""Tries, while a whole node waits; a pass costs less."""


class _TimeIsUp(Exception):
    """The next pass goes on."""


class _Cancelled(Exception):
    """By an operator; the text is his reason."""


def upload_and_conclude(
    config: Config, job: JobFolder, attempt: AttemptFolder, result: Result, message: Message, is_due: Callable[[], bool]
) -> Optional[Outcome]:
    """The job's outcome, or None where it is left for the next pass. `is_due`: whether this process has to end."""
    look = _Look(job, is_due)
    is_over = _IsOver(lambda: moved_at(attempt, result), look, config.site.timing.publish_patience)
    retrying = Retrying(
        retry=retry_if_exception(_may_pass),
        stop=lambda _: is_over() or is_due(),
        wait=wait_exponential_jitter(initial=1, max=15),
        before_sleep=before_sleep_log(log, logging.WARNING),
        reraise=True,
    )
    try:
        transfer = retrying(upload, config, job, attempt, result, look)
    except _Cancelled as cancelled:
        words = sentences.cancelled_by_operator(str(cancelled))
        return answer_undelivered(config, job, attempt, result, "cancelled", words, "job", message)
    except Undelivered as undelivered:
        return answer_undelivered(config, job, attempt, result, "failed", str(undelivered), "job", message)
    except (_TimeIsUp, Transient, OSError) as error:
        log.warning("the outputs are left for the next pass job=%s why=%r", job.id, str(error) or "the time is over")
        return None
    return answer_delivered(config, job, attempt, result, transfer, "job", message)


def _may_pass(error: BaseException) -> bool:
    """Not a refused login: asked again and again by each job, it may lock our user."""
    return isinstance(error, (Transient, OSError)) and not isinstance(error, LoginRefused)


class _IsOver:
    """Asked after each try: nothing moves any more, or things move and none of it is taken. `taken_at`: when something was."""

    def __init__(self, taken_at: Callable[[], float], look: _Look, patience: float) -> None:
        self._taken_at, self._look, self._patience = taken_at, look, patience
        self._tries, self._before = 0, 0.0

    def __call__(self) -> bool:
        taken_at = self._taken_at()
        self._tries, self._before = (self._tries + 1 if taken_at == self._before else 1), taken_at
        moved_at = max(taken_at, self._look.moved_at)
        return time.time() - moved_at >= self._patience or self._tries >= _IN_VAIN


class _Look:
    """Called before each piece. `moved_at`: when one was sent."""

    def __init__(self, job: JobFolder, is_due: Callable[[], bool]) -> None:
        self._job, self._is_due, self._looked, self.moved_at = job, is_due, float("-inf"), 0.0

    def __call__(self) -> None:
        self.moved_at = time.time()
        if self._is_due():
            raise _TimeIsUp
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        with contextlib.suppress(Damaged, OSError):
            asked = self._job.cancel_asked.read()
            if asked is not None:
                raise _Cancelled(asked.reason)
