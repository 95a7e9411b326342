"""Whole passes on a file system that is away for a while, or says of a file that it is another one by now."""

from __future__ import annotations

import errno
import logging
import os

import pytest

from tests.services.late_files import LateFiles
from tests.worker.login.test_passes import GOOD, Login, answers

pytestmark = pytest.mark.unhurried


@pytest.mark.parametrize("code", [errno.ENOTCONN, errno.ESTALE, errno.EIO])
def test_while_the_disk_is_away_a_pass_says_so_once_and_afterwards_each_job_is_answered(
    late_files: LateFiles, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    login = Login(late_files.login)
    for number in range(3):
        login.broker.ask(GOOD, f"c-{number}")
    login.one_pass()
    login.broker.ask(GOOD, "later")
    caplog.clear()

    late_files.fails("login", code)
    ended = login.one_pass()
    late_files.fails("login")

    said = [line.getMessage() for line in caplog.records if line.levelno >= logging.ERROR]
    assert len(said) == 1 and "kind=disk" in said[0] and os.strerror(code) in said[0]
    assert (ended, len(login.broker.queued)) == (os.EX_UNAVAILABLE, 1)
    login.one_pass()
    login.run_jobs(answers, "succeeded")
    login.one_pass()
    assert sorted(reply.correlation_id or "" for reply in login.broker.sent) == ["c-0", "c-1", "c-2", "later"]


@pytest.mark.parametrize(("times", "read"), [(3, True), (60, False)])
def test_a_fact_that_says_estale_is_opened_again_a_few_times(late_files: LateFiles, times: int, read: bool) -> None:
    login = Login(late_files.login)
    login.broker.ask()
    login.one_pass()
    (job,) = login.active()

    late_files.fails("login", errno.ESTALE, "intent.json", times)

    if read:
        assert job.attempt(1).intent.read() is not None
    else:
        with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
            job.attempt(1).intent.read()
