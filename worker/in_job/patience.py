"""What a program took hours to make is not lost to a disk that is away for seconds."""

from __future__ import annotations

import logging
import time
from typing import Callable, TypeVar

from .. import disk

log = logging.getLogger(__name__)

Made = TypeVar("Made")
_AGAIN = 2.0
"""Seconds between two tries."""


def while_the_disk_is_away(what: str, patience: float, store: Callable[[], Made]) -> Made:
    """What `store` returns, which may be done more than once. Raises its OSError where the disk is away for `patience`
    seconds, and at once where it is another one."""
    end = time.monotonic() + patience
    complained = False
    while True:
        try:
            return store()
        except OSError as error:
            if not disk.is_away(error) or time.monotonic() >= end:
                raise
            if not complained:
                log.warning("%s waits for the disk for=%.0f s why=%r", what, patience, str(error))
                complained = True
        time.sleep(_AGAIN)
