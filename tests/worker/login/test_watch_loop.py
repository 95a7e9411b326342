"""What a watch decides between two passes: when the next one is due, whether it listens, what it keeps and what it says."""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Callable, Optional, cast

import pytest

from tests.both import ends_of
from tests.worker.login import test_passes
from tests.worker.login.process import NO_LEASE, passes_of
from tests.worker.login.test_passes import Login
from worker.job.names import JobId
from worker.login import watch
from worker.login.lease import Lease
from worker.login.notices import Notices
from worker.settings import Config, Seconds


class Broker(test_passes.Broker):
    def __init__(self) -> None:
        super().__init__()
        self.listened: list[list[str]] = []
        self.hushed = 0

    def listen(self, queues: Sequence[str], wait: float) -> bool:
        self.listened.append(list(queues))
        return super().listen(queues, wait)

    def stop_listening(self) -> None:
        self.hushed += 1


class Watching(watch._Watch):
    """With a broker and a scheduler in memory, and no alarm."""

    def __init__(
        self, login: Login, broker: Optional[test_passes.Broker] = None, lease: object = NO_LEASE,
        authenticate: Optional[Callable[[], str]] = None,
    ) -> None:  # fmt: skip
        self.broker, self.cluster, self.jobs = Broker(), login.cluster, login.jobs
        site, ends = login.config.site, ends_of(login.config.site, broker or self.broker)
        self.passes = passes_of(login.config, login.jobs, ends, self.cluster, cast(Lease, lease), watching=True,
                                authenticate=authenticate or login.log_in)  # fmt: skip
        super().__init__(site, login.jobs, cast(Lease, lease), ends, self.passes)

    def one_pass(self) -> int:
        """How many messages may be taken afterwards."""
        self._pass()
        return self._free

    def wakes_for(self) -> str:
        return self._wait()


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    monkeypatch.setattr(signal, "alarm", lambda seconds: 0)
    return Login(tmp_path)


@pytest.fixture
def watching(login: Login) -> Watching:
    return Watching(login)


def limited(login: Login, most: int) -> Config:
    return replace(login.config, site=replace(login.config.site, max_in_flight=most))


def test_with_nothing_in_flight_it_listens_and_no_clock_wakes_it(watching: Watching) -> None:
    assert watching.one_pass() == 100 and watching._pause() == 3600
    watching.broker.ask()

    assert watching.wakes_for() == "messages"
    assert watching.broker.listened == [["hpc-jobs"]] and not watching.broker.hushed


@pytest.mark.parametrize("code", [errno.ENOTCONN, errno.ESTALE, errno.EIO])
def test_a_disk_that_is_away_for_a_while_does_not_end_it(
    login: Login, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    lease, slept = BadLease(OSError(code, os.strerror(code))), list[float]()
    watching = Watching(login, lease=lease)
    clock = time.monotonic()
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: clock + sum(slept))

    for _ in range(3):
        watching._round()
    waited = sum(slept)
    lease.error = None
    watching.broker.ask()
    watching.one_pass()

    said = [line.getMessage() for line in caplog.records if line.levelno >= logging.ERROR]
    assert len(said) == 3 and all("kind=disk" in line for line in said) and waited == 1 + 2 + 4
    assert watching.broker.hushed and len(list(watching.jobs.active_jobs())) == 1


def test_another_error_of_the_lease_ends_it(login: Login) -> None:
    watching = Watching(login, lease=BadLease(PermissionError(errno.EPERM, os.strerror(errno.EPERM))))

    with pytest.raises(PermissionError):
        watching._round()


class BadLease:
    """One whose file can't be asked for at times."""

    def __init__(self, error: Optional[OSError]) -> None:
        self.error = error
        self.server_now = time.time()

    def check(self) -> None:
        if self.error is not None:
            raise self.error


def test_a_bell_wakes_it(watching: Watching) -> None:
    watching.one_pass()
    watching.jobs.ring(JobId("a" * 32))

    assert watching.wakes_for() == "bells"


def test_while_every_place_is_taken_it_hears_nothing_and_the_clock_wakes_it(login: Login) -> None:
    login.config = limited(login, 1)
    watching = Watching(login)
    watching.broker.ask()

    assert watching.one_pass() == 0 and watching.broker.hushed == 1
    assert watching._pause() <= 1
    watching.broker.ask(name="next")
    watching._heard(0)
    assert watching.broker.listened == [[]], "only to keep the connection"


def test_it_hears_no_more_queues_than_places_are_free(login: Login) -> None:
    (queue,) = login.config.site.queues
    login.config = limited(login, 1)
    login.config = replace(login.config, site=replace(login.config.site, queues=(queue, replace(queue, name="b"))))
    watching = Watching(login)

    watching.one_pass()
    watching._heard(0)

    assert watching.broker.listened == [["hpc-jobs"]]


def test_where_no_slurm_command_is_left_it_does_not_listen(watching: Watching) -> None:
    assert watching.one_pass() == 100
    while watching.passes.budget.left() >= 3:
        watching.passes.budget.take("squeue")

    assert watching.one_pass() == 0


def test_it_backs_off_while_something_is_away_and_listens_when_it_is_back(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    watching.broker.away = True

    backs_off = []
    for _ in range(9):
        assert watching.one_pass() == 0
        backs_off.append(watching._back_off)
        assert 0.8 * watching._back_off <= watching._pause() <= 1.2 * watching._back_off
        assert not watching._heard(0.5)

    assert backs_off == [1, 2, 4, 8, 16, 32, 60, 60, 60] and slept == [0.5] * 9 and not watching.broker.listened
    watching.broker.away = False
    assert watching.one_pass() == 100 and watching._back_off == 0


def test_it_logs_in_once_and_again_when_the_login_is_old(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    logins: list[float] = []
    clock = time.time()

    def authenticate() -> str:
        logins.append(clock)
        return f"token {len(logins)}"

    monkeypatch.setattr(time, "time", lambda: clock)
    watching = Watching(login, authenticate=authenticate)

    for number, seconds in enumerate((0, 100, 100, 99, 2, 100)):
        clock += seconds
        watching.broker.ask(name=f"c-{number}")
        watching.one_pass()

    assert len(logins) == 2 and logins[1] - logins[0] == 301
    assert len(login.active()) == 6


def test_slurm_is_not_asked_for_each_message(login: Login) -> None:
    slurm = replace(login.config.site.slurm, poll_fastest=Seconds(5.0), poll_slowest=Seconds(60.0))
    login.config = replace(login.config, site=replace(login.config.site, slurm=slurm))
    watching = Watching(login)
    asked = []
    watching.cluster.queue = lambda right=watching.cluster.queue: asked.append(1) or right()  # type: ignore[method-assign,func-returns-value,misc]

    for number in range(10):
        watching.broker.ask(name=f"c-{number}")
        watching.one_pass()

    assert len(login.active()) == 10 and len(asked) <= 2


def test_an_idle_pass_says_nothing_and_the_hour_s_line_says_what_was_done(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(5):
        watching.one_pass()
        watching._keep_up()
    assert not caplog.records

    monkeypatch.setattr(watch, "_HOUR", -1.0)
    watching._keep_up()

    assert "in the last hour passes=5" in caplog.text and not watching._count


def test_what_waits_for_its_queue_is_said_once_and_not_in_each_pass() -> None:
    notices = Notices(watching=True)

    said = [notices.is_new("a", times) for times in (1, 1, 1, 2, 2)]

    assert said == [True, False, False, True, False]


def test_told_to_stop_it_begins_nothing_new(watching: Watching) -> None:
    watching.broker.ask()
    watching._stop()

    watching.one_pass()

    assert not watching.broker.unacked and len(watching.broker.queued) == 1
    assert watching.wakes_for() == "stop"
