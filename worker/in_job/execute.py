"""Runs the workload: its own session, its output to the job's log, and nothing of that session left when this returns."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from ..errors import StepFailed
from ..job import sentences
from .interrupt import Interrupted, Interrupts
from .printed import copied_to
from .processes import processes

log = logging.getLogger(__name__)

_TAIL_BYTES = 4096
_REAP_SECONDS = 10.0


@dataclass(frozen=True)
class Exit:
    """How the program ended: `code` as a shell would say it, `signal_name` if a signal did it, the end of its output if it
    did not end well."""

    code: int
    signal: int
    signal_name: str
    seconds: float
    tail: str


def execute(
    argv: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    log_file: Path,
    interrupts: Interrupts,
    stop_wait: float,
    log_to: Optional[int] = None,
    own: Optional[Callable[[int], contextlib.AbstractContextManager[None]]] = None,
    sandboxed: bool = False,
) -> Exit:
    """Runs to the end. On `Interrupted` everything is stopped first: SIGTERM, `stop_wait` seconds, SIGKILL. `log_to`:
    `log_file`, for who has it open; `own`: entered with its pid, for a program that is the job's own; `sandboxed`: what is
    started is a sandbox, which must outlive the program in it.

    Raises StepFailed where the program can't be started: that says nothing of the job, and another node may have it.
    """
    begun = time.monotonic()
    with open(log_file if log_to is None else os.dup(log_to), "ab") as output:
        start = output.seek(0, os.SEEK_END)
        printed: contextlib.AbstractContextManager[int]
        printed = copied_to(output.fileno()) if own else contextlib.nullcontext(output.fileno())
        with printed as target:
            process = _started(argv, folder, environment, target)
            try:
                with own(process.pid) if own else contextlib.nullcontext(), interrupts.allowed():
                    code = process.wait()
            except Interrupted:
                _stop(process, stop_wait, spare=process.pid if sandboxed else 0)
                raise
            finally:
                _end_what_it_left(process.pid)
    return Exit(
        code=code if code >= 0 else 128 - code,
        signal=max(0, -code),
        signal_name=_signal_name(-code) if code < 0 else "",
        seconds=time.monotonic() - begun,
        tail=_tail(log_file, start) if code else "",
    )


def _started(argv: Sequence[str], folder: Path, environment: Mapping[str, str], output: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        log.warning("the program can't be started on this node argv=%s why=%r", argv[:1], str(error))
        words = sentences.program_not_started(error.strerror or "")
        raise StepFailed("start", words, may_work_again=True) from None


def _stop(process: subprocess.Popen[bytes], stop_wait: float, spare: int) -> None:
    _signal_session(process.pid, signal.SIGTERM, spare)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(stop_wait)
    _signal_session(process.pid, signal.SIGKILL)
    process.wait()


_adopting = False


def adopt_orphans() -> None:
    """From here on whatever outlives its parent below us becomes our child (prctl(2), PR_SET_CHILD_SUBREAPER is 36): then
    it costs nothing to see that nothing is left."""
    global _adopting
    _adopting = ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0


def _end_what_it_left(session: int) -> None:
    if _adopting and not _children_left():
        return
    _signal_session(session, signal.SIGKILL)
    end = time.monotonic() + _REAP_SECONDS
    while _adopting and _children_left() and time.monotonic() < end:
        for pid in _our_children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _children_left() -> bool:
    """Reaps those that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True


def _our_children() -> Iterator[int]:
    return (pid for pid, fields in processes() if int(fields[1]) == os.getpid())


def _signal_session(session: int, number: signal.Signals, spare: int = 0) -> None:
    """The whole session, also members that made process groups of their own, but for `spare`."""
    for pid in _members(session):
        if pid == spare:
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _members(session: int) -> Iterator[int]:
    return (pid for pid, fields in processes() if int(fields[3]) == session)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _tail(path: Path, start: int) -> str:
    """The end of what the program itself wrote."""
    with open(path, "rb") as file:
        file.seek(max(start, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
        return file.read(_TAIL_BYTES).decode("utf-8", "replace")
