"""Retry by cause: what is tried again, with what, how often the work runs, and what the requester reads of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scene import IMAGE, Scene, make_scene
from tests.services.broker import Broker
from tests.services.daemon import poll
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Answer, Upstream


@pytest.fixture
def scene(rabbitmq: Broker, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path) -> Iterator[Scene]:
    made = make_scene(odd_folder, rabbitmq, slurm, upstream, retry='{ attempts = 3, wait = "1s" }')
    yield made
    made.requester.close()


def allow(scene: Scene, *ends: str) -> None:
    words = ", ".join(f'"{end}"' for end in ends)
    scene.installation.change_site("attempts = 3", f"attempts = 3, on = [{words}]")


@pytest.mark.fault(what="an input can't be had for longer than fetch_patience", moment="in the first attempt")
def test_a_failed_fetch_is_tried_again_in_another_attempt(scene: Scene, tmp_path: Path) -> None:
    scene.installation.change_site("[timing]", '[api]\nfetch_patience = "1s"\n[timing]')
    scene.upstream.script(IMAGE, *[Answer(status=500)] * 4)
    record = tmp_path / "record"

    answer = scene.answer(scene.ask(record=str(record)), 300)

    assert answer.error is None and answer.headers["outcome"] == "succeeded"
    assert answer.headers["attempt"] == 1 + len(answer.headers["earlier_attempts"])
    assert set(answer.headers["earlier_attempts"]) == {"failed"}
    assert len(record.read_text().splitlines()) == 1


@pytest.mark.long(seconds=30)
@pytest.mark.fault(what="an input can't be had for longer than fetch_patience", moment="in every attempt")
def test_a_fetch_that_fails_in_every_attempt_is_answered_once_and_names_them(scene: Scene) -> None:
    scene.installation.change_site("[timing]", '[api]\nfetch_patience = "1s"\n[timing]')
    scene.upstream.script(IMAGE, *[Answer(status=500)] * 99)

    answer = scene.answer(scene.ask(), 300)

    assert answer.headers["outcome"] == "failed" and answer.headers["attempt"] == 3
    assert answer.error is not None and 'The input "Image" could not be downloaded' in answer.error
    assert answer.error.endswith("(This was attempt 3; before: failed to fetch, failed to fetch.)")


@pytest.mark.fault(what="a workload exits with 3", moment="where everything else may be tried again")
def test_a_program_that_fails_is_not_tried_again(scene: Scene, tmp_path: Path) -> None:
    allow(scene, "out_of_memory", "timed_out", "node_failed", "preempted", "lost", "fetch", "pack", "start")
    record = tmp_path / "record"

    answer = scene.answer(scene.ask(exit=3, record=str(record)))

    assert answer.headers["outcome"] == "failed" and answer.headers["exit_code"] == 3
    assert answer.headers["attempt"] == 1 and "earlier_attempts" not in answer.headers
    assert len(record.read_text().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.long(seconds=170)
@pytest.mark.fault(what="the time limit is reached", moment="where the workload may have more time")
def test_a_job_that_ran_out_of_time_is_tried_with_twice_as_much(scene: Scene, tmp_path: Path) -> None:
    allow(scene, "timed_out")
    record = tmp_path / "record"

    answer = scene.answer(scene.ask(**{"sleep": 75, "Maximum time (D-HH:MM)": "0-00:01", "record": str(record)}), 240)

    assert answer.headers["outcome"] == "succeeded"
    assert answer.headers["attempt"] == 2 and answer.headers["earlier_attempts"] == ["timed_out"]
    assert len(record.read_text().splitlines()) == 2


@pytest.mark.long(seconds=45)
@pytest.mark.fault(what="a node is cut off from Slurm", moment="while the job on it goes on to its end")
def test_a_late_success_of_an_earlier_attempt_is_never_sent(
    rabbitmq: Broker, private_slurm: SlurmCluster, upstream: Upstream, tmp_path: Path
) -> None:
    scene = make_scene(tmp_path, rabbitmq, private_slurm, upstream, retry='{ attempts = 2, wait = "1s" }')
    scene.installation.change_site("[timing]", '[slurm]\npartition = "doomed"\n[timing]')
    record = tmp_path / "record"
    correlation_id, _ = scene.submit(sleep=12, record=str(record))
    (job,) = scene.installation.active()
    assert poll(record.exists)

    private_slurm.kill_node("n3", spare_jobs=True)
    private_slurm.declare_lost("n3")
    scene.installation.change_site('"doomed"', '"main"')
    answer = scene.answer(correlation_id, 120)

    assert answer.headers["outcome"] == "succeeded" and answer.headers["attempt"] == 2
    assert answer.headers["earlier_attempts"] == ["node_failed"]
    assert poll(scene.installation.job(job.id).attempt(1).late_result.path.exists)
    assert len(scene.requester.to(correlation_id)) == 1
    assert len(record.read_text().splitlines()) == 2  # once in each attempt
    scene.requester.close()
