"""A message that was got can be claimed, also where the disk's last room is gone by then: it goes back only when all else
has failed, because each return counts."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.worker.login.test_passes import Broker, Login
from worker.folder.records import Exclusive
from worker.login.reserve import Reserve
from worker.sources import Taken


class Counting(Broker):
    """Counts what goes back."""

    def __init__(self) -> None:
        super().__init__()
        self.returns = 0

    def give_back(self, delivery: Taken) -> None:
        self.returns += 1
        self.unacked.remove(delivery)
        self.queued.insert(0, replace(delivery, redelivered=True))


class Site(Login):
    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.broker: Counting = Counting()


@pytest.fixture
def login(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def _fill(monkeypatch: pytest.MonkeyPatch, login: Site, also_without_reserve: bool = False) -> None:
    """As a quota does it: what statvfs says stays as it is, and the next claim finds no room."""
    claim = Exclusive.claim_dated

    def claim_with_a_quota(fact: Exclusive[Any], said: object) -> Optional[float]:
        if fact.name == "message.json" and (also_without_reserve or (login.jobs.path / "reserve" / "room").exists()):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return claim(fact, said)

    monkeypatch.setattr(Exclusive, "claim_dated", claim_with_a_quota)


@pytest.mark.parametrize("name", ["c-1", None], ids=["with ids", "without ids"])
def test_what_was_got_is_claimed_from_the_reserve_and_only_then_the_disk_is_away(
    login: Site, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    login.broker.ask(name=name)
    _fill(monkeypatch, login)

    code = login.one_pass()

    assert code == os.EX_UNAVAILABLE
    assert len(list(login.active())) == 1 and not login.broker.queued and login.broker.returns == 0


def test_while_the_reserve_can_not_be_made_nothing_is_got(login: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    login.broker.ask()
    _full_disk(monkeypatch)

    codes = [login.one_pass() for _ in range(30)]

    assert set(codes) == {os.EX_UNAVAILABLE}
    assert login.broker.returns == 0 and len(login.broker.queued) == 1 and not login.broker.queued[0].redelivered


def test_an_active_folder_that_is_read_only_is_found_out_before_a_message_is_got(
    login: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    login.broker.ask()
    login.one_pass()
    before = len(list(login.active()))
    login.broker.ask(name="c-2")
    monkeypatch.setattr("worker.login.reserve._try_to_write", _read_only)

    assert login.one_pass() == os.EX_UNAVAILABLE

    assert login.broker.returns == 0 and len(list(login.active())) == before


def test_where_not_even_the_reserve_helps_the_message_goes_back_once(
    login: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    login.broker.ask()
    _fill(monkeypatch, login, also_without_reserve=True)

    assert login.one_pass() == os.EX_UNAVAILABLE

    assert login.broker.returns == 1 and len(login.broker.queued) == 1


def test_the_reserve_is_as_large_as_the_largest_message_and_made_once(login: Site) -> None:
    login.jobs.prepare()
    reserve = Reserve(login.jobs, 1000)

    reserve.hold()
    made = os.stat(login.jobs.path / "reserve" / "room")
    Reserve(login.jobs, 1000).hold()

    assert made.st_size > 1000 and made.st_blocks * 512 >= made.st_size, "a hole would be no room"
    assert os.stat(login.jobs.path / "reserve" / "room").st_ino == made.st_ino
    assert len(os.listdir(login.jobs.path / "reserve")) > 25 and not os.listdir(login.jobs.active)


def _full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)


def _read_only(_: Path) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
