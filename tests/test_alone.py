"""The main job on one machine with nothing: embedded broker, local scheduler. No services, and still end to end."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.installation import Installation
from tests.scene import IMAGE
from tests.services.upstream import Upstream
from tests.workloads.probe import output
from worker.broker import Properties
from worker.broker.embedded import Embedded
from worker.settings import Replies

NO_RABBITMQ = SimpleNamespace(host="", port="", user="", password="", vhost="")


class Alone:
    """An installation, and a requester that speaks to the same file."""

    def __init__(self, folder: Path, upstream: Upstream) -> None:
        upstream.add(IMAGE, b"a page of music")
        self.upstream = upstream
        self.installation = Installation(
            folder, NO_RABBITMQ, upstream.url, upstream.user, upstream.password, {"PATH": "/usr/bin:/bin"}, "jobs"
        )
        site = self.installation.site_file
        broker_file = json.dumps(str(folder / "broker.sqlite"))
        site.write_text(f'scheduler = "local"\nbroker = "embedded"\nbroker_file = {broker_file}\n' + site.read_text())
        self.installation.change_site('visible_after = "3s"', 'visible_after = "0s"')
        self.broker = Embedded(folder / "broker.sqlite", Replies())
        for queue in ("jobs", "results"):
            self.broker.make_queue(queue)

    def ask(self, **settings: Any) -> str:
        return self.send({"inputs": {"Image": IMAGE}, "settings": settings})

    def send(self, message: dict[str, Any], reply_to: str = "results", correlation_id: str = "") -> str:
        correlation_id = correlation_id or str(uuid.uuid4())
        self.broker.send("jobs", json.dumps(message).encode(), Properties(reply_to, correlation_id))
        return correlation_id

    def answer(self, correlation_id: str, seconds: float = 30) -> dict[str, str]:
        """Exactly one, after which nothing is left to do."""
        answers: list[tuple[Any, bytes]] = []
        self.installation.passes_until(lambda: self._take(answers), seconds)
        self.installation.passes_until(lambda: not self.installation.active(), 30)
        self._take(answers)
        assert [properties.correlation_id for properties, _ in answers] == [correlation_id]
        body: dict[str, str] = json.loads(answers[0][1])
        return body

    def _take(self, answers: list[tuple[Any, bytes]]) -> bool:
        while (delivery := self.broker.get("results")) is not None:
            self.broker.ack(delivery)
            answers.append((delivery.properties, delivery.body))
        return bool(answers)


@pytest.fixture
def alone(odd_folder: Path, upstream: Upstream) -> Iterator[Alone]:
    made = Alone(odd_folder / "installation", upstream)
    yield made
    made.broker.close()


def test_a_job_comes_back_with_what_the_workload_makes_of_its_inputs(alone: Alone) -> None:
    import base64

    body = alone.answer(alone.ask(repeat=7))

    assert base64.b64decode(body["Result"]) == output("Result", {"Image": b"a page of music"}, {"repeat": 7})


def test_a_failing_program_is_answered_with_its_last_words(alone: Alone) -> None:
    body = alone.answer(alone.ask(exit=3))

    assert body == {"error": "The program ended with exit code 3. Its last words: probe runs / the image is empty"}


@pytest.mark.long(seconds=50)
@pytest.mark.slow
def test_a_job_that_takes_too_long_is_stopped(alone: Alone) -> None:
    body = alone.answer(alone.ask(**{"sleep": 300, "Maximum time (D-HH:MM)": "0-00:01"}), 90)

    assert "reached its time limit of 1 min" in body["error"]


def test_nothing_of_a_job_outlives_a_worker_that_was_killed(alone: Alone) -> None:
    mark = uuid.uuid4().hex
    correlation_id = alone.ask(sleep=300, children=2, mark=mark)
    alone.installation.check("--drain")
    (job,) = alone.installation.active()
    wait_until(lambda: len(processes(mark)) == 2)

    (worker,) = processes(str(job.path.parent.parent / "groups"), "-m worker")
    worker.kill()

    assert "without leaving a result" in alone.answer(correlation_id)["error"]
    assert processes(mark) == []


def processes(*words: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if all(word in " ".join(process.info["cmdline"] or ()) for word in words)
    ]


def test_a_job_that_is_cancelled_is_answered(alone: Alone) -> None:
    from slurm import SlurmJobId
    from slurm.local import Local

    correlation_id = alone.ask(sleep=300)
    alone.installation.check("--drain")
    (job,) = alone.installation.active()
    wait_until(job.attempt(1).started.exists)
    slurm_id = json.loads(job.attempt(1).submission.read_text())["slurm_id"]

    Local(alone.installation.jobs.path / "local").cancel([SlurmJobId(slurm_id)])

    assert alone.answer(correlation_id) == {"error": "The job was cancelled on the cluster."}


def test_a_job_whose_machine_forgot_it_is_lost(alone: Alone) -> None:
    import os
    import signal

    alone.installation.change_site('lost_after = "6s"', 'lost_after = "1s"')
    correlation_id = alone.ask(sleep=300)
    alone.installation.check("--drain")
    (job,) = alone.installation.active()
    wait_until(job.attempt(1).started.exists)
    (local,) = (alone.installation.jobs.path / "local").iterdir()

    # As a power failure ends them: neither the watcher nor the job can write anything any more.
    watcher = int((local / "watcher").read_text().split()[0])
    os.kill(watcher, signal.SIGSTOP)
    for process in psutil.Process(watcher).children(recursive=True):
        process.kill()
    os.kill(watcher, signal.SIGKILL)

    assert alone.answer(correlation_id) == {"error": "The cluster lost track of the job and its result. Run it again."}


def test_a_broken_message_does_not_stop_the_good_one_behind_it(alone: Alone) -> None:
    alone.broker.send("jobs", b"no job", Properties())
    correlation_id = alone.ask()

    assert "Result" in alone.answer(correlation_id)


def wait_until(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)
