"""Goes on with uploads whose worker ended before all had arrived: for a while in each pass, until nothing more is taken."""

from __future__ import annotations

import logging
import time
from typing import Callable, Optional

from ..errors import LoginRefused, Transient
from ..folder.facts import AttemptFolder, JobFolder
from ..job import sentences
from ..job.outcome import Result
from ..settings import Config
from ..transfer import Undelivered, answer_delivered, answer_undelivered, moved_at, note_tried, upload
from .notices import Stop

log = logging.getLogger(__name__)

_SLICE = 20.0
"""Seconds for all of them together; then others have their turn for..."""
_PAUSE = 40.0
_LOOK = 1.0
"""Seconds between two looks whether the lease is still ours."""


class _LaterOn(Exception):
    """Others wait for this pass."""


class Uploads:
    """`check_lease`: raises where this pass is not the one that counts any more; `rest`: called before what may take longer
    than the broker's heartbeat, as a receiver does that takes a body and never answers; `until`: when the turn ended that this
    process has had last."""

    def __init__(
        self, config: Config, check_lease: Callable[[], None], rest: Callable[[], None] = lambda: None,
        stop: Optional[Stop] = None, until: float = float("-inf"),
    ) -> None:  # fmt: skip
        self._config, self._check_lease, self._rest, self._stop = config, check_lease, rest, stop or Stop()
        self.until = until
        """By the clock that only rises."""
        self._looked = float("-inf")
        self._refused = ""
        """What the API said of our user or password. Asked by each waiting job anew, it may lock them."""

    def conclude(self, job: JobFolder, attempt: AttemptFolder, result: Result) -> bool:
        """Whether the job has its outcome now."""
        config, asked = self._config, job.cancel_asked.read()
        if asked is not None:
            words = sentences.cancelled_by_operator(asked.reason)
            answer_undelivered(config, job, attempt, result, "cancelled", words, "login")
            return True
        if self._refused:
            note_tried(attempt, result)
            return self._wait(job, attempt, result, self._refused)
        if time.monotonic() >= self.until + _PAUSE:
            self.until = time.monotonic() + _SLICE
        try:
            self._go_on()
        except _LaterOn:
            return False
        note_tried(attempt, result)
        self._rest()
        try:
            transfer = upload(config, job, attempt, result, self._go_on)
        except _LaterOn:  # by one PUT it begins anew each time, and may never come to its end
            return self._wait(job, attempt, result, "others had their turn", logging.INFO)
        except Undelivered as undelivered:
            answer_undelivered(config, job, attempt, result, "failed", str(undelivered), "login")
            return True
        except Transient as error:
            self._refused = str(error) if isinstance(error, LoginRefused) else ""
            return self._wait(job, attempt, result, str(error))
        answer_delivered(config, job, attempt, result, transfer, "login")
        return True

    def _go_on(self) -> None:
        now = time.monotonic()
        if now >= self.until or self._stop.asked:
            raise _LaterOn
        if now - self._looked >= _LOOK:
            self._looked = now
            self._check_lease()

    def _wait(
        self, job: JobFolder, attempt: AttemptFolder, result: Result, why: str, level: int = logging.WARNING
    ) -> bool:
        patience = self._config.site.results.upload_patience
        if time.time() - moved_at(attempt, result) < patience:
            log.log(level, "outputs not taken, kept and sent again job=%s why=%r", job.id, why)
            return False
        log.error("outputs given up job=%s why=%r", job.id, why)
        words = sentences.outputs_not_taken(patience)
        answer_undelivered(self._config, job, attempt, result, "failed", words, "login")
        return True
