"""A workload of which something is missing stops itself, and nothing else: its messages wait in their queue, or as held jobs
that take no place, until it is put right or patience ends."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scheduler import BatchRequest, SlurmJobId, Unavailable
from tests.worker.login.test_passes import LAYERS
from tests.worker.login.test_queues import Site, Watching
from worker.folder.facts import JobFolder
from worker.job.facts import Asked, Started
from worker.settings import Seconds, Workload
from worker.sources import Properties, Taken

BROKEN, WELL = "broken", "well"


class Stopped(Site):
    """One workload whose program can be taken away, and one that is well."""

    def __init__(self, place: Path, *queues: str, places: int = 10, well: bool = True) -> None:
        """The queues, each named as the workload of its messages that name none."""
        super().__init__(place, queues, places)
        self.program = place / "program"
        self.put_right()
        (like,) = self.config.site.workloads.values()
        broken = replace(like, argv=("{root}/program",))
        self.workloads = {BROKEN: broken, WELL: like} if well else {BROKEN: broken}
        self.have(self.workloads)

    def have(self, workloads: dict[str, Workload]) -> None:
        queues = tuple(replace(queue, workload=queue.name) for queue in self.config.site.queues)
        self.config = replace(self.config, site=replace(self.config.site, workloads=workloads, queues=queues))

    def patience(self, seconds: float) -> None:
        timing = replace(self.config.site.timing, patience=Seconds(seconds))
        self.config = replace(self.config, site=replace(self.config.site, timing=timing))

    def take_away(self) -> None:
        self.program.unlink()

    def put_right(self) -> None:
        self.program.write_text("#!/bin/sh\n")
        self.program.chmod(0o700)

    def ask(self, queue: str, workload: str = "", many: int = 1) -> None:
        more = {"workload": workload} if workload else {}
        body = json.dumps({"inputs": LAYERS, "settings": {}, **more}).encode()
        for _ in range(many):
            self.count = getattr(self, "count", 0) + 1
            properties = Properties(reply_to="answers", correlation_id=f"c-{self.count}")
            self.broker.queued.append(Taken(queue, body, properties, redelivered=False, tag=1))

    def submitted(self) -> list[JobFolder]:
        return [job for job in self.active() if job.attempt(1).submission.path.exists()]

    def held(self) -> list[JobFolder]:
        return [job for job in self.active() if job.held.path.exists()]


def stopped(place: Path, *queues: str, **more: Any) -> Stopped:
    """Known since before."""
    site = Stopped(place / "site", *queues, **more)
    assert site.guarded_pass() == os.EX_OK
    site.take_away()
    return site


# --- which queues are read


def test_the_queue_of_a_stopped_workload_is_not_read_and_the_other_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = stopped(tmp_path, BROKEN, WELL)
    site.ask(BROKEN)
    site.ask(WELL)

    assert [site.guarded_pass(), site.guarded_pass()] == [os.EX_DATAERR] * 2

    assert site.in_flight() == {WELL: 1} and len(site.submitted()) == 1
    assert [delivery.queue for delivery in site.broker.queued] == [BROKEN], "the queue is the right place to wait"
    assert f"workload stopped, the others go on workload={BROKEN} why='there is no program {tmp_path}" in (
        caplog.text.replace('"', "'").replace("\\", "")
    )
    site.put_right()
    assert site.guarded_pass() == os.EX_OK and site.in_flight() == {BROKEN: 1, WELL: 1}


@pytest.mark.parametrize("how", ["gone", "not executable"])
def test_a_queue_of_which_every_workload_is_stopped_is_not_read(tmp_path: Path, how: str) -> None:
    site = stopped(tmp_path, BROKEN, well=False)
    if how == "not executable":
        site.put_right()
        site.program.chmod(0o600)
    site.ask(BROKEN)

    assert site.guarded_pass() == os.EX_DATAERR and not site.active() and len(site.broker.queued) == 1


def test_an_idle_installation_reports_it_too(tmp_path: Path) -> None:
    assert stopped(tmp_path, BROKEN, WELL).guarded_pass() == os.EX_DATAERR


def test_on_a_shared_queue_its_messages_take_no_place_and_as_many_again_are_held(tmp_path: Path) -> None:
    site = stopped(tmp_path, BROKEN, places=3)
    site.ask(BROKEN, many=2)
    site.ask(BROKEN, WELL, many=2)
    site.ask(BROKEN, many=5)
    site.ask(BROKEN, WELL, many=9)

    for _ in range(6):
        site.guarded_pass()

    assert len(site.held()) == 3 and len(site.submitted()) == 2, "then it is not read"
    assert len(site.broker.queued) == 13
    site.put_right()
    for _ in range(3):
        assert site.guarded_pass() == os.EX_OK
    assert not site.held() and len(site.submitted()) == 5


# --- what becomes of held jobs


def test_held_jobs_are_answered_after_patience_and_once(tmp_path: Path) -> None:
    site = stopped(tmp_path, BROKEN)
    site.ask(BROKEN)
    site.guarded_pass()
    (job,) = site.held()
    held = job.held.read()
    assert held and held.why.startswith("there is no program") and not site.broker.sent

    job.held.write(replace(held, since=held.since - 2 * 86400))
    for _ in range(3):
        site.guarded_pass()

    (error,) = site.errors()
    assert error == (
        "The job could not be started for 2 days, because the service's installation is at fault. Please report this to "
        "the people who run the service."
    )
    assert not site.active() and not site.cluster.jobs


def test_a_held_job_obeys_a_cancel(tmp_path: Path) -> None:
    site = stopped(tmp_path, BROKEN)
    site.ask(BROKEN)
    site.guarded_pass()
    (job,) = site.held()

    job.cancel_asked.write(Asked("mary@login1", 1.0))
    site.guarded_pass()

    assert len(site.broker.sent) == 1 and site.broker.sent[0].headers["outcome"] == "cancelled"


@pytest.mark.parametrize("began", [False, True])
def test_one_that_may_have_been_submitted_is_answered_only_if_it_has_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, began: bool
) -> None:
    site = Stopped(tmp_path / "site", BROKEN)
    timing = replace(site.config.site.timing, patience=Seconds(0), lost_after=Seconds(9e9 if began else 0))
    site.config = replace(site.config, site=replace(site.config.site, timing=timing))
    site.ask(BROKEN)

    def unheard(request: BatchRequest) -> SlurmJobId:
        raise Unavailable("Socket timed out")

    with monkeypatch.context() as patch:
        patch.setattr(site.cluster, "submit", unheard)
        site.one_pass()
    (job,) = site.active()
    site.take_away()
    if began:
        job.attempt(1).started.claim(Started("9", 0, "n1", 1.0))
    for _ in range(4):
        site.one_pass()

    closed = job.attempt(1).started.read()
    assert len(site.broker.sent) == (0 if began else 1) and (not began or closed == Started("9", 0, "n1", 1.0))


# --- a name that is no longer in the site file


def test_a_message_for_a_workload_that_has_left_the_site_file_waits_for_it(tmp_path: Path) -> None:
    site = Stopped(tmp_path / "site", WELL)
    site.guarded_pass()
    broken = site.workloads.pop(BROKEN)
    site.have(site.workloads)
    site.ask(WELL, BROKEN)
    site.ask(WELL)

    assert site.guarded_pass() == os.EX_DATAERR
    (job,) = site.held()
    assert len(site.submitted()) == 1 and not site.broker.sent and not job.spec.path.exists()

    site.have({**site.workloads, BROKEN: broken})
    assert site.guarded_pass() == os.EX_OK
    assert len(site.submitted()) == 2 and not site.held()


@pytest.mark.parametrize("outcome", ["cancelled", "expired"])
def test_while_it_waits_it_obeys_a_cancel_and_its_deadline(tmp_path: Path, outcome: str) -> None:
    site = Stopped(tmp_path / "site", WELL)
    site.guarded_pass()
    del site.workloads[BROKEN]
    site.have(site.workloads)
    site.ask(WELL, BROKEN)
    site.guarded_pass()
    (job,) = site.held()

    if outcome == "cancelled":
        job.cancel_asked.write(Asked("mary@login1", 1.0))
    else:
        os.utime(job.message.path, (1.0, 1.0))
    site.guarded_pass()

    assert [reply.headers["outcome"] for reply in site.broker.sent] == [outcome] and not site.active()


def test_it_is_answered_after_patience(tmp_path: Path) -> None:
    site = Stopped(tmp_path / "site", WELL)
    site.guarded_pass()
    del site.workloads[BROKEN]
    site.have(site.workloads)
    site.ask(WELL, BROKEN)
    site.patience(0)

    site.guarded_pass()
    site.guarded_pass()

    assert "the service's installation is at fault" in site.errors()[0] and not site.active()
    assert site.broker.sent[0].headers["outcome"] == "failed"


def test_a_claimed_job_whose_workload_leaves_the_site_file_is_held(tmp_path: Path) -> None:
    site = stopped(tmp_path, WELL)
    site.ask(WELL, BROKEN)
    site.guarded_pass()
    (job,) = site.held()
    job.held.path.unlink()
    del site.workloads[BROKEN]
    site.have(site.workloads)

    assert site.guarded_pass() == os.EX_DATAERR

    assert [each.id for each in site.held()] == [job.id] and job.spec.path.exists() and not site.broker.sent


def test_a_name_that_the_site_file_never_had_is_rejected(tmp_path: Path) -> None:
    site = Stopped(tmp_path / "site", WELL)
    site.guarded_pass()
    site.ask(WELL, "paint")

    site.guarded_pass()

    assert site.errors() == ['There is no workload named "paint" here.']


def test_a_queue_whose_own_workload_is_not_in_the_site_file_is_not_read_and_the_others_are(tmp_path: Path) -> None:
    site = Stopped(tmp_path / "site", "paint", WELL)
    site.workloads.pop(BROKEN)
    site.have(site.workloads)
    site.ask("paint")
    site.ask(WELL)

    assert site.guarded_pass() == os.EX_DATAERR
    assert site.in_flight() == {WELL: 1} and len(site.broker.queued) == 1


@pytest.mark.parametrize("content", ["", "[]", '{"names": 5}'])
def test_a_list_of_names_that_can_not_be_read_is_made_anew(tmp_path: Path, content: str) -> None:
    site = Stopped(tmp_path / "site", WELL)
    site.jobs.workloads.write_text(content)

    assert site.guarded_pass() == os.EX_OK
    assert json.loads(site.jobs.workloads.read_text()) == {"names": [BROKEN, WELL]}


# --- a watch, and pilots


def test_a_watch_listens_to_the_others_and_says_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("signal.alarm", lambda seconds: 0)
    site = stopped(tmp_path, BROKEN, WELL)
    watching = Watching(site)

    for _ in range(3):
        watching._pass()
        watching._heard(0)
    site.put_right()
    watching._pass()
    watching._heard(0)

    assert site.broker.heard == [[WELL]] * 3 + [[BROKEN, WELL]]
    assert caplog.text.count("workload stopped") == 1


def test_no_pilot_gets_what_is_stopped(tmp_path: Path) -> None:
    site = Stopped(tmp_path / "site", BROKEN)
    queues = tuple(replace(queue, mode="pilot") for queue in site.config.site.queues)
    site.config = replace(site.config, site=replace(site.config.site, queues=queues))
    site.take_away()
    site.ask(BROKEN)

    site.guarded_pass()

    assert len(site.held()) == 1 and not site.cluster.jobs
