"""Equal messages without ids are as many jobs as there are messages, wherever a pass is killed or the disk fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.worker.login.killing import killed_at_each_step
from tests.worker.login.test_passes import GOOD, Login
from worker.folder.records import Exclusive

MESSAGES = 3


def asked(place: Path) -> Login:
    login = Login(place)
    for _ in range(MESSAGES):
        login.broker.ask(GOOD, name=None)
    return login


def claimed(login: Login) -> int:
    return len(list(login.jobs.path.rglob("message.json")))


@pytest.mark.parametrize("drain", [True, False])
def test_none_is_lost_and_none_is_doubled_wherever_the_pass_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drain: bool
) -> None:
    for killed_at, login in killed_at_each_step(
        monkeypatch, lambda step: asked(tmp_path / f"site-{step}"), lambda login: login.one_pass(drain)
    ):
        for _ in range(MESSAGES + 1):
            login.one_pass(drain)

        assert claimed(login) == MESSAGES and not login.broker.queued, f"killed at step {killed_at}"
    assert killed_at > 10


@pytest.mark.parametrize("failing", range(1, 2 * MESSAGES))
def test_none_is_lost_and_none_is_doubled_where_the_disk_fails_once_before_or_after_a_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    login, right, left = asked(tmp_path / "site"), Exclusive.claim_dated, [failing]

    def fails(fact: Exclusive[object], said: object) -> object:
        left[0] -= fact.name == "message.json"
        if left[0] == 0 and fact.name == "message.json":
            if failing % 2:
                right(fact, said)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return right(fact, said)

    monkeypatch.setattr(Exclusive, "claim_dated", fails)
    for _ in range(MESSAGES + 1):
        login.one_pass()

    assert claimed(login) == MESSAGES and not login.broker.queued
