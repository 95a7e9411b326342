"""`check.py test` says who has its message where that is not this installation, and in which step it failed."""

from __future__ import annotations

import argparse
import base64
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional, cast

import pytest

from tests.worker.examples import config_for
from tests.worker.operate.ground import jobs_in
from worker.errors import Transient
from worker.job.spec import JobSpec
from worker.operate import one_job
from worker.operate.small_job import Failed, choose_job, choose_queue
from worker.requester import Answered, Waiting
from worker.settings import Config, Form, Workload

HELLO = Workload(("/bin/true",), (Form((), {"Word": ".txt"}),))


class Requester:
    """A broker on which the message is as soon as it is published in somebody's hands."""

    reply_to, pattern = "direct.1", "direct.*"

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.waiting, self.closed = Waiting(0, 2), False
        self.answered: Optional[Answered] = None
        self.lost, self.life = False, 0.0

    def look(self, queue: str) -> Waiting:
        return self.waiting

    def ask(self, queue: str, body: bytes, correlation_id: str, seconds: float) -> None:
        self.sent.append(json.loads(body))
        self.life = seconds

    def answer(self) -> Optional[Answered]:
        if self.lost:
            raise Transient("the connection was lost")
        return self.answered

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = config_for(tmp_path, changes={"jobs_dir": jobs_in(tmp_path).path})
    return replace(made, site=replace(made.site, workloads={**made.site.workloads, "hello": HELLO}))


@pytest.fixture
def requester(monkeypatch: pytest.MonkeyPatch) -> Requester:
    made = Requester()
    source = SimpleNamespace(waiting=lambda queue: 0)
    monkeypatch.setattr(one_job, "open_ends", lambda _: SimpleNamespace(source=lambda _: source, close=lambda: None))
    monkeypatch.setattr(one_job, "open_requester", lambda *_: made)
    monkeypatch.setattr(one_job, "guarded_pass", lambda *_, **__: os.EX_OK)
    monkeypatch.setattr(one_job, "_GONE_FOR", 0.0)
    monkeypatch.setattr(one_job, "_EVERY", 0.0)
    return made


def failed(config: Config, capsys: pytest.CaptureFixture[str], expect: int, *words: str) -> dict[str, str]:
    parser = argparse.ArgumentParser()
    one_job.add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    assert one_job.run(config, parser.parse_args([*words, "--json"])) == expect
    return dict(json.loads(capsys.readouterr().out)["failed"])


def test_a_message_that_another_consumer_took_is_named_as_that(
    config: Config, requester: Requester, capsys: pytest.CaptureFixture[str]
) -> None:
    said = failed(config, capsys, os.EX_UNAVAILABLE)

    assert said["step"] == "taken" and "another consumer took it (2 listen there)" in said["found"]
    assert "one taker" in said["fix"] and requester.closed and len(requester.sent) == 1


def test_an_answer_of_another_installation_is_named_as_that(
    config: Config, requester: Requester, capsys: pytest.CaptureFixture[str]
) -> None:
    requester.answered = Answered(b"{}", "0123")

    said = failed(config, capsys, os.EX_UNAVAILABLE)

    assert said["step"] == "taken" and "another installation took the message, and answered it as 0123" in said["found"]


def test_a_message_that_waits_is_nobody_s_and_the_time_runs_out(
    config: Config, requester: Requester, capsys: pytest.CaptureFixture[str]
) -> None:
    requester.waiting = Waiting(3)

    said = failed(config, capsys, os.EX_UNAVAILABLE, "--wait", "0s")

    assert said["step"] == "answer" and "no pass has taken it" in said["found"]
    assert "gone after 10 min" in said["fix"] and requester.life == 600


def test_a_job_may_wait_for_as_long_as_its_answer_is_waited_for(
    config: Config, requester: Requester, capsys: pytest.CaptureFixture[str]
) -> None:
    said = failed(config, capsys, os.EX_UNAVAILABLE, "--wait", "2h")

    assert said["step"] == "taken" and requester.life == 7200


def test_beside_another_pass_it_waits_for_that_one_and_says_so_once(
    config: Config, requester: Requester, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_job, "guarded_pass", lambda *_, **__: os.EX_TEMPFAIL)
    monkeypatch.setattr(one_job, "_GONE_FOR", -1.0)
    looks = iter([Waiting(0), Waiting(1), Waiting(1), Waiting(0)])
    monkeypatch.setattr(requester, "look", lambda queue: next(looks))
    parser = argparse.ArgumentParser()
    one_job.add_arguments(parser)
    options = argparse.Namespace(**vars(parser.parse_args([])), json=False)

    assert one_job.run(config, options) == os.EX_UNAVAILABLE

    assert capsys.readouterr().out.count("another one is running (cron's, or a watch)") == 1


def test_a_lost_connection_is_the_broker_s_step(
    config: Config, requester: Requester, capsys: pytest.CaptureFixture[str]
) -> None:
    requester.lost = True

    assert failed(config, capsys, os.EX_UNAVAILABLE)["step"] == "broker"


# --- which job


def test_the_smallest_ready_job_asks_for_little_and_gets_its_word_back(config: Config) -> None:
    queue = choose_queue(config, "")
    job = choose_job(config, queue, "", {})
    body, spec = json.loads(job.body), SimpleNamespace(outputs={"Word": "x"})

    assert job.workload == body["workload"] == "hello" and body["inputs"] == {}
    assert body["resources"]["cpus"] == 1 and body["resources"]["memory_mb"] <= 500
    word = base64.b64encode(body["settings"]["word"].encode()).decode()
    faults = [
        job.fault_of(answer, cast(JobSpec, spec)) for answer in ({"Word": word}, {"Word": "eA=="}, {"x": word}, {})
    ]
    assert [bool(fault) for fault in faults] == [False, True, True, True]


@pytest.mark.parametrize(("queue", "workload", "code"), [("none", "", 64), ("", "none", 78)])
def test_what_the_site_does_not_have_is_refused(config: Config, queue: str, workload: str, code: int) -> None:
    with pytest.raises(Failed) as refused:
        choose_job(config, choose_queue(config, queue), workload, {})

    assert refused.value.code == code and "none" in refused.value.found


def test_the_block_that_is_proposed_is_the_one_of_the_example_and_of_its_page() -> None:
    import check
    from worker.operate.small_job import BLOCK

    example, page = ((check.ROOT / name).read_text() for name in ("site.example.toml", "workloads/hello/README.md"))

    assert BLOCK in page and BLOCK.replace("\n[[", "\n\n[[") in example
