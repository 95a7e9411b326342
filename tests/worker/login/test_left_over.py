"""A job whose files were taken away, by a purge of scratch space say: it is answered or reported, and never forgotten."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Callable

import pytest

from tests.worker.login.test_passes import Login, dies, starts_and_dies
from worker.folder import batches, done_ids, paths
from worker.folder.answer import record
from worker.folder.batches import Claimed, Pool
from worker.folder.facts import JobFolder
from worker.job.facts import Delivered, Kept, Message
from worker.job.names import JobId
from worker.job.outcome import Result
from worker.job.spec import Resources
from worker.login.days import day_of
from worker.login.ids import Ids

GHOST = JobId("a" * 32)


@pytest.fixture
def login(tmp_path: Path) -> Login:
    return Login(tmp_path / "site")


@pytest.fixture
def job(login: Login) -> JobFolder:
    """One that waits in Slurm."""
    login.broker.ask()
    login.one_pass()
    return login.active()[0]


def age(job: JobFolder) -> None:
    long_ago = time.time() - 90_000
    os.utime(job.path, (long_ago, long_ago))


def in_a_batch(login: Login) -> None:
    message = Message(1, "hpc-jobs", "{}", 2, {"correlation_id": "c"}, 1.0)
    spec = Resources(1, 1, 1)
    pool = Pool(login.jobs, "hpc-jobs")
    pool.prepare()
    batches.add(pool, [Claimed(GHOST, message, spec)], time.time())


ELSEWHERE: dict[str, Callable[[Login], object]] = {
    "done": lambda login: paths.write_bytes(_made(login.jobs.done / "2026-01-01" / GHOST) / "message.json", b"{}"),
    "rejected": lambda login: paths.write_bytes(_made(login.jobs.rejected / GHOST) / "message.json", b"{}"),
    "undelivered": lambda login: paths.write_bytes(_made(login.jobs.undelivered / GHOST) / "message.json", b"{}"),
    "removed by retention": lambda login: done_ids.add(login.jobs, day_of(time.time()), {GHOST: "succeeded"}),
    "in a batch": in_a_batch,
    "done in a batch": lambda login: Ids(Pool(login.jobs, "hpc-jobs").path / "ids").add([GHOST]),
}


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("place", ELSEWHERE)
def test_what_a_late_worker_leaves_of_a_job_that_stands_elsewhere_goes_after_an_hour(login: Login, place: str) -> None:
    ELSEWHERE[place](login)
    ghost = login.jobs.job(GHOST)
    paths.make_folder(ghost.attempt(1).path)
    record(ghost.attempt(1), Result("failed", 1))

    login.one_pass()
    assert ghost.path.exists()
    age(ghost)
    login.one_pass()

    assert not ghost.path.exists() and not login.broker.sent


@pytest.mark.parametrize("lost", ["message.json", "everything"])
def test_a_job_that_had_begun_and_whose_message_is_gone_is_reported_and_never_deleted(
    login: Login, job: JobFolder, caplog: pytest.LogCaptureFixture, lost: str
) -> None:
    if lost == "everything":
        for path in [each for each in job.path.rglob("*") if each.is_file()]:
            path.unlink()
    else:
        job.message.path.unlink()
    age(job)
    login.broker.ask(name="c-2")

    codes = [login.one_pass() for _ in range(2)]

    assert codes == [os.EX_DATAERR] * 2 and job.attempt(1).path.is_dir()
    assert str(job.message) in caplog.text and "docs/symptoms.md" in caplog.text
    assert len(login.cluster.jobs) == 2, "the other job goes on"


def test_a_folder_that_was_about_to_be_claimed_goes_after_an_hour(login: Login) -> None:
    claimed = login.jobs.job(GHOST)
    paths.make_folder(claimed.path)
    age(claimed)

    assert login.one_pass() == 0 and not claimed.path.exists()


@pytest.mark.parametrize("lost", ["message.json", "everything"])
def test_what_a_worker_kept_brings_its_job_back_and_it_is_answered_once(
    login: Login, job: JobFolder, lost: str
) -> None:
    def answers_without_files(login: Login, job: JobFolder, number: int) -> None:
        starts_and_dies(login, job, number)
        attempt = job.attempt(number)
        message, spec = job.message.read(), job.spec.read()
        intent, started = attempt.intent.read(), attempt.started.read()
        assert message and spec and intent and started
        kept = Kept(message, claimed_at, spec, intent, started)
        for path in (
            [each for each in job.path.rglob("*") if each.is_file()] if lost == "everything" else [job.message.path]
        ):
            path.unlink()
        attempt.kept.write(kept)
        paths.write_bytes(attempt.reply_body("reply-1"), b'{"Model 0": ""}')
        record(attempt, Result("succeeded", number, body="reply-1", ended_at=1.0))

    claimed_at = job.message.path.stat().st_mtime

    login.run_jobs(answers_without_files, "succeeded")
    codes = [login.one_pass() for _ in range(3)]

    assert codes == [0, 0, 0] and login.active() == []
    (reply,) = login.broker.sent
    assert (reply.type, reply.body, reply.correlation_id) == ("result", b'{"Model 0": ""}', "c-1")
    (put_away,) = login.jobs.done.glob("*/*/message.json")
    assert put_away.stat().st_mtime == pytest.approx(claimed_at, abs=1e-6), "deadlines hang on it"


GONE: dict[str, Callable[[JobFolder], None]] = {
    "intent.json of an attempt that was submitted": lambda job: job.attempt(1).intent.path.unlink(),
    "outcome.json of an answer that was sent": lambda job: job.outcome.path.unlink(),
    "the attempt that outcome.json names": lambda job: os.rename(job.attempt(1).path, job.path / "away"),
}


@pytest.mark.parametrize("lost", GONE)
def test_a_fact_whose_absence_would_mean_a_second_run_or_answer_is_damage(
    login: Login, job: JobFolder, lost: str
) -> None:
    if "intent" not in lost:
        login.run_jobs(dies, "timed_out")
        login.broker.away = True  # so that it stays where it is
        login.one_pass()
        login.broker.away = False
        job.delivered.write(Delivered("answers", 1.0))
    sent, submitted = len(login.broker.sent), len(login.cluster.jobs)

    GONE[lost](job)

    assert [login.one_pass() for _ in range(2)] == [os.EX_DATAERR] * 2
    assert (len(login.broker.sent), len(login.cluster.jobs)) == (sent, submitted)
