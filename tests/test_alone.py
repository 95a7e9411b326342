"""The main job on one machine with nothing: embedded broker, local scheduler. No services, and still end to end."""

from __future__ import annotations

import json
import shlex
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.both import one
from tests.installation import ROOT, Installation
from tests.scene import IMAGE
from tests.services.upstream import Upstream
from tests.workloads.probe import output
from worker.embedded import Embedded
from worker.settings import Replies
from worker.sources import Properties

pytestmark = pytest.mark.unhurried

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

    def use_python(self, folder: Path, first: str) -> None:
        """The worker's python is one that does this first, a line of sh, or an assignment before the command."""
        python = folder / "python"
        python.write_text(f'#!/bin/sh\n{first} exec {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o700)
        self.installation.change_site(f"python = {json.dumps(sys.executable)}", f"python = {json.dumps(str(python))}")

    def ask(self, **settings: Any) -> str:
        return self.send({"inputs": {"Image": IMAGE}, "settings": settings})

    def send(self, message: dict[str, Any], reply_to: str = "results", correlation_id: str = "") -> str:
        correlation_id = correlation_id or str(uuid.uuid4())
        self.broker.put("jobs", json.dumps(message).encode(), Properties(reply_to, correlation_id))
        return correlation_id

    def answer(self, correlation_id: str, seconds: float = 300) -> dict[str, str]:
        """Exactly one, after which nothing is left to do."""
        answers: list[tuple[Any, bytes]] = []
        self.installation.passes_until(lambda: self.take(answers), seconds)
        self.installation.passes_until(lambda: not self.installation.active())
        self.take(answers)
        assert [properties.correlation_id for properties, _ in answers] == [correlation_id]
        body: dict[str, str] = json.loads(answers[0][1])
        return body

    def take(self, answers: list[tuple[Any, bytes]]) -> bool:
        while (delivery := one(self.broker, "results")) is not None:
            self.broker.ack([delivery])
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


def away_for_a_while(alone: Alone, tmp_path: Path, how: str) -> tuple[Path, Path]:
    """Of the workload's program: where it is looked for, and where it is."""
    place, kept = tmp_path / "program", tmp_path / "kept"
    probe = shlex.join([sys.executable, str(ROOT / "tests/workloads/probe.py")])
    kept.write_text(f'#!/bin/sh\nexec {probe} "$@"\n')
    kept.chmod(0o700)
    if how == "not executable":
        place.write_text(kept.read_text())
    words = [*(["/bin/sh"] if how == "an interpreter's script" else []), str(place), "{job}"]
    alone.installation.change_site('argv = ["{python}", "{root}/tests/workloads/probe.py", "{job}"]',
                                   f"argv = {json.dumps(words)}")  # fmt: skip
    alone.installation.change_site("retry = { attempts = 1 }", 'retry = { attempts = 3, wait = "0s" }')
    return place, kept


@pytest.mark.parametrize("how", ["missing", "not executable", "an interpreter's script"])
def test_a_program_that_is_not_on_one_node_is_tried_again_elsewhere(alone: Alone, tmp_path: Path, how: str) -> None:
    place, kept = away_for_a_while(alone, tmp_path, how)
    correlation_id = alone.ask()
    alone.installation.check("--drain")
    (job,) = alone.installation.active()
    wait_until(lambda: job.attempt(1).result.path.exists())
    first = json.loads(job.attempt(1).result.path.read_text())

    place.unlink(missing_ok=True)
    place.symlink_to(kept)

    assert (first["outcome"], first["step"], first["may_work_again"]) == ("failed", "start", True)
    assert first["reason"].startswith("The computer that the job was sent to could not start the program (")
    assert str(tmp_path) not in first["reason"]
    assert list(alone.answer(correlation_id)) == ["Result"]
    assert alone.installation.job(job.id).attempt_numbers() == [1, 2]


def test_a_program_that_is_on_no_node_is_answered_when_all_attempts_are_over(alone: Alone, tmp_path: Path) -> None:
    away_for_a_while(alone, tmp_path, "missing")

    error = alone.answer(alone.ask())["error"]

    assert "could not start the program" in error and "please report it" in error
    assert error.endswith("(This was attempt 3; before: failed to start, failed to start.)")


def test_a_program_that_says_127_by_itself_is_not_tried_again(alone: Alone, tmp_path: Path) -> None:
    place, kept = away_for_a_while(alone, tmp_path, "missing")
    place.symlink_to(kept)

    error = alone.answer(alone.ask(exit=127))["error"]

    assert error.startswith("The program ended with exit code 127.") and "attempt" not in error


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
    from scheduler import SlurmJobId
    from scheduler.local import Local

    correlation_id = alone.ask(sleep=300)
    alone.installation.check("--drain")
    (job,) = alone.installation.active()
    wait_until(job.attempt(1).started.path.exists)
    slurm_id = json.loads(job.attempt(1).submission.path.read_text())["slurm_id"]

    Local(alone.installation.jobs.path / "local").cancel([SlurmJobId(slurm_id)])

    assert alone.answer(correlation_id) == {"error": "The job was cancelled on the cluster."}


def test_a_job_whose_machine_forgot_it_is_lost(alone: Alone) -> None:
    import os
    import signal

    alone.installation.change_site('lost_after = "6s"', 'lost_after = "1s"')
    correlation_id = alone.ask(sleep=300)
    alone.installation.check("--drain")
    (job,) = alone.installation.active()
    wait_until(job.attempt(1).started.path.exists)
    (local,) = (alone.installation.jobs.path / "local").iterdir()

    # As a power failure ends them: neither the watcher nor the job can write anything any more.
    watcher = int((local / "watcher").read_text().split()[0])
    os.kill(watcher, signal.SIGSTOP)
    for process in psutil.Process(watcher).children(recursive=True):
        process.kill()
    os.kill(watcher, signal.SIGKILL)

    assert alone.answer(correlation_id) == {"error": "The cluster lost track of the job and its result. Run it again."}


@pytest.mark.on_disk
def test_the_doctor_asks_for_neither_broker_nor_slurm(alone: Alone) -> None:
    alone.installation.check("--drain")

    printed = alone.installation.check("doctor", "--json", "--from-node", expect=None, stderr=False)
    lines = json.loads(printed)["findings"]

    assert {line["check"] for line in lines if line["mark"] == "fault"} <= {"crontab"}
    told = {(line["group"], line["check"]): line["found"] for line in lines}
    assert told["broker", "broker"].startswith("embedded, in ")
    assert "local" in told["Slurm", "commands"] and "local" in told["compute node", "job"]


def test_a_broken_message_does_not_stop_the_good_one_behind_it(alone: Alone) -> None:
    alone.broker.put("jobs", b"no job", Properties())
    correlation_id = alone.ask()

    assert "Result" in alone.answer(correlation_id)


def wait_until(condition: Any, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)
