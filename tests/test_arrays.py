"""Jobs of equal needs go to Slurm as one array, and stay jobs of their own: on real RabbitMQ and real Slurm."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.scene import Scene, make_scene
from tests.services.broker import Broker
from tests.services.daemon import poll
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Upstream


def slurm_ids(scene: Scene) -> dict[str, str]:
    """Slurm's id of each active job, by correlation id."""
    return {
        json.loads(job.message.path.read_text())["properties"]["correlation_id"]: json.loads(
            job.attempt(1).submission.path.read_text()
        )["slurm_id"]
        for job in scene.installation.active()
    }


def finish(scene: Scene, asked: list[str]) -> dict[str, str]:
    """Exactly one answer each; returns the outcomes."""
    scene.installation.passes_until(lambda: len(scene.requester.collect()) >= len(asked))
    scene.installation.passes_until(lambda: not scene.installation.active())
    assert Counter(answer.correlation_id for answer in scene.requester.collect()) == Counter(asked)
    return {answer.correlation_id: str(answer.headers["outcome"]) for answer in scene.requester.collect()}


@pytest.mark.long(seconds=40)
def test_equal_jobs_are_one_array_and_one_that_fails_touches_no_other(scene: Scene, tmp_path: Path) -> None:
    record = tmp_path / "record"
    asked = [scene.ask(record=str(record)) for _ in range(9)]
    failing = scene.ask(exit=3)

    scene.installation.check("--drain")
    ids = slurm_ids(scene)
    outcomes = finish(scene, [*asked, failing])

    assert len({slurm_id.partition("_")[0] for slurm_id in ids.values()}) == 1
    assert {slurm_id.partition("_")[2] for slurm_id in ids.values()} == {str(n) for n in range(10)}
    assert Counter(outcomes.values()) == {"succeeded": 9, "failed": 1} and outcomes[failing] == "failed"
    assert len(record.read_text().splitlines()) == 9
    assert not list(scene.installation.jobs.groups.iterdir())


@pytest.mark.long(seconds=40)
def test_cancelling_one_element_cancels_one_job(scene: Scene) -> None:
    asked = [scene.ask(), scene.ask(sleep=60), scene.ask()]
    scene.installation.check("--drain")
    (job,) = (job for job in scene.installation.active() if asked[1] in job.message.path.read_text())
    assert poll(job.attempt(1).started.path.exists), "before its worker has begun, it would be its node's trouble"

    scene.slurm.run("scancel", slurm_ids(scene)[asked[1]])
    outcomes = finish(scene, asked)

    assert [outcomes[each] for each in asked] == ["succeeded", "cancelled", "succeeded"]


@pytest.mark.long(seconds=40)
def test_an_array_that_is_cancelled_before_it_could_begin_is_answered_element_by_element(scene: Scene) -> None:
    scene.installation.change_site("[timing]", '[slurm]\nextra_options = ["--begin=now+3600"]\n[timing]')
    scene.installation.change_site('lost_after = "6s"', 'lost_after = "90s"')
    asked = [scene.ask() for _ in range(3)]
    scene.installation.check("--drain")

    scene.slurm.run("scancel", next(iter(slurm_ids(scene).values())).partition("_")[0])

    assert set(finish(scene, asked).values()) == {"cancelled"}


@pytest.mark.long(seconds=40)
def test_an_array_whose_submission_was_unclear_is_adopted_whole_and_runs_once(scene: Scene, tmp_path: Path) -> None:
    shims, record = tmp_path / "shims", tmp_path / "record"
    shims.mkdir()
    sbatch = shims / "sbatch"
    sbatch.write_text('#!/bin/sh\n/usr/bin/sbatch "$@"; echo "sbatch: error: Socket timed out" >&2; exit 1\n')
    sbatch.chmod(0o755)
    scene.installation.change_site("[timing]", f"[slurm]\nbin_dir = {json.dumps(str(shims))}\n[timing]")
    asked = [scene.ask(record=str(record)) for _ in range(4)]

    scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    sbatch.unlink()
    outcomes = finish(scene, asked)

    assert set(outcomes.values()) == {"succeeded"}
    assert len(record.read_text().splitlines()) == 4


@pytest.mark.long(seconds=60)
def test_an_element_that_slurm_has_forgotten_is_asked_for_while_another_still_runs(
    rabbitmq: Broker, upstream: Upstream, tmp_path: Path
) -> None:
    with SlurmCluster(tmp_path / "slurm", {"MinJobAge": "2"}) as own:
        scene = make_scene(tmp_path, rabbitmq, own, upstream)
        scene.installation.change_site('lost_after = "6s"', 'lost_after = "1s"')
        killed, running = scene.ask(memory=600), scene.ask(sleep=30)
        scene.installation.check("--drain")
        slurm_id = slurm_ids(scene)[killed]
        assert poll(lambda: slurm_id not in own.run("squeue", "-r", "-t", "all", "-h", "-o", "%i").split())

        outcomes = finish(scene, [killed, running])

        assert outcomes == {killed: "out_of_memory", running: "succeeded"}
        scene.requester.close()


@pytest.mark.long(seconds=40)
def test_when_the_slurm_commands_are_used_up_work_waits_and_nothing_fails(scene: Scene) -> None:
    """First the site allows three, and the next two in minutes; then so few that each is waited for."""
    scene.installation.change_site("[timing]", "[slurm]\ncommands_per_second = 0.01\ncommands_at_once = 3\n[timing]")
    asked = [scene.ask() for _ in range(2)]
    said = scene.installation.check("--drain")
    assert "slurm commands sbatch=1 scontrol=1 squeue=1" in said

    asked.append(scene.ask())
    said = scene.installation.check("--drain")
    assert "no slurm commands are left" in said and scene.requester.waiting_jobs() == 1, "it waits where it is"

    scene.installation.change_site("commands_per_second = 0.01", "commands_per_second = 0.5")
    assert set(finish(scene, asked).values()) == {"succeeded"}


@pytest.mark.long(seconds=40)
def test_no_more_elements_run_at_a_time_than_the_site_says(scene: Scene) -> None:
    scene.installation.change_site("[timing]", "[slurm]\narray_limit = 1\narray_size = 3\n[timing]")
    asked = [scene.ask(sleep=2) for _ in range(3)]
    scene.installation.check("--drain")
    array = next(iter(slurm_ids(scene).values())).partition("_")[0]

    assert poll(lambda: "JobArrayTaskLimit" in scene.slurm.run("squeue", "-r", "-h", "-j", array, "-o", "%r"))
    assert set(finish(scene, asked).values()) == {"succeeded"}
