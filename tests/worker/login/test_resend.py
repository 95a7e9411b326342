"""An answer that no queue took is sent again when somebody asks for it, also beside a pass that is running."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.installation import ROOT
from tests.worker.login.test_passes import GOOD, Login, PowerFailure, answers
from worker.errors import Unroutable
from worker.folder import paths
from worker.job.outcome import Reply
from worker.login.resend import resend
from worker.settings import Seconds


class Refusing(Login):
    """Its broker takes no answer, while `gone`."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.gone = True
        replies = replace(self.config.site.replies, give_up_after=Seconds(0.0))
        timing = replace(self.config.site.timing, lease_expires=Seconds(60.0))
        self.config = replace(self.config, site=replace(self.config.site, replies=replies, timing=timing))
        right = self.broker.send

        def send(reply: Reply) -> None:
            if self.gone:
                raise Unroutable("answers")
            right(reply)

        self.broker.send = send  # type: ignore[method-assign]


@pytest.fixture(params=[GOOD, b"no job"], ids=["undelivered", "rejected"])
def login(tmp_path: Path, request: pytest.FixtureRequest) -> Refusing:
    """With one answer that was given up."""
    login = Refusing(tmp_path / "site")
    login.broker.ask(request.param)
    login.one_pass()
    if request.param == GOOD:
        login.run_jobs(lambda _, job, number: answers_nobody(login, job, number), "succeeded")
    login.one_pass()
    assert not login.active() and not login.broker.sent
    login.gone = False
    return login


def answers_nobody(login: Login, job: object, number: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.worker.login.test_passes.deliver", lambda *_: None)
        answers(login, job, number)  # type: ignore[arg-type]


@contextlib.contextmanager
def a_pass_is_running(login: Login) -> Iterator[None]:
    hold = "import sys; from pathlib import Path; from worker.login import lease\n"
    hold += "with lease.hold(Path(sys.argv[1]), 60): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(login.jobs.lease)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdin is not None and running.stdout is not None
        assert running.stdout.readline() == b"held\n"
        yield
        running.stdin.close()


def test_beside_a_pass_that_is_running_answers_are_left_to_it(
    login: Refusing, capsys: pytest.CaptureFixture[str]
) -> None:
    with a_pass_is_running(login):
        code = resend(login.config, [], everything=True, dry_run=False, in_json=True)
    (shown,) = json.loads(capsys.readouterr().out)["answers"]

    login.one_pass()

    assert (code, shown["state"]) == (os.EX_OK, "active") and "pass that is running" in shown["why"]
    assert len(login.broker.sent) == 1 and not login.active()


@pytest.mark.parametrize("step", ["before move to active", "after move to active"])
def test_who_is_killed_while_he_resends_leaves_an_answer_that_is_seen_or_sent(
    login: Refusing, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    def dies(now: str) -> None:
        if now == step:
            raise PowerFailure(step)

    with monkeypatch.context() as power, pytest.raises(PowerFailure), a_pass_is_running(login):
        power.setattr(paths, "crash_point", dies)
        resend(login.config, [], everything=True, dry_run=False, in_json=True)

    if step.startswith("before"):
        with a_pass_is_running(login):
            resend(login.config, [], everything=True, dry_run=False, in_json=True)
    login.one_pass()

    assert len(login.broker.sent) == 1 and not login.active()
