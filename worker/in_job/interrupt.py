"""What may interrupt an attempt: its own clock, or a request to stop. Neither may interrupt a durable write.

The clock ticks once a second and is ours, because the scheduler's warning has been seen a minute early and six seconds
late: SIGUSR1 only makes us look at it. SIGTERM is the scheduler's request to stop, and KillWait (30 s by default) is all
the time there is. In a pilot SIGUSR2 makes us look whether this one job is to end.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Callable, Optional

_PAUSE = 5.0
"""Seconds without a tick after which we were suspended, and not only slow."""


class Interrupted(BaseException):
    """Not an Exception, so that no handler of ordinary errors swallows it."""

    def __init__(self, by_clock: bool) -> None:
        super().__init__("the time limit" if by_clock else "a request to stop")
        self.by_clock = by_clock
        self.while_fetching = False


class Interrupts:
    """Turns signals into `Interrupted`, raised only inside `allowed()`; what came before is raised on entry."""

    def __init__(self, seconds: float, is_cancelled: Optional[Callable[[], bool]] = None) -> None:
        """`is_cancelled`: asked at SIGUSR2; it may be asked at any moment, and must not raise."""
        self._deadline = time.monotonic() + seconds
        self._looked = time.monotonic()
        self._is_cancelled = is_cancelled
        self.asked_to_stop = False
        self.cancelled = False
        """This attempt alone."""
        self._allowed = False
        self._off = False

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM):
            signal.signal(number, self._handle)
        if self._is_cancelled is not None:
            signal.signal(signal.SIGUSR2, self._handle)
        self._tick()
        return self

    def begin_another(self, seconds: float) -> None:
        """The next attempt in this process, after `off()`."""
        self._deadline = time.monotonic() + seconds
        self._off = self.cancelled = False
        self._tick()

    def __exit__(self, *_: object) -> None:
        self.off()

    def is_due(self) -> bool:
        """Whether this process has to end, for who asks."""
        return self.asked_to_stop or time.monotonic() >= self._deadline

    def off(self) -> None:
        """From here on the attempt has its result, and nothing changes it any more."""
        self._off = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _tick(self) -> None:
        self._looked = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, min(1.0, max(0.001, self._deadline - self._looked)), 1.0)

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        self._allowed = True
        try:
            self._raise_if_due()
            yield
        finally:
            self._allowed = False

    def _handle(self, number: int, frame: Optional[FrameType]) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self.asked_to_stop = True
        if number == signal.SIGUSR2 and self._is_cancelled is not None and self._is_cancelled():
            self.cancelled = True
        self._pass_over_a_pause()
        self._raise_if_due()

    def _pass_over_a_pause(self) -> None:
        """The scheduler's clock stands still while a job is suspended; we are looked at every second, or were suspended."""
        now = time.monotonic()
        if now - self._looked > _PAUSE:
            self._deadline += now - self._looked
        self._looked = now

    def _raise_if_due(self) -> None:
        if self._off or not self._allowed:
            return
        by_clock = time.monotonic() >= self._deadline
        if by_clock or self.asked_to_stop or self.cancelled:
            self._allowed = False  # once: what cleans up after it is not interrupted again
            raise Interrupted(by_clock)
