"""Whoever looks: a terminal, a pipe's reader. What goes on showing things ends with them, also where it has nothing to say."""

from __future__ import annotations

import os
import select
import signal
import sys
from types import FrameType
from typing import Callable, Optional

GONE = 128 + signal.SIGPIPE
"""The exit code: as if the signal had ended it, as a shell has it."""
_STDOUT = 1


def nobody_looks() -> bool:
    """The terminal was closed, the reader of the pipe has ended, or there was none from the start."""
    return sys.__stdout__ is None or bool(_changes().poll(0))


def wait(seconds: float) -> bool:
    """Returns at once, with False, where nobody looks any more."""
    return sys.__stdout__ is not None and not _changes().poll(1000 * seconds)


def _changes() -> select.poll:
    """Asked for nothing, it tells of an end alone: POLLHUP of a terminal, POLLERR of a pipe."""
    poll = select.poll()
    poll.register(_STDOUT, 0)
    return poll


def end_with_signals() -> None:
    """So that a terminal that is still there gets its screen back. What was told to be ignored (nohup) stays so."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _end)


def _end(number: int, _: Optional[FrameType]) -> None:
    sys.exit(128 + number)


def until_nobody_looks(work: Callable[[], int]) -> int:
    """What `work` returns; where it can't say it because nobody listens, GONE, without a word."""
    try:
        code = work()
        sys.stdout.flush()
        return code
    except OSError:
        if not nobody_looks():
            raise
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)  # what is still unsaid is not tried again at the end
    return GONE
