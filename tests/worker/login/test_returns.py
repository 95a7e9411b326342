"""What an outage costs in returns: a quorum queue drops a message at its 21st, so none may go back again and again."""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import pytest

from scheduler import Unavailable
from tests.worker.login import test_passes
from tests.worker.login.test_passes import Login
from tests.worker.login.test_watch_loop import Watching
from worker.errors import LoginRefused, Transient
from worker.folder import paths
from worker.folder.records import Exclusive
from worker.login import reserve, tally
from worker.sources import Taken, digest

LIMIT = 20


class Quorum(test_passes.Broker):
    """One quorum queue: whoever listens holds a message, and one that goes back too often is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Taken] = []
        self.listens = False
        self.dropped = 0

    @property
    def returns(self) -> int:
        return max((delivery.returns for delivery in [*self.queued, *self.heard, *self.unacked]), default=0)

    def listen(self, queues: Sequence[str], wait: float) -> bool:
        self.listens = bool(queues)
        if queues and self.queued and not self.heard:
            self.heard.append(self.queued.pop(0))
        return bool(self.heard)

    def waiting(self, *arguments: object, **more: object) -> int:
        return super().waiting(*arguments, **more) + len(self.heard)  # type: ignore[arg-type]

    def get(self, queue: str) -> Optional[Taken]:
        if self.heard:
            self.unacked.append(self.heard.pop())
            return self.unacked[-1]
        return super().get(queue)

    def stop_listening(self) -> None:
        self.listens = False
        self._return(self.heard)

    def give_back(self, delivery: Taken) -> None:
        self.unacked.remove(delivery)
        self._return([delivery])

    def close(self) -> None:
        self._return(self.heard)
        self._return(self.unacked)

    def _return(self, deliveries: list[Taken]) -> None:
        back = [replace(each, redelivered=True, returns=each.returns + 1) for each in deliveries]
        deliveries.clear()
        kept = [each for each in back if each.returns <= LIMIT]
        self.dropped += len(back) - len(kept)
        self.queued = kept + self.queued


class Outage:
    """Something of the site goes away, and comes back."""

    def __init__(self, login: Login, broker: Quorum, patch: pytest.MonkeyPatch) -> None:
        self.login, self.broker, self.patch = login, broker, patch

    def slurm(self) -> None:
        self.login.cluster.fault = Unavailable("slurm_load_jobs error: Unable to contact slurm controller")

    def login_refused(self) -> None:
        self._no_login(LoginRefused("the API refuses our user"))

    def api(self) -> None:
        self._no_login(Transient("the API can't be reached"))

    def _no_login(self, error: Transient) -> None:
        self.login.refused = error

    def full_disk(self) -> None:
        real = os.statvfs

        def full(path: object) -> os.statvfs_result:
            values = list(real(self.login.jobs.path))
            values[4] = 0
            return os.statvfs_result(values)

        self.patch.setattr(os, "statvfs", full)

    def read_only_disk(self) -> None:
        def refuse(_: Path) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        self.patch.setattr(reserve, "_try_to_write", refuse)

    def quota(self) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

        paths.remove_tree(self.login.jobs.reserve)
        self.patch.setattr(os, "posix_fallocate", refuse)

    def missing_program(self) -> None:
        self.patch.setattr("worker.installed.why_stopped", lambda *_: "its program is missing")

    def broker_away(self) -> None:
        self.broker.away = True

    def over(self) -> None:
        self.patch.undo()
        self.login.cluster.fault = None
        self.login.refused, self.broker.away = None, False


OUTAGES = ["slurm", "login_refused", "api", "full_disk", "read_only_disk", "quota", "missing_program", "broker_away"]


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    monkeypatch.setattr(signal, "alarm", lambda seconds: 0)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return Login(tmp_path)


@pytest.fixture
def broker() -> Quorum:
    return Quorum()


class Listening(Watching):
    def __init__(self, login: Login, broker: Quorum) -> None:
        super().__init__(login, broker)
        self.quorum = broker

    def forget_login(self) -> None:
        """As if it were old."""
        assert self._latest is not None
        self._latest._login._at = 0.0

    def turn(self) -> None:
        """A pass, and what follows it until the next one."""
        self._pass()
        assert not self.quorum.listens or self._free, "a consumer is open only while a claim is possible"
        self._heard(0)


@pytest.mark.parametrize("what", OUTAGES)
def test_under_cron_an_outage_costs_no_return(login: Login, broker: Quorum, what: str) -> None:
    login.broker = broker
    with pytest.MonkeyPatch.context() as patch:
        outage = Outage(login, broker, patch)
        getattr(outage, what)()
        broker.ask()
        for _ in range(40):
            login.one_pass()

        assert (broker.returns, broker.dropped, len(broker.queued)) == (0, 0, 1)
        outage.over()

    assert login.one_pass() == 0 and not broker.queued and len(login.active()) == 1


@pytest.mark.parametrize("what", OUTAGES)
def test_in_a_watch_an_outage_costs_one_return_at_the_most_however_long_it_is(
    login: Login, broker: Quorum, what: str
) -> None:
    watching = Listening(login, broker)
    watching.turn()
    assert broker.listens
    with pytest.MonkeyPatch.context() as patch:
        outage = Outage(login, broker, patch)
        getattr(outage, what)()
        if login.refused:
            watching.forget_login()
        broker.ask()
        assert watching._heard(0) and broker.heard, "this is how the watch finds out"
        for _ in range(40):
            watching.turn()

        assert not broker.listens and not broker.heard
        assert (broker.returns, broker.dropped, len(broker.queued)) == (1, 0, 1)
        outage.over()

    watching.turn()
    assert not broker.queued and len(login.active()) == 1


def test_outages_that_come_and_go_never_add_up_on_one_message(login: Login, broker: Quorum) -> None:
    watching = Listening(login, broker)
    watching.turn()

    for number in range(30):
        login.cluster.fault = Unavailable("Unable to contact slurm controller")
        broker.ask(name=f"c-{number}")
        assert watching._heard(0) and broker.heard
        for _ in range(3):
            watching.turn()
        assert broker.returns == 1
        login.cluster.fault = None
        watching.turn()

    assert broker.dropped == 0 and not broker.queued and len(login.active()) == 30


@pytest.mark.parametrize("what", ["full_disk", "read_only_disk", "quota"])
def test_a_watch_does_not_begin_to_listen_where_a_claim_would_find_no_room(
    login: Login, broker: Quorum, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    watching = Listening(login, broker)
    with pytest.MonkeyPatch.context() as patch:
        getattr(Outage(login, broker, patch), what)()
        for _ in range(3):
            watching.turn()
            assert not broker.listens

    assert caplog.text.count("messages are not listened for") == 1
    watching.turn()
    assert broker.listens


def test_what_came_again_is_counted(login: Login, broker: Quorum, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watching = Listening(login, broker)
    watching.turn()
    login.cluster.fault = Unavailable("Unable to contact slurm controller")
    broker.ask()
    assert watching._heard(0)
    for _ in range(3):
        watching.turn()
    login.cluster.fault = None
    watching.turn()

    assert tally.read(login.jobs.tally).redelivered == 1
    watching._told_at -= 3601
    watching._keep_up()
    assert "redelivered=1" in caplog.text


# --- what can't be claimed


def test_of_many_messages_only_the_one_that_can_not_be_claimed_goes_back(
    login: Login, broker: Quorum, monkeypatch: pytest.MonkeyPatch
) -> None:
    login.broker = broker
    for number in range(20):
        broker.ask(name=f"c-{number}")
    bad = digest(broker.queued[3])
    claim = Exclusive.claim_dated

    def refuse(fact: Exclusive[Any], said: object) -> Optional[float]:
        if fact.path.parent.name == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return claim(fact, said)

    monkeypatch.setattr(Exclusive, "claim_dated", refuse)
    assert login.one_pass() == os.EX_UNAVAILABLE

    assert [(digest(each), each.returns) for each in broker.queued] == [(bad, 1)]
    assert len(list(login.jobs.active.glob("*/message.json"))) == 19


@pytest.mark.parametrize("many", [1, 20])
def test_something_else_in_the_place_of_a_new_job_is_put_aside_and_the_message_is_claimed(
    login: Login, broker: Quorum, many: int, caplog: pytest.LogCaptureFixture
) -> None:
    login.broker = broker
    for number in range(many):
        broker.ask(name=f"c-{number}")
    (login.jobs.active / digest(broker.queued[0])).write_text("what is this?")

    login.one_pass()

    assert broker.returns == 0 and not broker.queued and len(login.active()) == many
    assert "something else stood in the place of a new job" in caplog.text
    assert any(file.read_text() == "what is this?" for file in login.jobs.active.glob(".*.damaged-*"))
