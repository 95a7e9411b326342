"""Whole passes against a scheduler that declines: only such jobs wait, none runs twice, and each answer is true."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Callable

import pytest

from scheduler import BatchRequest, Declined, JobView, Phase, Refused, SlurmJobId, Unavailable
from slurm.answers import is_about_one_job
from tests.worker.login.test_passes import LAYERS, Cluster, Login, answers
from worker.doctor.report import Report
from worker.doctor.schedule import look_at_what_is_declined
from worker.folder.facts import group_of
from worker.folder.outline import stage_at
from worker.job.facts import Asked, Started
from worker.job.names import JobId
from worker.login.known_shapes import Shapes
from worker.login.shapes import sentence
from worker.operate import naming
from worker.operate.explain import explain
from worker.operate.places import Found
from worker.operate.timeline import timeline
from worker.settings import PilotRules, Seconds

WORDS = "QOSMaxCpuPerJobLimit / Job violates accounting/QOS policy"
LARGE = json.dumps({"inputs": LAYERS, "settings": {}, "resources": {"cpus": 2}}).encode()
SMALL = json.dumps({"inputs": LAYERS, "settings": {}, "resources": {"cpus": 1}}).encode()


class Choosy(Cluster):
    """`most`: so many jobs may be here; `declines`: whether it wants no such job; `lies`: it says so, and takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.most, self.words = 1000, WORDS
        self.declines: Callable[[BatchRequest], bool] = lambda request: False
        self.lies = False
        self.sizes: list[int] = []
        self.asked = 0
        self.running_ones: set[str] = set()
        self.cancelled: list[str] = []

    @property
    def alive(self) -> int:
        return sum(slurm_id not in self.ended for slurm_id, _, _ in self.elements)

    def submit(self, request: BatchRequest) -> SlurmJobId:
        count = len(request.elements) or 1
        self.sizes.append(count)
        if self.lies or not self._objects(request, count):
            slurm_id = super().submit(request)
            if not self.lies:
                return slurm_id
        raise Declined(self.words, is_about_one_job(self.words))

    def objection(self, request: BatchRequest) -> str:
        self.asked += 1
        return self.words if self._objects(request, 1) else ""

    def _objects(self, request: BatchRequest, count: int) -> bool:
        return self.declines(request) or self.alive + count > self.most

    def view(self, slurm_id: str, name: str) -> JobView:
        view = super().view(slurm_id, name)
        waits = view.phase is Phase.RUNNING and slurm_id not in self.running_ones
        return replace(view, phase=Phase.WAITING, state="PENDING", reason="Resources") if waits else view

    def cancel(self, ids: Sequence[SlurmJobId], only_waiting: bool = False) -> None:
        self.cancelled += ids
        super().cancel(ids, only_waiting)


class ChoosyLogin(Login):
    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.choosy = self.cluster = Choosy()
        self.change(array_size=50)

    def change(self, array_size: int, **timing: float) -> None:
        site = self.config.site
        changed = {name: Seconds(seconds) for name, seconds in timing.items()}
        self.config = replace(self.config, site=replace(
            site, slurm=replace(site.slurm, array_size=array_size), timing=replace(site.timing, **changed)
        ))  # fmt: skip

    def change_site(self, **settings: object) -> None:
        self.config = replace(self.config, site=replace(self.config.site, **settings))  # type: ignore[arg-type]

    def ask(self, count: int, body: bytes = SMALL, prefix: str = "c") -> None:
        for n in range(count):
            self.broker.ask(body, f"{prefix}-{n}")

    def passes(self, count: int) -> list[int]:
        return [self.one_pass() for _ in range(count)]

    def outcomes(self) -> dict[str, str]:
        return {str(reply.correlation_id): str(reply.headers["outcome"]) for reply in self.broker.sent}


@pytest.fixture
def login(tmp_path: Path) -> ChoosyLogin:
    return ChoosyLogin(tmp_path / "site")


def large(request: BatchRequest) -> bool:
    return request.cpus > 1


def test_only_the_declined_shape_waits_while_messages_are_taken_and_others_run(login: ChoosyLogin) -> None:
    login.choosy.declines = large
    login.ask(1, LARGE, "large")
    login.passes(2)
    login.ask(3)

    codes = login.passes(3)

    assert codes == [0, 0, 0] and login.choosy.alive == 3 and not login.broker.queued
    assert login.choosy.asked == 1
    states = sorted(state.word for job in login.active() if (state := stage_at(str(job.path))))
    assert states == ["declined", "pending", "pending", "pending"]


def test_in_the_end_the_declined_jobs_alone_are_rejected_with_slurms_words(login: ChoosyLogin) -> None:
    login.change(array_size=50, patience=0)
    login.choosy.declines = large
    login.ask(3, LARGE, "large")
    login.ask(2)

    login.passes(12)
    login.run_jobs(answers, "succeeded")
    login.passes(2)

    assert login.outcomes() == {
        "large-0": "rejected", "large-1": "rejected", "large-2": "rejected", "c-0": "succeeded", "c-1": "succeeded",
    }  # fmt: skip
    assert {json.loads(reply.body).get("error") for reply in login.broker.sent} - {None} == {
        f"The cluster does not accept this job ({WORDS}). Ask for less, or ask the people who run the service."
    }


def test_a_shape_for_which_jobs_of_another_leave_no_room_gets_its_turn_when_one_of_them_ends(
    login: ChoosyLogin,
) -> None:
    """A place that becomes free is taken in the same pass: else by a new message, each time."""
    login.change(array_size=50, hopeless_after=3600, adopt_after=3600)
    login.choosy.declines = lambda request: large(request) and login.choosy.alive >= 4
    login.choosy.objection = lambda request: ""  # type: ignore[method-assign]
    login.ask(4)
    login.passes(1)
    login.ask(1, LARGE, "large")
    login.passes(3)
    tried = len(login.choosy.sizes)
    login.config = replace(login.config, site=replace(login.config.site, max_in_flight=4))
    login.ask(6, prefix="later")
    remembered = Shapes(login.jobs, login.config.site.slurm)
    (shape,) = remembered.all()
    remembered.note(shape.resources, replace(shape, again_at=time.time() - 1))

    login.passes(3)
    assert len(login.choosy.sizes) == tried, "its pause is over, and all the room is taken"
    login.choosy.ended[login.choosy.elements[0][0]] = "failed"
    login.passes(2)

    assert [request.cpus for request in login.choosy.jobs][-1] == 2 and len(login.choosy.sizes) == tried + 1
    assert len(login.broker.queued) == 6


def test_where_the_smallest_job_is_declined_too_no_message_is_taken_and_the_job_has_failed_in_the_end(
    login: ChoosyLogin,
) -> None:
    login.choosy.declines = lambda request: True
    login.ask(1)
    login.passes(3)
    login.ask(1, prefix="later")

    assert login.passes(2) == [69, 69] and len(login.broker.queued) == 1
    login.change(array_size=50, patience=0)
    login.passes(4)

    assert login.outcomes()["c-0"] == "failed"
    assert "because the cluster did not take new jobs" in login.errors()[0]


def test_the_site_is_back_when_a_job_is_taken(login: ChoosyLogin) -> None:
    login.choosy.declines = lambda request: True
    login.ask(2)
    login.passes(4)

    login.choosy.declines = lambda request: False
    login.passes(4)

    assert login.choosy.alive == 2


def test_what_is_declined_together_is_halved_what_fits_goes_in_and_the_rest_follows_as_those_end(
    login: ChoosyLogin,
) -> None:
    login.change(array_size=50, hopeless_after=3600, adopt_after=3600)
    login.choosy.most = 5
    login.ask(12)

    login.passes(12)
    assert login.choosy.alive == 5
    tries = len(login.choosy.sizes)
    assert login.passes(3) == [0, 0, 0] and len(login.choosy.sizes) == tries  # nothing ended, nothing is tried

    login.ask(1, prefix="later")  # no message is taken into a full house
    first = login.choosy.elements[0][0]
    login.choosy.ended[first] = "failed"
    login.passes(2)
    assert login.choosy.alive == 5 and len(login.broker.queued) == 1

    for _ in range(12):
        login.run_jobs(answers, "succeeded")
        login.passes(4)
    assert len(login.outcomes()) == 13 and set(login.outcomes().values()) == {"succeeded", "failed"}


def test_each_part_gets_a_group_and_a_name_of_its_own(login: ChoosyLogin) -> None:
    login.choosy.most = 2
    login.ask(4)

    login.passes(5)

    names = [request.name for request in login.choosy.jobs]
    assert len(names) == len(set(names)) == len({request.arguments[-1] for request in login.choosy.jobs})
    assert login.choosy.alive == 2


@pytest.mark.parametrize("count", [1, 4])
def test_jobs_that_slurm_took_and_declined_in_one_breath_are_found_and_run_once(login: ChoosyLogin, count: int) -> None:
    login.choosy.lies = True
    login.ask(count)
    login.passes(1)
    login.choosy.lies = False

    login.passes(3)
    login.run_jobs(answers, "succeeded")
    login.passes(2)

    assert login.choosy.sizes == [count]
    assert list(login.outcomes().values()) == ["succeeded"] * count


def test_a_job_that_was_refused_and_taken_all_the_same_is_not_answered_wrongly(login: ChoosyLogin) -> None:
    login.ask(1)
    real = login.choosy.submit

    def takes_and_refuses(request: BatchRequest) -> SlurmJobId:
        real(request)
        raise Refused("no node of the cluster has what it asks for")

    login.choosy.submit = takes_and_refuses  # type: ignore[method-assign]
    login.passes(3)
    login.run_jobs(answers, "succeeded")
    login.passes(2)

    assert login.outcomes() == {"c-0": "succeeded"}


def test_a_copy_that_turns_up_late_under_an_old_name_is_the_attempt_where_it_began_first(login: ChoosyLogin) -> None:
    login.change(array_size=50, adopt_after=0)
    login.choosy.declines = lambda request: True
    login.ask(1)
    login.passes(1)
    (job,) = login.active()
    (old,) = [json.loads(file.read_text()) for file in job.attempt(1).path.glob("intent.json")]
    login.choosy.declines = lambda request: False
    login.passes(3)
    (new,) = login.choosy.elements

    late = SlurmJobId("777")
    request = replace(new[1], name=old["name"], arguments=[*new[1].arguments[:-1], str(login.jobs.group(old["group"]))])
    login.choosy.elements.append((late, request, old["element"]))
    login.choosy.running_ones.add(late)
    job.attempt(1).started.claim(Started(late, 0, "n1", 1.0))
    login.passes(2)

    assert login.choosy.cancelled == [new[0]] and login.broker.sent == []
    group = group_of(login.jobs, old["group"]).read()
    assert group is not None and group.members[str(old["element"])] == (job.id, 1)
    assert login.jobs.job(JobId(job.id)).attempt(1).started.read() is not None


def test_a_late_copy_that_has_not_begun_is_cancelled_as_soon_as_it_can_win_no_more(login: ChoosyLogin) -> None:
    login.change(array_size=50, adopt_after=0)
    login.choosy.declines = lambda request: True
    login.ask(1)
    login.passes(1)
    (job,) = login.active()
    old = json.loads(job.attempt(1).intent.path.read_text())
    login.choosy.declines = lambda request: False
    login.passes(3)
    (new,) = login.choosy.elements
    late = SlurmJobId("777")
    login.choosy.elements.append((late, replace(new[1], name=old["name"]), old["element"]))

    login.passes(2)
    assert login.choosy.cancelled == []
    login.choosy.running_ones.add(new[0])
    job.attempt(1).started.claim(Started(new[0], 0, "n1", 1.0))
    login.passes(1)

    assert login.choosy.cancelled == [late]


def test_groups_of_names_that_were_given_up_are_removed_with_the_job(login: ChoosyLogin) -> None:
    login.choosy.most = 1
    login.ask(2)
    for _ in range(6):
        login.passes(3)
        login.run_jobs(answers, "succeeded")

    assert login.active() == [] and list(login.jobs.groups.iterdir()) == []


def test_what_slurm_does_not_answer_about_the_smallest_job_is_asked_once_a_pass(login: ChoosyLogin) -> None:
    login.change(array_size=50, hopeless_after=3600, adopt_after=3600)
    login.choosy.declines = large
    login.ask(3, LARGE, "large")
    asked = []

    def says_nothing(request: BatchRequest) -> str:
        asked.append(request)
        raise Unavailable("sbatch --test-only gave no answer")

    login.choosy.objection = says_nothing  # type: ignore[method-assign]
    login.passes(6)
    before = len(asked)
    login.passes(1)

    assert len(asked) == before + 1 and login.outcomes() == {}


def test_a_shape_is_forgotten_with_the_settings_of_the_site_that_it_was_declined_under(login: ChoosyLogin) -> None:
    login.change(array_size=50, hopeless_after=3600, adopt_after=3600)
    login.choosy.declines = large
    login.ask(1, LARGE, "large")
    login.passes(4)
    slurm = replace(login.config.site.slurm, partition="wide")
    login.config = replace(login.config, site=replace(login.config.site, slurm=slurm))
    login.choosy.declines = lambda request: False

    login.passes(1)

    assert login.choosy.alive == 1


def test_a_memory_of_shapes_that_is_damaged_is_none(login: ChoosyLogin) -> None:
    login.change(array_size=50, hopeless_after=3600, adopt_after=3600)
    login.choosy.declines = large
    login.ask(1, LARGE, "large")
    login.passes(4)
    for file in login.jobs.shapes.iterdir():
        file.write_text("{")
    login.choosy.declines = lambda request: False

    assert login.passes(1) == [0] and login.choosy.alive == 1


@pytest.mark.parametrize(("declines", "sizes", "code"), [
    pytest.param(large, 2, 0, id="pilots alone"), pytest.param(lambda request: True, 1, 69, id="everything"),
])  # fmt: skip
def test_where_slurm_wants_no_pilots_their_jobs_go_the_ordinary_way_and_wait_where_it_wants_nothing(
    login: ChoosyLogin, declines: Callable[[BatchRequest], bool], sizes: int, code: int
) -> None:
    login.change(array_size=50, hopeless_after=3600, adopt_after=3600)
    rules = PilotRules(cpus=2, memory_mb=64000, time=Seconds(86400), idle=Seconds(60))
    queues = [
        replace(queue, mode="pilot", pilot=rules, resources=replace(queue.resources, gpus_by_memory=()))
        for queue in login.config.site.queues
    ]
    login.config = replace(login.config, site=replace(login.config.site, queues=tuple(queues)))
    login.choosy.declines = declines
    login.ask(1)

    codes = login.passes(6)

    assert len(login.choosy.sizes) == sizes and codes[-1] == code
    assert login.choosy.alive == (1 if code == 0 else 0)


def test_status_explain_show_and_doctor_say_what_waits_and_why(login: ChoosyLogin) -> None:
    login.change(array_size=50, hopeless_after=3600, adopt_after=3600)
    login.choosy.declines = large
    login.ask(1, LARGE, "large")
    login.passes(4)
    (job,) = login.active()
    found, report = naming.one(login.config, login.jobs, job.id), Report("passes")
    assert isinstance(found, Found)

    explained = "\n".join(explain(login.config, login.jobs, found, offline=True))
    look_at_what_is_declined(report, login.jobs, login.config.site.slurm)

    words = f"Slurm declines jobs of 2 CPUs, 8000 MB, 120 min, gpu:1: {WORDS}; tried again at"
    assert "Slurm declined it" in explained and f"ago: {WORDS}." in explained and words in explained
    assert "they are answered rejected, with Slurm's words" in explained
    assert words in report.findings[0].found
    told = [sentence(shape, 1.0) for shape in Shapes(login.jobs, login.config.site.slurm).all()]
    assert len(told) == 1 and told[0].startswith(words)
    assert any(event.what == "declined" and WORDS in event.words for event in timeline(job))


def test_a_job_that_an_operator_cancels_while_it_is_declined_is_closed_and_never_runs(login: ChoosyLogin) -> None:
    login.choosy.declines = lambda request: True
    login.ask(1)
    login.passes(4)
    (job,) = login.active()

    job.cancel_asked.write(Asked("mary@login1", 1.0, "It is not needed."))
    login.passes(2)

    assert login.outcomes() == {"c-0": "cancelled"}
    done = login.jobs.find(job.id)
    assert done is not None
    started = done.attempt(1).started.read()
    assert started is not None and started.closed
