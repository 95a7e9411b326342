"""Pilots on real RabbitMQ and real Slurm: many jobs in one Slurm job, and the same promise as for a job of its own."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.passes import Operator, runs
from tests.faults.shims import Shims
from tests.requester import Answer
from tests.scene import IMAGE, Scene, make_scene
from tests.services.broker import Broker
from tests.services.daemon import poll
from tests.services.rabbitmq import RabbitMQ
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Upstream
from worker.folder import batches
from worker.folder.facts import JobFolder

PILOT = """mode = "pilot"

[queues.pilot]
memory_mb = 800
cpus = 2
time = "10min"
idle = "3s"
batch = 40
jobs_per_pilot = 60
most = 3
"""


def piloted(scene: Scene) -> Scene:
    scene.installation.change_site('workload = "probe"\n', f'workload = "probe"\n{PILOT}')
    scene.installation.change_site("attempts = 1", "attempts = 3, wait = 0")
    return scene


@pytest.fixture
def scene(scene: Scene, rabbitmq: Broker, slurm: SlurmCluster) -> Scene:
    return piloted(scene)


@pytest.fixture
def own(rabbitmq: Broker, private_slurm: SlurmCluster, upstream: Upstream, odd_folder: Path) -> Iterator[Scene]:
    made = piloted(make_scene(odd_folder, rabbitmq, private_slurm, upstream))
    yield made
    made.requester.close()


def crew(scene: Scene) -> list[JobFolder]:
    place = batches.crew_of(scene.installation.jobs)
    return [JobFolder(each) for each in place.iterdir()] if place.exists() else []


def processes(scene: Scene) -> list[psutil.Process]:
    """The pilots themselves, not their runners."""
    mine = [
        each
        for each in psutil.process_iter(["cmdline", "ppid"])
        if str(scene.installation.site_file) in (each.info["cmdline"] or []) and "worker" in each.info["cmdline"]
    ]
    return [each for each in mine if each.info["ppid"] not in {other.pid for other in mine}]


def finish(scene: Scene, asked: list[str], seconds: float = 150) -> dict[str, Answer]:
    """Exactly one answer for each; of copies, which only a crash may leave, all are equal. Nothing is left behind."""
    operator = Operator(scene)
    operator.passes_until(lambda: {a.correlation_id for a in scene.requester.collect()} >= set(asked), seconds)
    operator.passes_until(lambda: not scene.installation.active() and not crew(scene))
    answers: dict[str, Answer] = {}
    for answer in scene.requester.collect():
        first = answers.setdefault(answer.correlation_id, answer)
        assert (first.body, first.properties.message_id) == (answer.body, answer.properties.message_id)
    assert set(answers) == set(asked)
    return answers


def one_each(scene: Scene) -> bool:
    return set(Counter(answer.correlation_id for answer in scene.requester.collect()).values()) == {1}


def slurm_ids(answers: dict[str, Answer]) -> set[str]:
    return {str(answer.headers["slurm_job_id"]) for answer in answers.values()}


@pytest.mark.long(seconds=40)
def test_200_jobs_need_one_sbatch_and_get_200_true_answers(scene: Scene) -> None:
    shims = Shims(scene)
    asked = [scene.ask(repeat=number) for number in range(200)]

    answers = finish(scene, asked)

    assert all(len(answers[each].output("Result")) == 32 * number for number, each in enumerate(asked))
    assert one_each(scene) and len(slurm_ids(answers)) <= 3
    assert shims.calls("sbatch") <= 2


@pytest.mark.long(seconds=40)
@pytest.mark.fault(what="memory runs out in a pilot", moment="beside other jobs")
def test_of_jobs_side_by_side_only_the_one_without_memory_is_told_so(scene: Scene) -> None:
    good = [scene.ask(sleep=0.2) for _ in range(8)]
    main, child = scene.ask(memory=2000), scene.ask(**{"child memory": 2000})

    answers = finish(scene, [*good, main, child])

    assert [answers[each].headers["outcome"] for each in (main, child)] == ["out_of_memory"] * 2
    assert all("Result" in answers[each].body for each in good)


@pytest.mark.long(seconds=40)
@pytest.mark.fault(what="scancel of a pilot", moment="while its jobs run")
def test_a_pilot_that_somebody_cancels_leaves_its_jobs_to_others(scene: Scene, tmp_path: Path) -> None:
    records = [tmp_path / str(number) for number in range(40)]
    asked = [scene.ask(record=str(record), sleep=0.3) for record in records]
    scene.installation.check("--drain")
    assert poll(lambda: sum(map(runs, records)) >= 6)

    (pilot,) = crew(scene)
    scene.slurm.run("scancel", json.loads(pilot.attempt(1).started.path.read_text())["slurm_id"])
    answers = finish(scene, asked)

    assert {answer.headers["outcome"] for answer in answers.values()} == {"succeeded"}
    assert all(1 <= runs(record) <= answers[each].headers["attempt"] for each, record in zip(asked, records))


@pytest.mark.long(seconds=60)
@pytest.mark.fault(what="a node fails", moment="while a pilot works there")
def test_the_jobs_of_a_failed_node_are_done_elsewhere(own: Scene, tmp_path: Path) -> None:
    own.installation.change_site("[timing]", '[slurm]\npartition = "doomed"\n[timing]')
    records = [tmp_path / str(number) for number in range(40)]
    asked = [own.ask(record=str(record), sleep=0.3) for record in records]
    own.installation.check("--drain")
    assert poll(lambda: sum(map(runs, records)) >= 6)

    own.slurm.kill_node("n3")
    own.slurm.declare_lost("n3")
    own.installation.change_site('partition = "doomed"', 'partition = "main"')
    answers = finish(own, asked)

    assert {answer.headers["outcome"] for answer in answers.values()} == {"succeeded"}
    assert one_each(own)
    assert all(1 <= runs(record) <= answers[each].headers["attempt"] for each, record in zip(asked, records))


@pytest.mark.long(seconds=60)
@pytest.mark.fault(what="a node is cut off from Slurm and works on", moment="while a pilot works there")
def test_a_pilot_that_is_cut_off_and_works_on_says_nothing_that_contradicts(own: Scene, tmp_path: Path) -> None:
    own.installation.change_site("[timing]", '[slurm]\npartition = "doomed"\n[timing]')
    asked = [own.ask(sleep=0.5) for _ in range(60)]
    own.installation.check("--drain")
    assert poll(lambda: len(own.requester.collect()) >= 4)

    own.slurm.kill_node("n3", spare_jobs=True)
    own.slurm.declare_lost("n3")
    (cut_off,) = processes(own)
    own.installation.change_site('partition = "doomed"', 'partition = "main"')
    answers = finish(own, asked)

    assert {answer.headers["outcome"] for answer in answers.values()} == {"succeeded"}
    assert poll(lambda: not cut_off.is_running())


@pytest.mark.long(seconds=30)
@pytest.mark.fault(what="a pilot freezes and wakes after its batch was taken away", moment="while its jobs run")
def test_a_frozen_pilot_that_wakes_after_its_jobs_were_given_away_is_silent(scene: Scene) -> None:
    asked = [scene.ask(sleep=0.3) for _ in range(30)]
    scene.installation.check("--drain")
    assert poll(lambda: len(scene.requester.collect()) >= 4)
    (frozen,) = processes(scene)
    (pilot,) = crew(scene)

    frozen.suspend()
    place = scene.installation.jobs.pilots
    taken = next(place.glob("q-*/locked/*~*"))
    taken.rename(taken.parent.parent / "ended" / taken.name)
    before = len(scene.requester.collect())
    time.sleep(1)
    frozen.resume()

    assert poll(lambda: not frozen.is_running() or frozen.status() == psutil.STATUS_ZOMBIE)
    assert len(scene.requester.collect()) == before
    answers = finish(scene, asked)
    assert {answer.headers["outcome"] for answer in answers.values()} == {"succeeded"}
    assert "was taken away" in _log_of(scene, pilot)


def _log_of(scene: Scene, pilot: JobFolder) -> str:
    return next(scene.installation.jobs.pilots.glob(f"**/{pilot.id}/attempts/1/job.log")).read_text()


@pytest.mark.long(seconds=40)
@pytest.mark.fault(what="an answer is refused", moment="among many of a pilot")
def test_an_answer_that_the_broker_refuses_holds_up_no_other(scene: Scene) -> None:
    good = [scene.ask() for _ in range(30)]
    body = json.dumps({"inputs": {"Image": IMAGE}, "settings": {}})
    scene.requester.publish(body, correlation_id="gone", reply_to="no-such-queue")
    scene.requester.publish(body, correlation_id="malformed", reply_to="amq.rabbitmq.reply-to.made.up")
    more = [scene.ask() for _ in range(30)]

    operator = Operator(scene)
    wanted = {*good, *more}
    operator.passes_until(lambda: {a.correlation_id for a in scene.requester.collect()} >= wanted)
    operator.passes_until(
        lambda: len([job for job in scene.installation.active() if job.unroutable.path.exists()]) == 2, 60
    )

    answers = [answer.correlation_id for answer in scene.requester.collect()]
    assert set(answers) == wanted


@pytest.mark.long(seconds=40)
@pytest.mark.fault(what="a pilot is killed (SIGKILL)", moment="while it sends answers")
def test_a_pilot_that_is_killed_while_it_sends_loses_no_answer(scene: Scene) -> None:
    asked = [scene.ask() for _ in range(120)]
    scene.installation.check("--drain")
    assert poll(lambda: len(scene.requester.collect()) >= 20)

    for each in processes(scene):
        os.kill(each.pid, signal.SIGKILL)
    answers = finish(scene, asked)

    assert {answer.headers["outcome"] for answer in answers.values()} == {"succeeded"}


@pytest.mark.long(seconds=60)
@pytest.mark.fault(what="broker stopped", moment="while a pilot sends answers")
def test_answers_wait_while_the_broker_is_away(
    private_rabbitmq: RabbitMQ, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path
) -> None:
    scene = piloted(make_scene(odd_folder, private_rabbitmq, slurm, upstream))
    scene.installation.change_site('publish_patience = "3s"', 'publish_patience = "60s"')
    for name in (scene.requester.jobs, scene.requester.results):
        scene.requester.channel.queue_delete(name)
        scene.requester.channel.queue_declare(name, durable=True)
    asked = [
        scene.requester.publish(json.dumps({"inputs": {"Image": IMAGE}, "settings": {"sleep": 0.1}}), delivery_mode=2)
        for _ in range(60)
    ]
    scene.installation.check("--drain")
    assert poll(lambda: len(scene.requester.collect()) >= 10)

    private_rabbitmq.stop()
    time.sleep(2)
    private_rabbitmq.start()
    scene.requester.connect()
    answers = finish(scene, asked)

    assert {answer.headers["outcome"] for answer in answers.values()} == {"succeeded"}
    scene.requester.close()
