"""What is in flight is kept from a purge of scratch space by its access time; its other times are facts, and stay."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.worker.login.test_passes import Login, dies
from worker.folder import paths
from worker.folder.jobs import JobsFolder
from worker.login import touch
from worker.login.touch import touch_in_flight

DAY = 86400.0
LONG_AGO = time.time() - 40 * DAY
EXACT = int(LONG_AGO * 1e9) + 123_456_789


@pytest.fixture
def jobs(tmp_path: Path) -> JobsFolder:
    jobs = JobsFolder(tmp_path / "jobs")
    jobs.prepare()
    return jobs


def leave(path: Path) -> Path:
    """A file that nobody has read for long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    os.utime(path, ns=(EXACT, EXACT))
    return path


def is_touched(path: Path) -> bool:
    found = path.lstat()
    assert found.st_mtime_ns == EXACT, "to the nanosecond"
    return found.st_atime_ns != EXACT


def test_all_that_is_in_flight_is_touched_once_a_day_and_nothing_else(jobs: JobsFolder) -> None:
    inside = [
        leave(jobs.path / name) for name in (
            "active/a/message.json", "active/a/attempts/1/intent.json", "active/a/attempts/1/work/outputs/.hidden",
            "groups/g.json", "groups/g.log", "pilots/q-x/todo/b.1/jobs.jsonl", "pilots/q-x/locked/b.1~p/journal-1.jsonl",
            "pilots/q-x/ids/1.ids", "pilots/crew/pilot-1/pilot.json", "undelivered/u/message.json", "installation.json",
            "cluster.json",
        )
    ]  # fmt: skip
    outside = [
        leave(jobs.path / name) for name in (
            "lease.json", ".lease.json.host.7", "done/2026-01-01/d/message.json", "rejected/r/message.json",
            "pilots/q-x/done/2026-01-01/b.1.0.0/jobs.jsonl",
        )
    ]  # fmt: skip
    now = time.time()

    touch_in_flight(jobs, now)

    assert [path for path in inside if not is_touched(path)] == [] and not any(map(is_touched, outside))
    again = leave(inside[0])
    touch_in_flight(jobs, now + DAY / 2)
    assert not is_touched(again)
    touch_in_flight(jobs, now + DAY + 60)
    assert is_touched(again)


def test_a_pass_touches_at_most_a_thousand_and_the_next_goes_on_where_it_ended(
    jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(touch, "_AT_ONCE", 10)
    files = [
        leave(jobs.active / f"job-{number:02}" / name) for number in range(9) for name in ("a", "b/c", "b/d\udcff")
    ]
    counts = []

    for _ in range(4):
        touch_in_flight(jobs, time.time())
        counts.append(sum(map(is_touched, files)))

    assert counts[0] == 10 and 18 <= counts[1] <= 20 and counts[-1] == 27
    fresh = leave(files[0])
    touch_in_flight(jobs, time.time())
    assert not is_touched(fresh), "this day's round is over"


def test_links_fifos_and_files_that_vanish_hold_nothing_up(jobs: JobsFolder, tmp_path: Path) -> None:
    secret = leave(tmp_path / "somebody's")
    job = jobs.active / "a"
    job.mkdir()
    (job / "link").symlink_to(secret)
    (job / "around").symlink_to("..")
    os.mkfifo(job / "fifo")
    file = leave(job / "message.json")

    touch_in_flight(jobs, time.time())

    assert is_touched(file) and not is_touched(secret)


def test_a_job_that_is_touched_each_day_still_expires_at_its_time(tmp_path: Path) -> None:
    login = Login(tmp_path / "site")
    login.broker.ask()
    login.one_pass()
    (job,) = login.active()
    (queue,) = login.config.site.queues
    claimed_at = time.time() - queue.max_wait + 3600
    os.utime(job.message.path, (claimed_at - 30 * DAY, claimed_at))

    for _ in range(3):
        login.jobs.touched.unlink(missing_ok=True)
        assert login.one_pass() == 0
    assert job.message.path.stat().st_atime > time.time() - 60 and not login.broker.sent

    os.utime(job.message.path, (claimed_at, claimed_at - 3601))
    login.jobs.touched.unlink()
    login.jobs.ring(job.id)  # it is quiet until its time comes, which this test does not wait for
    login.one_pass()
    login.run_jobs(dies, "cancelled")
    login.one_pass()

    assert [json.loads(reply.body)["error"] for reply in login.broker.sent][0].startswith(
        "The job did not start within"
    )


def test_what_goes_wrong_while_touching_stops_no_pass(jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError("the disk is away")

    monkeypatch.setattr(paths, "contents", fails)
    monkeypatch.setattr(touch, "contents", fails)

    touch_in_flight(jobs, time.time())
