"""Places: how many messages a pass may claim while jobs are in flight, and while others are held."""

from __future__ import annotations

from pathlib import Path

from tests.both import ends_of
from tests.worker.login.process import passes_of
from tests.worker.login.test_passes import Login
from worker.job.names import JobId
from worker.login.pass_state import Places


def places(in_flight: int, held: int = 0) -> Places:
    found = Places()
    found.in_flight = in_flight + held
    for number in range(held):
        found.hold(JobId(f"{number:032x}"), "a")
    return found


def test_a_held_job_takes_no_place() -> None:
    assert places(2).left("a", 10) == 8
    assert places(2, held=3).left("a", 10) == 7, "at most as many again are held, so no more than that are claimed"
    assert places(9, held=3).left("a", 10) == 1 and places(10, held=3).left("a", 10) == 0


def test_a_queue_with_as_many_held_jobs_as_may_be_in_flight_is_not_read_and_another_one_is() -> None:
    found = places(2, held=10)

    assert found.left("a", 10) == 0 and found.left("b", 10) == 8


def test_a_job_is_held_once_and_let_go_once() -> None:
    found, job = places(1), JobId("x")

    found.hold(job, "a")
    found.hold(job, "a")
    assert found.in_flight == 0 and found.held == {job: "a"}
    found.release(job)
    found.release(job)
    assert found.in_flight == 1 and not found.held


def test_a_held_job_that_is_looked_at_again_and_may_go_on_is_in_flight_again(tmp_path: Path) -> None:
    login = Login(tmp_path / "site")
    login.broker.ask()
    login.one_pass()
    (job,) = login.active()
    ends = ends_of(login.config.site, login.broker)
    one = passes_of(login.config, login.jobs, ends, login.cluster).begin()
    found = one.state.places
    found.in_flight = 1
    found.hold(job.id, "hpc-jobs")

    one.settle(job)

    assert found.in_flight == 1 and not found.held
