"""The login side goes on with uploads whose worker ended: for a while in each pass, and never for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.both import ends_of
from tests.services.upstream import ASK, Answer, Upstream
from tests.worker.in_job.test_upload import BODY, PUT, whole
from tests.worker.in_job.test_upload_ways import left_alone
from tests.worker.in_job.whole import Whole
from tests.worker.login.process import passes_of
from tests.worker.login.test_passes import Login
from worker.folder.facts import read_result
from worker.job.facts import Asked, Outcome, Transfer
from worker.login.notices import Stop
from worker.login.uploads import Uploads
from worker.settings import Seconds


@pytest.fixture
def job(tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[Whole]:
    """Its outputs are made, and its worker has ended."""
    upstream.give = lambda asked: {"put": upstream.url + PUT, "get": upstream.url + PUT}
    yield left_alone(whole(tmp_path, upstream), monkeypatch)


def one_pass(job: Whole, until: Optional[float] = None) -> bool:
    """What a pass does where the judge says that the attempt's result is the job's; whether it is."""
    uploads = Uploads(job.config, lambda: None)
    uploads.until = uploads.until if until is None else until
    return uploads.conclude(job.job, job.attempt, job.result)


def be_patient(job: Whole, seconds: float) -> None:
    patience = replace(job.config.site.results, upload_patience=Seconds(seconds))
    job.config = replace(job.config, site=replace(job.config.site, results=patience))


def outcome_of(job: Whole) -> Outcome:
    outcome = job.outcome
    assert outcome is not None
    return outcome


def test_what_a_worker_left_is_delivered_and_answered(job: Whole, upstream: Upstream) -> None:
    assert one_pass(job)
    job.deliver()

    assert upstream.files[PUT] == BODY and job.body["Model"]["verified"] is True
    assert (outcome_of(job).outcome, outcome_of(job).by) == ("succeeded", "login") and job.job.delivered.is_there()


def test_a_receiver_that_is_away_is_tried_again_in_the_next_pass(job: Whole, upstream: Upstream) -> None:
    upstream.script(PUT, Answer(status=503))

    assert not one_pass(job) and job.outcome is None
    assert one_pass(job) and outcome_of(job).outcome == "succeeded"


def test_what_nobody_takes_for_too_long_is_answered_and_kept(job: Whole, upstream: Upstream) -> None:
    upstream.script(PUT, Answer(status=503))
    job.attempt.result.write(replace(job.result, ended_at=time.time() - 90000))
    job.attempt.transfer.write(Transfer({}, time.time() - 86500, time.time() - 86450))
    be_patient(job, 86400)

    assert one_pass(job)

    words = job.body["error"]
    assert words.startswith("The job has succeeded, but its outputs could not be delivered for 1 day. They are kept")
    assert outcome_of(job).outcome == "failed" and job.kept == {"00_Model.png"}


def test_patience_begins_anew_with_each_piece_that_is_taken(job: Whole, upstream: Upstream) -> None:
    upstream.script(PUT, Answer(status=503))
    job.attempt.result.write(replace(job.result, ended_at=time.time() - 90000))
    job.attempt.transfer.write(Transfer({}, time.time() - 80000))

    assert not one_pass(job) and job.outcome is None


def test_what_is_refused_is_answered_by_the_next_pass_too(job: Whole, upstream: Upstream) -> None:
    upstream.script(PUT, Answer(status=413))

    assert one_pass(job)
    assert "its receiver refused it (HTTP 413)" in job.body["error"] and outcome_of(job).outcome == "failed"


def test_a_job_that_is_cancelled_meanwhile_is_cancelled(job: Whole, upstream: Upstream) -> None:
    job.job.cancel_asked.write(Asked("op@host", time.time()))

    assert one_pass(job) and outcome_of(job).outcome == "cancelled"
    assert upstream.requests == []


def test_a_pass_goes_on_for_a_while_only(job: Whole, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("worker.login.uploads.time.monotonic", lambda: now[0])
    give = upstream.give

    def take_long(asked: dict[str, Any]) -> object:
        now[0] += 21
        return give(asked)

    upstream.give = take_long

    assert not one_pass(job) and job.outcome is None and PUT not in upstream.files


@pytest.mark.parametrize(("tried_for", "given_up"), [(86500, True), (86300, False), (0, False)])
def test_what_takes_longer_than_a_turn_each_time_is_given_up_too(
    job: Whole, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, tried_for: float, given_up: bool
) -> None:
    """One whose turn comes for the first time was refused by nobody, however long it has waited behind others."""
    now = time.time()
    job.attempt.result.write(replace(job.result, ended_at=now - 90000))
    job.attempt.transfer.write(Transfer({}, now - 90000, now - tried_for if tried_for else 0))
    be_patient(job, 86400)
    clock = iter([0.0, 0.0, 1.0])  # for its turn, and then it is over
    monkeypatch.setattr("worker.login.uploads.time.monotonic", lambda: next(clock, 21.0))

    assert one_pass(job) is given_up

    assert (job.outcome is not None) is given_up and PUT not in upstream.files
    assert not given_up or outcome_of(job).outcome == "failed"


def test_a_login_that_is_refused_is_tried_once_in_a_pass(job: Whole, upstream: Upstream) -> None:
    upstream.refuse_logins = 401
    uploads = Uploads(job.config, lambda: None)

    assert [uploads.conclude(job.job, job.attempt, job.result) for _ in range(3)] == [False] * 3

    assert len(upstream.paths("POST")) == 1 and job.outcome is None


def test_no_connection_to_the_broker_is_kept_waiting_for_a_receiver(job: Whole, upstream: Upstream) -> None:
    """Its heartbeat would be missed, and answers that are kept for a broker that is well hold up the queue."""
    rested = list[int]()
    uploads = Uploads(job.config, lambda: None, lambda: rested.append(len(upstream.requests)))
    upstream.script(ASK, Answer(status=503))

    assert not uploads.conclude(job.job, job.attempt, job.result) and rested == [0]
    uploads.until = time.monotonic()
    assert not uploads.conclude(job.job, job.attempt, job.result) and rested == [0], "nothing is begun"


def test_whoever_is_told_to_stop_begins_no_upload(job: Whole, upstream: Upstream) -> None:
    stop = Stop()
    stop.asked = True

    assert not Uploads(job.config, lambda: None, stop=stop).conclude(job.job, job.attempt, job.result)

    assert upstream.requests == []


def test_a_watch_has_one_turn_in_a_minute_and_not_in_each_pass(tmp_path: Path) -> None:
    login = Login(tmp_path / "site")
    passes = passes_of(login.config, login.jobs, ends_of(login.config.site, login.broker), login.cluster)
    passes.begin()._settler._uploads.until = 7.0
    passes.begin()  # without any upload

    assert passes.begin()._settler._uploads.until == 7.0


@pytest.mark.parametrize("is_there", [True, False])
def test_an_output_that_shows_late_on_this_host_is_not_taken_for_gone(
    job: Whole, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    class Late:
        def send(self, *parcel: object) -> object:
            raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("worker.transfer.open_uploads", lambda config: Late())
    if not is_there:
        (job.attempt.outputs / "00_Model.png").unlink()

    assert one_pass(job) is not is_there
    assert is_there or "it is no longer there" in job.body["error"]


def test_between_two_turns_others_have_theirs(job: Whole, upstream: Upstream) -> None:
    assert not one_pass(job, until=time.monotonic()) and upstream.requests == []


def test_the_outcome_is_the_job_s_and_its_attempt_has_succeeded_all_the_same(job: Whole, upstream: Upstream) -> None:
    upstream.script(ASK, Answer(status=404))
    one_pass(job)

    result = read_result(job.attempt)
    assert result is not None and result.outcome == "succeeded"
    assert outcome_of(job).why(result) == job.body["error"]
