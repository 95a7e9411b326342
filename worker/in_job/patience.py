"""What a program took hours to make is not lost to a disk that is away for seconds."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Callable, TypeVar, Union

from ..errors import StepFailed
from ..folder import disk

log = logging.getLogger(__name__)

Made = TypeVar("Made")
_AGAIN = 2.0
"""Seconds between two tries."""


def _is_away(error: Union[OSError, StepFailed]) -> bool:
    return isinstance(error, OSError) and disk.is_away(error)


def while_the_disk_is_away(
    what: str,
    patience: float,
    store: Callable[[], Made],
    passes: Callable[[Union[OSError, StepFailed]], bool] = _is_away,
    in_between: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Made:
    """What `store` returns, which may be done more than once. Raises its error where the disk is away for `patience` seconds,
    and at once where it is one that does not pass. `what`: who waits, and that he does, for the log; `in_between`: what holds
    meanwhile."""
    end = time.monotonic() + patience
    complained = False
    while True:
        try:
            return store()
        except (OSError, StepFailed) as error:
            if not passes(error) or time.monotonic() >= end:
                raise
            if not complained:
                log.warning("%s for the disk for=%.0f s why=%r", what, patience, str(error))
                complained = True
        with in_between():
            time.sleep(_AGAIN)
