"""A pass ends one job of a batch that no pilot has; wherever it is killed, that job gets one answer, and whoever takes the
batch afterwards knows that it has left."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.worker.login.killing import killed_at_each_step
from tests.worker.login.test_passes import GOOD, Login
from worker.folder import acts, batches
from worker.folder.acts import NotPossible
from worker.folder.batches import Claimed, Pool
from worker.folder.journal import read_progress
from worker.job.facts import Message
from worker.job.names import JobId
from worker.job.spec import Resources
from worker.settings import PilotRules

DOOMED, OTHER = JobId("d" * 32), JobId("0" * 32)


class Piloted(Login):
    """Two jobs in a batch that no pilot has taken, one of which somebody wants to end."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        (queue,) = self.config.site.queues
        queue = replace(queue, mode="pilot", pilot=PilotRules(most=1))
        self.config = replace(self.config, site=replace(self.config.site, queues=(queue,)))
        self.pool = Pool(self.jobs, queue.name)
        self.pool.prepare()
        batches.add(self.pool, [_claimed(queue.name, each) for each in (DOOMED, OTHER)], time.time())
        acts.cancel_in_batch(self.pool, DOOMED, "mary@here", "It is not needed.")

    def answers(self) -> dict[str, set[bytes]]:
        return {
            name: {reply.body for reply in self.broker.sent if reply.message_id == name} for name in (DOOMED, OTHER)
        }


def _claimed(queue: str, job_id: JobId) -> Claimed:
    properties: dict[str, object] = {"correlation_id": job_id, "reply_to": "answers"}
    message = Message(1, queue, GOOD.decode(), len(GOOD), properties, time.time())  # type: ignore[arg-type]
    return Claimed(job_id, message, Resources(1, 1000, 60))


def test_wherever_the_pass_is_killed_it_is_answered_once_and_nobody_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for killed_at, login in killed_at_each_step(
        monkeypatch, lambda step: Piloted(tmp_path / f"site-{step}"), Piloted.one_pass
    ):
        for _ in range(3):
            login.one_pass()

        (batch,) = login.pool.batches(login.pool.todo)
        told = login.answers()
        assert read_progress(batch).handed == {DOOMED} and batch.count == 1, f"killed at step {killed_at}"
        assert len(told[DOOMED]) == 1 and b"It is not needed." in told[DOOMED].pop() and not told[OTHER]
        assert not login.pool.asked_to_cancel()
    assert killed_at > 20


def test_it_can_be_asked_for_once_and_a_wish_that_can_t_be_read_still_counts(tmp_path: Path) -> None:
    login = Piloted(tmp_path / "site")
    with pytest.raises(NotPossible, match="already"):
        acts.cancel_in_batch(login.pool, DOOMED, "mary@here", "")

    login.pool.cancel_asked(DOOMED).path.write_bytes(b"\0")
    for _ in range(2):
        login.one_pass()

    assert len(login.answers()[DOOMED]) == 1 and not login.pool.asked_to_cancel()


def test_what_somebody_wants_of_a_job_that_is_nowhere_is_forgotten(tmp_path: Path) -> None:
    login = Piloted(tmp_path / "site")
    acts.cancel_in_batch(login.pool, JobId("e" * 32), "mary@here", "")

    login.one_pass()

    assert not login.pool.asked_to_cancel()
