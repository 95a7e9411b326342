"""Downloads the inputs, several at a time: streamed to disk, the token to the API's host only, each tried again as long as
something more of it comes, and for as long after that as the site file says.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from tenacity import RetryCallState, Retrying, retry_if_exception_type

from ..api import Api, TokenExpired
from ..errors import LoginRefused, StepFailed, Transient
from ..folder.paths import contents
from ..job import sentences
from ..job.spec import Input, JobSpec
from ..partial import Partial, Room
from ..settings import Config
from .scratch import on_this_node

log = logging.getLogger(__name__)

_LONGEST_WAIT = 60.0
"""Seconds between two tries, where the other side asks for no more."""
_TELL_EVERY = 10.0
_LEAVE = 1.0
"""Seconds that a lane has to leave when nobody waits for it any longer; one that is stuck is left behind."""


def fetch(config: Config, spec: JobSpec, token_file: Path, folder: Path) -> int:
    """Fills `folder`, and removes the token; returns how many bytes came. Raises StepFailed with a sentence for the
    requester."""
    with on_this_node():
        fetcher = Fetcher(config, token_file)
    came = fetcher.fetch_all(spec, folder)
    with on_this_node():
        token_file.unlink(missing_ok=True)
    return came


class Fetcher:
    """Sessions with the API, for one job after the other."""

    def __init__(self, config: Config, token_file: Path) -> None:
        self._config = config
        self._login = _Login(config, (contents(token_file) or b"").decode())
        self._idle: deque[Api] = deque()

    def fetch_all(self, spec: JobSpec, folder: Path) -> int:
        """All inputs of one job; returns their bytes. Raises StepFailed."""
        room = Room(self._config.site.limits.input_bytes, folder)
        came: queue.SimpleQueue[Optional[BaseException]] = queue.SimpleQueue()
        left = deque(spec.inputs.items())
        lanes: list[threading.Thread] = []
        try:
            for _ in range(min(len(left), self._config.site.api.fetch_at_once)):
                lane = threading.Thread(target=self._lane, args=(left, folder, room, came), name="fetch", daemon=True)
                try:
                    lane.start()
                except RuntimeError:  # no thread is to be had
                    break
                lanes.append(lane)
            if not lanes:
                self._lane(left, folder, room, came)
            _wait_for_all(spec.inputs, room, came)
        finally:
            room.stop()
            end = time.monotonic() + _LEAVE
            for lane in lanes:
                lane.join(max(0.0, end - time.monotonic()))
        return room.came

    def _lane(
        self, left: deque[tuple[str, Input]], folder: Path, room: Room, came: queue.SimpleQueue[Optional[BaseException]]
    ) -> None:
        """One input after the other, over one session; says of each what became of it."""
        try:
            api = self._idle.pop()
        except IndexError:
            api = Api(self._config)
        with contextlib.suppress(IndexError):
            while True:
                name, source = left.popleft()
                try:
                    _Download(self._config, api, self._login, Partial(name, source, folder / source.file, room)).run()
                except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
                    came.put(error)
                    return
                came.put(None)
        self._idle.append(api)


def _wait_for_all(inputs: Mapping[str, Input], room: Room, came: queue.SimpleQueue[Optional[BaseException]]) -> None:
    """Raises the first error of any."""
    for done in range(len(inputs)):
        error = _next(came, done, len(inputs), room)
        if error is not None:
            raise error


def _next(came: queue.SimpleQueue[Optional[BaseException]], done: int, of: int, room: Room) -> Optional[BaseException]:
    while True:
        before = room.came
        try:
            return came.get(timeout=_TELL_EVERY)
        except queue.Empty:
            speed = max(0, room.came - before) / _TELL_EVERY / 1e6
            log.info("fetching inputs=%d/%d bytes=%d speed=%.1f MB/s", done, of, room.came, speed)


class _Login:
    """The token that all lanes use."""

    def __init__(self, config: Config, token: str) -> None:
        self._config, self.token = config, token
        self._lock = threading.Lock()

    def renewed(self, refused: str) -> str:
        """Another one than the one that was refused: it may have been deleted while the job waited in Slurm's queue, or
        while others were fetched. Raises StepFailed and Transient."""
        with self._lock:
            if self.token == refused:
                log.info("token refused, logging in once more")
                try:
                    self.token = Api(self._config).authenticate()
                except LoginRefused:
                    reason = "The inputs could not be downloaded: the service's account was refused."
                    raise StepFailed("fetch", reason, may_work_again=True) from None
            return self.token


class _Download:
    """One input, until it is here or our patience ends, which begins anew whenever more of it has come."""

    def __init__(self, config: Config, api: Api, login: _Login, part: Partial) -> None:
        self._api, self._login, self._part = api, login, part
        self._patience = config.site.api.fetch_patience
        self._furthest, self._tries, self._since = 0, 0, 0.0

    def run(self) -> None:
        """Raises StepFailed and Stopped."""
        name, begun = self._part.name, time.monotonic()
        retrying = Retrying(
            retry=retry_if_exception_type(Transient),
            after=self._count,
            stop=self._is_over,
            wait=self._wait,
            reraise=True,
        )
        try:
            size = retrying(self._once)
        except Transient as error:
            reason = sentences.not_fetched(name, self._patience, error.found)
            raise StepFailed("fetch", reason, may_work_again=True) from None
        except OSError as error:
            raise StepFailed(
                "fetch", f'The input "{name}" could not be stored ({error.strerror}).', may_work_again=True
            ) from None
        log.info("fetched input=%r bytes=%d seconds=%.1f", name, size, time.monotonic() - begun)

    def _once(self) -> int:
        self._part.room.go_on()
        token = self._login.token
        try:
            return self._api.download(self._part, token)
        except TokenExpired:
            token = self._login.renewed(token)
        try:
            return self._api.download(self._part, token)
        except TokenExpired as refused:
            raise StepFailed("fetch", str(refused)) from None

    def _count(self, state: RetryCallState) -> None:
        self._tries += 1
        if self._part.furthest > self._furthest:
            self._furthest, self._tries, self._since = self._part.furthest, 1, state.seconds_since_start or 0

    def _is_over(self, state: RetryCallState) -> bool:
        return (state.seconds_since_start or 0) - self._since >= self._patience

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, Transient) else 0
        # Never past our own patience: whether it is over is looked at only before a wait.
        left = max(0.0, self._patience + self._since - (state.seconds_since_start or 0))
        backed_off = min(2.0 ** (min(self._tries, 10) - 1) + random.uniform(0, 1), _LONGEST_WAIT)  # noqa: S311
        log.warning("download failed, trying again why=%r bytes=%d", str(error), self._part.size)
        return min(max(asked, backed_off), left)
