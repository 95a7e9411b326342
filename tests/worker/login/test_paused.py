"""A paused installation takes no message, and where that is wanted submits nothing; what runs is answered as ever."""

from __future__ import annotations

import logging
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.worker.examples import NOW, config_for
from tests.worker.login import test_passes
from tests.worker.login.test_hiring import hired
from tests.worker.login.test_passes import Login, PowerFailure
from tests.worker.login.test_queues import Site
from tests.worker.login.test_watch_loop import Watching
from tests.worker.test_batches import claimed
from worker.folder import batches, paths, pause
from worker.folder.batches import Pool
from worker.folder.jobs import JobsFolder
from worker.settings import Config, Seconds


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """It has run before."""
    made = Site(tmp_path / "site", "a", places=10)
    assert made.guarded_pass() == os.EX_OK
    return made


def claim_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is not submitted, because the power fails."""

    def fail(step: str) -> None:
        if step == "after ack":
            raise PowerFailure

    site.broker.fill("a", 1)
    with monkeypatch.context() as crash, pytest.raises(PowerFailure):
        crash.setattr(paths, "crash_point", fail)
        site.one_pass()
    assert site.in_flight() == {"a": 1} and not site.cluster.jobs


def test_messages_wait_in_their_queue_until_the_pause_is_over(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.broker.fill("a", 3)
    pause.begin(site.jobs, "anna@login1", False, "maintenance")

    with caplog.at_level(logging.INFO):
        codes = [site.guarded_pass(), site.guarded_pass()]

    assert codes == [os.EX_OK] * 2 and len(site.broker.queued) == 3 and not site.active()
    assert caplog.text.count("paused, no message is taken by=anna@login1") == 2, "cron's log says it in each pass"
    pause.end(site.jobs)
    assert site.guarded_pass() == os.EX_OK and site.in_flight() == {"a": 3}


def test_a_paused_pass_with_nothing_in_flight_does_not_ask_the_broker(site: Site) -> None:
    pause.begin(site.jobs, "anna@login1", False, "")
    site.broker.away = True

    assert site.guarded_pass() == os.EX_OK


def test_what_is_claimed_is_submitted_and_answered_meanwhile(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    claim_one(site, monkeypatch)
    pause.begin(site.jobs, "anna@login1", False, "")
    site.broker.fill("a", 1)

    site.guarded_pass()
    site.run_jobs(test_passes.answers, "succeeded")
    site.guarded_pass()

    assert len(site.broker.sent) == 1 and not site.active() and len(site.broker.queued) == 1


def test_with_submit_what_is_claimed_waits_and_goes_on_afterwards(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    claim_one(site, monkeypatch)
    pause.begin(site.jobs, "anna@login1", True, "")

    assert [site.guarded_pass(), site.guarded_pass()] == [os.EX_OK] * 2
    assert not site.cluster.jobs and site.in_flight() == {"a": 1}

    pause.end(site.jobs)
    assert site.guarded_pass() == os.EX_OK and len(site.cluster.jobs) == 1


def test_what_runs_is_answered_also_where_nothing_is_submitted(site: Site) -> None:
    site.broker.fill("a", 1)
    site.guarded_pass()
    pause.begin(site.jobs, "anna@login1", True, "")

    site.run_jobs(test_passes.answers, "succeeded")
    site.guarded_pass()

    assert len(site.broker.sent) == 1 and not site.active()


def test_a_job_that_waits_for_longer_than_max_wait_expires_all_the_same(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_one(site, monkeypatch)
    pause.begin(site.jobs, "anna@login1", True, "")
    queues = tuple(replace(queue, max_wait=Seconds(0)) for queue in site.config.site.queues)
    site.config = replace(site.config, site=replace(site.config.site, queues=queues))

    site.guarded_pass()

    assert [reply.headers["outcome"] for reply in site.broker.sent] == ["expired"] and not site.cluster.jobs


@pytest.mark.parametrize("what", ["a file", "a folder"])
def test_a_pause_that_can_not_be_read_stops_all_that_a_pause_can_and_is_told(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    claim_one(site, monkeypatch)
    site.broker.fill("a", 1)
    site.jobs.paused.write_text("{") if what == "a file" else site.jobs.paused.mkdir()

    assert site.guarded_pass() == os.EX_DATAERR
    assert not site.cluster.jobs and len(site.broker.queued) == 1
    assert "paused by a file that can't be read" in caplog.text and str(site.jobs.paused) in caplog.text

    pause.end(site.jobs)
    assert site.guarded_pass() == os.EX_OK and len(site.cluster.jobs) == 2


def test_an_idle_pass_tells_of_a_damaged_pause_too(site: Site) -> None:
    site.jobs.paused.write_text("{}")

    assert site.guarded_pass() == os.EX_DATAERR


def test_a_pass_that_takes_many_messages_stops_where_somebody_pauses_it_meanwhile(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.login.claiming._AT_ONCE", 2)
    ack = site.broker.ack

    def pause_then_ack(*arguments: object) -> None:
        pause.begin(site.jobs, "anna@login1", False, "")
        ack(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(site.broker, "ack", pause_then_ack)
    site.broker.fill("a", 9)

    site.guarded_pass()

    assert len(site.broker.queued) == 7 and len(site.cluster.jobs) == 1, "what it had claimed is submitted"


# --- a watch


def test_a_watch_stops_listening_at_its_next_turn_says_so_once_and_wakes_when_the_pause_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(signal, "alarm", lambda seconds: 0)
    watching = Watching(Login(tmp_path / "site"))
    jobs = watching.jobs
    assert watching.one_pass() == 100
    pause.begin(jobs, "anna@login1", False, "")
    assert jobs.rung() and watching.wakes_for() == "bells"
    watching.broker.ask()

    with caplog.at_level(logging.INFO):
        assert [watching.one_pass(), watching.one_pass()] == [0, 0]

    assert watching.broker.hushed and len(watching.broker.queued) == 1 and not list(jobs.active_jobs())
    assert caplog.text.count("paused, no message is taken") == 1 and watching._pause() == 60
    pause.end(jobs)
    assert jobs.rung() and watching.one_pass() == 99


# --- pilots


@pytest.fixture
def with_pilots(tmp_path: Path) -> Config:
    """There are jobs for pilots."""
    config = config_for(tmp_path)
    queues = tuple(replace(each, mode="pilot") for each in config.site.queues)
    jobs = JobsFolder(config.site.jobs_dir)
    jobs.prepare()
    pool = Pool(jobs, queues[0].name)
    pool.prepare()
    batches.add(pool, [claimed(number) for number in range(8)], NOW)
    return replace(config, site=replace(config.site, queues=queues))


@pytest.mark.parametrize(("submit", "started"), [(False, 1), (True, 0)])
def test_pilots_are_started_for_the_batches_that_are_there_unless_nothing_is_submitted(
    with_pilots: Config, submit: bool, started: int
) -> None:
    jobs = JobsFolder(with_pilots.site.jobs_dir)
    pause.begin(jobs, "anna@login1", submit, "")

    assert hired(with_pilots, pause.look(jobs)) == started


# --- the file


def test_who_paused_first_stays_until_somebody_adds_to_it(tmp_path: Path) -> None:
    jobs = JobsFolder(tmp_path / "jobs")
    jobs.prepare()

    asked = (("a", False, "why"), ("b", False, "x"), ("c", True, ""), ("d", False, "x"))
    begun = [pause.begin(jobs, by, submit, reason) for by, submit, reason in asked]
    found = pause.look(jobs)

    assert begun == [True, False, True, False] and found is not None
    assert (found.by, found.submit, found.reason) == ("c", True, "why") and abs(found.at - time.time()) < 3600
    assert jobs.active_and_paused() == ([], True) and jobs.active_names() == []
    assert pause.end(jobs) == found and pause.end(jobs) is None and pause.look(jobs) is None


def test_a_damaged_pause_is_replaced_by_a_new_one_whatever_stands_there(tmp_path: Path) -> None:
    jobs = JobsFolder(tmp_path / "jobs")
    jobs.prepare()
    jobs.paused.mkdir()

    assert pause.begin(jobs, "a", False, "why")

    found = pause.look(jobs)
    assert found is not None and (found.by, found.reason, found.damaged) == ("a", "why", "")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_pause_that_the_power_interrupts_is_whole_or_not_there_and_can_be_said_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    jobs = JobsFolder(tmp_path / "jobs")
    jobs.prepare()

    def fail(step: str) -> None:
        if step == f"{when} {jobs.paused.name}":
            raise PowerFailure

    for submit in (False, True):  # the first is claimed, the second written over it
        before = pause.look(jobs)
        with monkeypatch.context() as crash, pytest.raises(PowerFailure):
            crash.setattr(paths, "crash_point", fail)
            pause.begin(jobs, "a", submit, "")
        left = pause.look(jobs)

        assert left == before if when == "before" else left is not None and left.submit == submit
        assert pause.begin(jobs, "a", submit, "") == (when == "before")
        found = pause.look(jobs)
        assert found is not None and found.submit == submit
