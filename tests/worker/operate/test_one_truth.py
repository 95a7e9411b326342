"""An answer that is too large for the broker is one truth, wherever it is told: outcome, reply, log and operators' verbs."""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.worker.login import test_passes
from tests.worker.login.test_passes import Login, dies_before_it_could_answer
from worker.errors import TooLarge, Transient
from worker.folder import answer
from worker.folder.answer import largest_answer
from worker.folder.records import Fact
from worker.job.facts import LargestAnswer
from worker.job.outcome import Reply
from worker.operate import explain, report, show, status

WORDS = (
    "The outputs are too large to be sent back: they make 15 bytes, and at most 16777216 are allowed. They are kept on the "
    "cluster, until 2026-12-12 at the latest."
)


class Broker(test_passes.Broker):
    """Takes errors, and no results."""

    def send(self, reply: Reply) -> None:
        if reply.type == "result":
            raise TooLarge("message size 20000000 is larger than configured max size 16777216", 16_777_216)
        super().send(reply)


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    monkeypatch.setattr(answer, "kept_until", lambda now, timing: "2026-12-12")
    login = Login(tmp_path / "site")
    login.broker = Broker()
    return login


def told(login: Login, verb: Any, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    capsys.readouterr()
    assert verb.run(login.config, parser.parse_args(list(words))) == 0
    return " ".join(capsys.readouterr().out.split())


def test_an_answer_that_the_broker_does_not_take_is_a_failure_wherever_it_is_told(
    login: Login, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    login.broker.ask()
    login.one_pass()
    (active,) = login.active()
    login.run_jobs(dies_before_it_could_answer, "succeeded")
    login.one_pass()

    job = login.jobs.find(active.id)
    assert job is not None and job.path.parent.parent == login.jobs.done
    outcome = job.outcome.read()
    assert outcome is not None and (outcome.outcome, outcome.reason) == ("failed", WORDS)
    assert login.errors() == [WORDS] and [reply.headers["outcome"] for reply in login.broker.sent] == ["failed"]
    assert f"archived job={job.id} outcome=failed" in caplog.text and WORDS in caplog.text

    story = json.loads(told(login, show, capsys, job.id, "--offline", "--json"))
    assert (story["outcome"], story["reason"]) == ("failed", WORDS)
    assert any(event["what"] == "outcome" and WORDS in event["words"] for event in story["timeline"])
    assert WORDS in told(login, explain, capsys, job.id)
    rows = json.loads(told(login, status, capsys, "--offline", "--state", "done", "--json"))["jobs"]
    assert [(row["outcome"], row["why"]) for row in rows] == [("failed", WORDS)]
    told(login, report, capsys, "--output", str(login.jobs.path / "report.html"))
    page = (login.jobs.path / "report.html").read_text()
    assert WORDS in page and "failed in publish" in page


def test_whoever_is_killed_between_the_refusal_and_the_error_sends_the_same_error(login: Login) -> None:
    login.broker.ask()
    login.one_pass()
    (active,) = login.active()
    login.run_jobs(dies_before_it_could_answer, "succeeded")
    right, login.broker.send = login.broker.send, _no_error_either  # type: ignore[method-assign]
    login.one_pass()
    login.broker.send = right  # type: ignore[method-assign]

    login.one_pass()

    assert login.errors() == [WORDS] and login.jobs.find(active.id) != active


def _no_error_either(reply: Reply) -> None:
    if reply.type == "result":
        raise TooLarge("larger than configured max size 16777216", 16_777_216)
    raise Transient("the broker is away")


def test_what_the_broker_said_it_takes_is_believed_for_a_day_and_only_if_it_is_less(login: Login) -> None:
    site, file = login.config.site, login.jobs.largest_answer
    assert largest_answer(site, 1000.0) == site.replies.max_bytes

    Fact(file, LargestAnswer).write(LargestAnswer(5_000_000, 1000.0))
    assert largest_answer(site, 1000.0) == largest_answer(site, 87_000.0) == 5_000_000
    assert largest_answer(site, 88_000.0) == largest_answer(site, 999.0) == site.replies.max_bytes
    smaller = replace(site, replies=replace(site.replies, max_bytes=4096))
    assert largest_answer(smaller, 1000.0) == 4096

    file.write_text("{")
    assert largest_answer(site, 1000.0) == site.replies.max_bytes
