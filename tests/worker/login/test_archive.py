"""Where finished jobs go, and what stays behind of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.worker.examples import NOW, QUEUE, SPEC
from tests.worker.login.situations import message
from worker.folder import paths
from worker.folder.facts import JobFolder, group_of
from worker.folder.jobs import JobsFolder
from worker.job.facts import Group, Intent
from worker.job.names import JobId
from worker.job.snapshot import JobFacts
from worker.job.spec import JobSpec
from worker.login import archive as archive_module
from worker.login.archive import archive
from worker.settings import Site

TODAY = "2023-11-14"  # in UTC, as NOW is
SITE = Site((QUEUE,), {})


@pytest.fixture
def jobs(tmp_path: Path) -> JobsFolder:
    jobs = JobsFolder(tmp_path)
    jobs.prepare()
    return jobs


def active(jobs: JobsFolder, name: str, group: str = "g") -> JobFolder:
    """A job with one attempt that has everything in it."""
    job = jobs.job(JobId(name))
    attempt = job.attempt(1)
    paths.make_folder(attempt.work / "inputs")
    job.message.write(message())
    attempt.intent.write(Intent(group, f"bf-{group}", 0, SPEC.resources, NOW))
    paths.write_bytes(attempt.token, b"secret")
    (attempt.work / "inputs" / "a").write_text("much data")
    return job


def put_away(jobs: JobsFolder, job: JobFolder, spec: JobSpec = SPEC, undeliverable: bool = False) -> None:
    archive(jobs, job, JobFacts(message(), NOW, spec, undeliverable=undeliverable), SITE, NOW)


def test_a_delivered_job_goes_to_its_day(jobs: JobsFolder) -> None:
    put_away(jobs, active(jobs, "a"))

    assert (jobs.done / TODAY / "a" / "message.json").exists()
    assert not jobs.job(JobId("a")).path.exists()


def test_an_undeliverable_job_goes_to_undelivered(jobs: JobsFolder) -> None:
    put_away(jobs, active(jobs, "a"), undeliverable=True)

    assert (jobs.undelivered / "a" / "message.json").exists()


@pytest.mark.parametrize("undeliverable", [False, True])
def test_a_message_that_was_no_job_goes_to_rejected(jobs: JobsFolder, undeliverable: bool) -> None:
    archive(jobs, active(jobs, "a"), JobFacts(message(), NOW, None, undeliverable=undeliverable), SITE, NOW)

    assert (jobs.rejected / "a" / "message.json").exists()


def test_neither_token_nor_scratch_data_stay_behind(jobs: JobsFolder) -> None:
    put_away(jobs, active(jobs, "a"))

    attempt = jobs.done / TODAY / "a" / "attempts" / "1"
    assert sorted(path.name for path in attempt.iterdir()) == ["intent.json"]


def test_what_the_worker_of_a_lost_job_had_made_is_kept_for_people(jobs: JobsFolder) -> None:
    job = active(jobs, "a")
    outputs = job.attempt(1).work / "outputs"
    outputs.mkdir()
    (outputs / "00_Copy.png").write_text("half a picture")
    (outputs / "passwd").symlink_to("/etc/passwd")

    put_away(jobs, job)

    kept = jobs.done / TODAY / "a" / "attempts" / "1" / "outputs"
    assert [(file.name, file.read_text()) for file in kept.iterdir()] == [("00_Copy.png", "half a picture")]


def test_a_hard_link_to_a_file_of_others_is_not_kept(jobs: JobsFolder, tmp_path: Path) -> None:
    job = active(jobs, "a")
    outputs = job.attempt(1).work / "outputs"
    outputs.mkdir()
    (tmp_path / "credentials.env").write_text("PASSWORD=canary")
    os.link(tmp_path / "credentials.env", outputs / "00_Copy.png")
    (outputs / "one").write_text("ours")
    os.link(outputs / "one", outputs / "two")

    put_away(jobs, job)

    kept = jobs.done / TODAY / "a" / "attempts" / "1" / "outputs"
    assert sorted(file.name for file in kept.iterdir()) == ["one", "two"]


def test_files_of_others_behind_a_link_stay_where_they_are(jobs: JobsFolder, tmp_path: Path) -> None:
    job, theirs = active(jobs, "a"), tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis").write_text("years of work")
    (job.attempt(1).work / "outputs").symlink_to(theirs)

    put_away(jobs, job)

    assert (theirs / "thesis").exists() and not (jobs.done / TODAY / "a" / "attempts" / "1" / "outputs").exists()


def test_what_a_crash_left_half_written_goes(jobs: JobsFolder) -> None:
    job = active(jobs, "a")
    for path in (job.path / ".outcome.json.1a2b3c4d", job.attempt(1).path / ".result.json.1a2b3c4d"):
        path.write_text("{")
    (jobs.groups / ".g.json.1a2b3c4d").write_text("{")

    put_away(jobs, job)

    assert not [path for path in jobs.path.rglob(".*.1a2b3c4d")]


def test_the_last_of_a_group_takes_its_log_along(jobs: JobsFolder) -> None:
    first, second = active(jobs, "a"), active(jobs, "b")
    group_of(jobs, "g").write(Group({"0": ("a", 1), "1": ("b", 1)}))
    jobs.group_log("g").write_text("said by Slurm")

    put_away(jobs, first)
    assert jobs.group("g").exists() and jobs.group_log("g").exists()

    put_away(jobs, second)
    assert list(jobs.groups.iterdir()) == []
    assert (jobs.done / TODAY / "b" / "attempts" / "1" / "slurm.log").read_text() == "said by Slurm"


def test_what_a_worker_left_that_came_back_too_late_is_no_member(jobs: JobsFolder) -> None:
    first, second = active(jobs, "a"), active(jobs, "b")
    group_of(jobs, "g").write(Group({"0": ("a", 1), "1": ("b", 1)}))
    put_away(jobs, first)
    paths.make_folder(jobs.job(JobId("a")).attempt(1).path)

    put_away(jobs, second)

    assert list(jobs.groups.iterdir()) == []


def test_a_crash_before_the_move_is_made_good_by_the_next_pass(
    jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = active(jobs, "a")
    group_of(jobs, "g").write(Group({"0": ("a", 1)}))
    jobs.group_log("g").write_text("said by Slurm")

    def passing(step: str) -> None:
        if step.startswith("before move"):
            raise KeyboardInterrupt

    with monkeypatch.context() as crash, pytest.raises(KeyboardInterrupt):
        crash.setattr(paths, "crash_point", passing)
        put_away(jobs, job)

    put_away(jobs, job)

    assert (jobs.done / TODAY / "a" / "attempts" / "1" / "slurm.log").read_text() == "said by Slurm"


def test_members_of_a_large_array_leave_at_a_bearable_price(jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number:04}" for number in range(200)]
    for name in names:
        jobs.job(JobId(name)).path.mkdir()
        jobs.job(JobId(name)).message.path.touch()
    looks: list[Path] = []

    def exists(path: Path) -> bool:
        looks.append(path)
        return os.path.exists(path)

    monkeypatch.setattr(Path, "exists", exists)

    for name in names:
        job = jobs.job(JobId(name))
        archive_module._anybody_left(jobs, job, [JobId(each) for each in names])
        job.message.path.unlink()

    assert len(looks) < 200 * 12, "200 * 200 / 2 in the order in which they leave"


def test_the_first_job_of_a_day_ends_outputs_that_are_too_old(jobs: JobsFolder) -> None:
    old = jobs.done / "2023-10-01" / "b" / "attempts" / "1" / "outputs"
    old.mkdir(parents=True)
    (jobs.done / "2023-10-01" / ".outputs").write_text("5 b\n")

    put_away(jobs, active(jobs, "a"))

    assert not old.exists() and old.parent.exists()


def test_the_first_job_of_a_day_has_its_outputs_on_the_day_s_list_and_they_count_apart(jobs: JobsFolder) -> None:
    job = active(jobs, "a")
    paths.make_folder(job.attempt(1).outputs)
    (job.attempt(1).outputs / "00_Copy.png").write_bytes(b"x" * 50_000)

    put_away(jobs, job)

    assert (jobs.done / TODAY / ".outputs").read_text() == "50000 a\n"
    assert int((jobs.done / TODAY / ".bytes").read_text()) < 10_000
