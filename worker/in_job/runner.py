"""A process of a pilot that runs one job after the other: the same steps as in a Slurm job of its own.

It knows nothing of batches, journals and brokers: jobs come through a pipe, what they came to goes back through it. It ends
when it is told to, and when the pilot is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import math
import os
import secrets
import signal
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Callable, Optional

from ..config import as_frozen
from ..errors import Damaged, InvalidSpec, UnknownWorkload
from ..folder import paths
from ..folder.batches import Claimed
from ..folder.facts import AttemptFolder
from ..job import sentences
from ..job.facts import Asked
from ..job.names import JobId
from ..job.outcome import Result
from ..job.retry import is_final
from ..job.spec import JobSpec, deadline_of, parse_spec
from ..settings import Config
from . import steps
from .execute import adopt_orphans
from .fetch import Fetcher
from .interrupt import Interrupts
from .memory import MemoryWatch
from .steps import InPilot, Placement, Work

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """What the pilot is told. `result` is None for a job that was stopped before its end: why, only the scheduler knows."""

    id: str
    result: Optional[Result]
    final: bool = False
    body: bytes = b""
    """The packed outputs of a success."""


class Runner:
    """`place`: where this runner's jobs work; `alone`: no other runner is beside it; `cancel_asked`: whether somebody wants
    a job to end, asked at SIGUSR2."""

    def __init__(
        self, config: Config, placement: Placement, place: Path, token_file: Path, alone: bool,
        cancel_asked: Callable[[JobId], Optional[Asked]],
    ) -> None:  # fmt: skip
        self._pilots = self._config = config
        self._placement, self._place = placement, place
        self._token_file, self._alone = token_file, alone
        self._memory = MemoryWatch(placement.confined)
        self._fetcher: Optional[Fetcher] = None
        self._attempt_folder = AttemptFolder(place / "job", 1)
        self._interrupts = Interrupts(math.inf, self._is_cancelled)
        self._cancel_asked = cancel_asked
        self._current: Optional[JobId] = None
        self._asked: Optional[Asked] = None

    def serve(self, pipe: Connection) -> None:
        adopt_orphans()
        _end_with_the_pilot()
        with self._interrupts:
            self._interrupts.off()
            while not self._interrupts.asked_to_stop:
                try:
                    given: Optional[tuple[Claimed, Optional[str]]] = pipe.recv()
                    if given is None:
                        return
                    claimed, frozen = given
                    if frozen is not None:
                        self._config = as_frozen(self._pilots, frozen)
                    pipe.send(self._run(claimed))
                except (EOFError, BrokenPipeError):
                    return

    def _is_cancelled(self) -> bool:
        """The signal may have been meant for the job before: so it is looked at what stands there for this one."""
        with contextlib.suppress(Damaged, OSError):
            self._asked = self._cancel_asked(self._current) if self._current else None
        return self._asked is not None

    def _run(self, claimed: Claimed) -> Done:
        now = time.time()
        config, message = self._config, claimed.message
        queue = config.queue(message.queue)
        if queue is None:  # it has left the site file since
            return Done(claimed.id, _unrun("failed", sentences.pilot_ended("its queue is not known"), now))
        try:
            spec = parse_spec(message.body_bytes, queue, config.site.workloads, config.credentials.api_url,
                              config.site.api.input_hosts, config.site.limits)  # fmt: skip
        except UnknownWorkload:  # it was there when the job was claimed
            return Done(claimed.id, _unrun("failed", sentences.pilot_ended("its program is not there"), now))
        except InvalidSpec as error:
            return Done(claimed.id, _unrun("rejected", str(error), now), final=True)
        deadline = deadline_of(message.properties, message.claimed_at)
        if deadline is not None and now >= deadline:
            return Done(claimed.id, _unrun("expired", sentences.deadline_passed(), now), final=True)
        return self._attempt(claimed, spec, now)

    def _attempt(self, claimed: Claimed, spec: JobSpec, now: float) -> Done:
        attempt = self._attempt_folder
        try:
            make_place(attempt.path)
        except OSError as error:
            log.warning("no place to work on this node why=%r", str(error))
            return Done(claimed.id, _unrun("failed", sentences.no_place_to_work(error.strerror or ""), now))
        if self._fetcher is None:
            self._fetcher = Fetcher(self._pilots, self._token_file)
        self._memory.begin()
        self._current, self._asked = claimed.id, None
        self._interrupts.begin_another(claimed.resources.time_seconds)
        body = io.BytesIO()
        try:
            result = steps.attempt(
                Work(
                    self._config, claimed.id, attempt, spec, claimed.resources, self._placement, now, self._interrupts,
                    self._memory, InPilot(self._fetcher, self._alone, body),
                )
            )  # fmt: skip
            if result.outcome == "cancelled":
                return self._cancelled(claimed, result)
            succeeded = result.outcome == "succeeded"
            return Done(
                claimed.id, result, is_final(result, spec, claimed.resources), body.getvalue() if succeeded else b""
            )
        finally:
            self._current = None
            self._clear()

    def _cancelled(self, claimed: Claimed, result: Result) -> Done:
        if not self._interrupts.cancelled or self._asked is None:
            return Done(claimed.id, None)
        words = sentences.cancelled_by_operator(self._asked.reason)
        return Done(claimed.id, replace(result, reason=words, needs_verdict=False), final=True)

    def _clear(self) -> None:
        """The next job must not see anything of this one; what can't be removed is left behind where it is."""
        place = self._attempt_folder.path
        try:
            _remove_tree(str(place))
            return
        except OSError:
            paths.remove_tree(place)
        if place.exists():
            log.warning("left behind, it can't be removed path=%s", place)
            self._attempt_folder = AttemptFolder(self._place / f"job-{secrets.token_hex(4)}", 1)


def _remove_tree(path: str) -> None:
    """A quarter of the time that shutil.rmtree takes to be safe from others who change the tree: all who could have ended."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_tree(entry.path)
            else:
                os.unlink(entry.path)
    os.rmdir(path)


def _unrun(outcome: str, reason: str, now: float) -> Result:
    step = "start" if outcome == "failed" else ""
    return Result(outcome, 1, reason, step=step, may_work_again=bool(step), ended_at=now)


def make_place(path: Path) -> None:
    """A folder that need not survive a power failure."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _end_with_the_pilot() -> None:
    """Without its pilot nobody would ever hear of the job (prctl(2), PR_SET_PDEATHSIG is 1)."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
