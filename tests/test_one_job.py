"""`check.py test` sends one job all the way, says what fails and what to do, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.test_broker_faults import control
from tests.installation import Installation
from tests.requester import Requester
from tests.scene import IMAGE, Scene
from tests.services.rabbitmq import RabbitMQ
from tests.services.upstream import Upstream
from tests.test_alone import Alone
from tests.test_pilots_alone import Piloted
from tests.test_watch import Watch
from worker.operate.small_job import BLOCK


@pytest.fixture
def alone(odd_folder: Path, upstream: Upstream) -> Iterator[Alone]:
    made = Alone(odd_folder / "installation", upstream)
    made.installation.site_file.write_text(made.installation.site_file.read_text() + BLOCK)
    yield made
    made.broker.close()


def left_on_the_broker(alone: Alone) -> list[str]:
    with sqlite3.connect(alone.installation.folder / "broker.sqlite") as db:
        queues = [name for (name,) in db.execute("SELECT name FROM queues ORDER BY name")]
        (messages,) = db.execute("SELECT count(*) FROM messages").fetchone()
    assert messages == 0
    return queues


def left_in_the_folder(alone: Alone) -> list[Path]:
    jobs = alone.installation.jobs
    places = (jobs.active, jobs.groups, jobs.rejected, jobs.undelivered, *jobs.done.iterdir())
    return [path for place in places for path in place.iterdir() if not path.name.startswith(".")]


def test_one_job_goes_all_the_way_is_told_step_by_step_and_leaves_nothing_behind(alone: Alone) -> None:
    said = alone.installation.check("test", stderr=False)

    steps = [line.split("s  ", 1)[1].split()[0] for line in said.splitlines()[:-1]]
    assert steps[:4] == ["workload", "queue", "results", "message"] and steps[-2:] == ["answer", "removed"]
    assert "hello, which takes no input" in said and said.splitlines()[-1].startswith("All is well")
    assert left_on_the_broker(alone) == ["jobs", "results"] and left_in_the_folder(alone) == []


def test_another_workload_gets_its_input_from_the_service(alone: Alone) -> None:
    told = json.loads(alone.installation.check("test", "--input", f"Image={IMAGE}", "--json", stderr=False))

    assert told["well"] and told["failed"] is None and told["job"]
    assert told["steps"][0] == {
        "step": "workload",
        "words": "probe, with Image",
        "seconds": told["steps"][0]["seconds"],
    }
    assert left_in_the_folder(alone) == []


def failed(alone: Alone, expect: int, *arguments: str) -> dict[str, str]:
    told = json.loads(alone.installation.check("test", *arguments, "--json", expect=expect, stderr=False))
    assert not told["well"]
    return dict(told["failed"])


def test_without_a_workload_that_needs_no_input_the_block_to_add_is_said(alone: Alone) -> None:
    site = alone.installation.site_file
    site.write_text(site.read_text().replace(BLOCK, ""))

    said = failed(alone, os.EX_CONFIG)

    assert said["step"] == "workload" and BLOCK in said["fix"] and "--input NAME=ADDRESS" in said["fix"]


def test_a_pattern_that_is_missing_is_said_before_anything_is_sent(alone: Alone) -> None:
    alone.installation.change_site("[replies]\n", '[replies]\npatterns = ["results"]\n')

    said = failed(alone, os.EX_CONFIG)

    assert said["step"] == "message" and 'Add "batchferry-test.*" to patterns' in said["fix"]
    assert left_on_the_broker(alone) == ["jobs", "results"]


def test_a_paused_installation_is_not_tried(alone: Alone) -> None:
    alone.installation.check("test")
    alone.installation.check("pause", "--reason", "maintenance")

    said = failed(alone, os.EX_TEMPFAIL)

    assert said["step"] == "pause" and "maintenance" in said["found"] and "resume" in said["fix"]


def test_a_job_that_fails_is_told_with_its_reason_and_its_folder_stays(alone: Alone) -> None:
    alone.installation.change_site('outputs = { "Word" = ".txt" }', 'outputs = { "Word" = ".txt", "More" = "" }')

    said = failed(alone, os.EX_DATAERR)

    assert said["step"] == "answer" and "More" in said["found"] and "./check.py show" in said["fix"]


def test_a_login_that_is_refused_is_told_at_once(alone: Alone) -> None:
    alone.upstream.refuse_logins = 401

    said = failed(alone, os.EX_NOPERM)

    assert said["step"] == "login" and "refuse" in said["found"] and "gone after 10 min" in said["fix"]


def test_beside_a_watch_it_runs_no_pass_of_its_own(alone: Alone) -> None:
    watch = Watch(alone.installation)
    try:
        watch.says("watching queues=jobs")

        said = alone.installation.check("test", stderr=False)

        assert watch.is_running()
    finally:
        watch.kill()
    assert "another one is running (cron's, or a watch)" in said and said.splitlines()[-1].startswith("All is well")
    assert left_in_the_folder(alone) == []


def test_in_a_queue_for_pilots_it_goes_by_a_pilot(odd_folder: Path, upstream: Upstream) -> None:
    alone = Piloted(odd_folder / "installation", upstream)
    alone.installation.site_file.write_text(alone.installation.site_file.read_text() + BLOCK)

    told = json.loads(alone.installation.check("test", "--json", stderr=False))

    assert told["well"] and {"todo", "locked"} & {step["step"] for step in told["steps"]}
    alone.installation.passes_until(lambda: not alone.crew())
    assert left_on_the_broker(alone) == ["jobs", "results"]
    alone.broker.close()


@pytest.mark.long(seconds=40)
def test_over_rabbitmq_and_slurm_its_answer_passes_through_no_queue_that_others_read(scene: Scene) -> None:
    site, results = scene.installation.site_file, scene.requester.results
    site.write_text(site.read_text() + BLOCK)
    scene.installation.change_site("[replies]\n", f'[replies]\npatterns = ["{results}"]\n')
    refused = scene.installation.check("test", expect=os.EX_CONFIG)
    scene.installation.change_site(f'["{results}"]', f'["{results}", "amq.rabbitmq.reply-to.*"]')

    said = scene.installation.check("test", stderr=False)

    assert 'Add "amq.rabbitmq.reply-to.*" to patterns' in refused
    assert f"results      {results} is there" in said and "Word: " in said and "All is well" in said
    assert not scene.installation.active() and scene.requester.answers == []
    for queue in (scene.requester.jobs, results):
        assert scene.requester.channel.queue_declare(queue, passive=True).method.message_count == 0


@pytest.mark.long(seconds=20)
def test_over_rabbitmq_a_consumer_that_takes_the_message_is_told(scene: Scene) -> None:
    site = scene.installation.site_file
    site.write_text(site.read_text() + BLOCK)
    scene.requester.channel.basic_consume(scene.requester.jobs, lambda *_: None)
    scene.requester.connection.process_data_events(time_limit=0)

    said = scene.installation.check("test", expect=os.EX_UNAVAILABLE, stderr=False)

    assert "another consumer took it (1 listen there)" in said and "one taker" in said
    assert not scene.installation.active()


@pytest.mark.long(seconds=30)
def test_over_rabbitmq_the_least_rights_that_passes_need_suffice(
    private_rabbitmq: RabbitMQ, odd_folder: Path, upstream: Upstream
) -> None:
    """To read the jobs queue, and to write to the default exchange."""
    installation = Installation(
        odd_folder / "installation", private_rabbitmq, upstream.url, upstream.user, upstream.password,
        {"PATH": "/usr/bin:/bin"}, "jobs", more=BLOCK,
    )  # fmt: skip
    installation.site_file.write_text(f'scheduler = "local"\n{installation.site_file.read_text()}')
    Requester(private_rabbitmq, "jobs", "results").close()
    control(private_rabbitmq, "set_permissions", private_rabbitmq.user, "^$", r"^amq\.default$", "^jobs$")

    assert "All is well" in installation.check("test", stderr=False)
