"""A pilot may take a batch between the moment that others list it and the moment that they look into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from tests.worker.login.process import NO_LEASE
from tests.worker.test_batches import claimed
from worker.folder import batches
from worker.folder.batches import Batch, Pool
from worker.folder.jobs import JobsFolder
from worker.login.pass_state import PassState
from worker.login.pilots import Pilots
from worker.login.pools import KnownIds
from worker.login.tally import Uncounted
from worker.operate.pilots import _jobs_in
from worker.settings import Queue


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    made = Pool(JobsFolder(tmp_path), "jobs")
    made.prepare()
    for number in (1, 2, 3):
        batches.add(made, [claimed(number)], number)
    return made


def take_the_first_after_a_look_at(place: str, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once."""
    look = Pool.batches

    def look_and_lose_one(self: Pool, where: Path) -> list[Batch]:
        found = look(self, where)
        if where.name == place and not look(self, self.locked):
            first = look(self, self.todo)[0]
            batches.move(first, self.locked / f"{first.path.name}~pilot-1")
        return found

    monkeypatch.setattr(Pool, "batches", look_and_lose_one)


@pytest.mark.parametrize("place", ["todo", "locked", "ended"])
def test_the_ids_of_open_jobs_are_all_found(pool: Pool, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    take_the_first_after_a_look_at(place, pool, monkeypatch)

    assert pool.open_ids() == {claimed(number).id for number in (1, 2, 3)}


def test_a_pass_does_not_end_over_it(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    take_the_first_after_a_look_at("todo", pool, monkeypatch)
    nobody, state = cast(Any, None), PassState()
    tending = Pilots(nobody, nobody, NO_LEASE, KnownIds(), nobody, nobody, Uncounted(), state)

    tending._give_up_waiting(Queue("jobs", "sample"), pool)

    assert not state.faults.left_alone

    assert [batch.pilot for batch in pool.batches(pool.locked)] == ["pilot-1"] and not pool.batches(pool.ended)


def test_a_list_of_waiting_jobs_goes_on_without_it(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    take_the_first_after_a_look_at("todo", pool, monkeypatch)

    assert [row.job for row in _jobs_in("jobs", pool, "todo", [])] == [claimed(2).id, claimed(3).id]
