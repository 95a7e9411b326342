"""What is over goes when it is old, or when there is too much of it: whole or not at all, and never what nobody has got."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Callable, Optional

import pytest

from tests.worker.examples import NOW, QUEUE, SPEC
from tests.worker.login.situations import message
from tests.worker.login.test_archive import active
from worker.folder import closed, done_ids, paths, removed
from worker.folder.batches import Pool
from worker.folder.facts import JobFolder
from worker.folder.jobs import JobsFolder
from worker.folder.moves import brought_in
from worker.job.facts import Delivered, Outcome, Undeliverable
from worker.job.names import JobId
from worker.job.snapshot import JobFacts
from worker.login import days, retention
from worker.login.archive import archive
from worker.settings import Limits, Seconds, Site, Timing

TODAY = "2023-11-14"  # in UTC, as NOW is
DAY = 86400.0
MUCH = 10**9
GROUP = "20231101000000-0a1b2c"


@pytest.fixture
def jobs(tmp_path: Path) -> JobsFolder:
    jobs = JobsFolder(tmp_path)
    jobs.prepare()
    return jobs


def name_of(days_ago: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(NOW - days_ago * DAY))


def keeping(jobs: JobsFolder, most: int = MUCH, keep: float = 14, ids: float = 30) -> Site:
    timing = Timing(keep_done=Seconds(keep * DAY), keep_ids=Seconds(ids * DAY))
    return Site((QUEUE,), {}, limits=Limits(done_bytes=most), timing=timing, scheduler="local", jobs_dir=jobs.path)


def whole_round(jobs: JobsFolder, site: Site, now: float = NOW) -> None:
    """As many passes as it takes."""
    for _ in range(100):
        retention.tidy(jobs, site, now)
        if not json.loads(jobs.retention.read_text())["at"]:
            return
    raise AssertionError("it does not come to an end")


def done_day(jobs: JobsFolder, days_ago: float, size: int = 100) -> Path:
    """With one job."""
    day = jobs.done / name_of(days_ago)
    (day / "x").mkdir(parents=True)
    (day / "x" / "message.json").write_bytes(b" " * size)
    return day


def pool_day(jobs: JobsFolder, days_ago: float, size: int = 100) -> Path:
    """With one batch."""
    day = Pool(jobs, "hpc-jobs").done / name_of(days_ago)
    (day / "b.3.2.1").mkdir(parents=True)
    (day / "b.3.2.1" / "jobs.jsonl").write_bytes(b" " * size)
    return day


Make = Callable[[JobsFolder, float], Path]
DAYS = pytest.mark.parametrize("make", [done_day, pool_day])


@DAYS
def test_days_that_are_too_old_are_removed(jobs: JobsFolder, make: Make) -> None:
    kept, gone = make(jobs, 14), make(jobs, 15)

    whole_round(jobs, keeping(jobs))

    assert (kept.exists(), gone.exists()) == (True, False)


@DAYS
def test_the_oldest_days_make_room_and_today_stays_however_much_it_has(jobs: JobsFolder, make: Make) -> None:
    kept = [make(jobs, ago) for ago in (0, 1, 2, 3)]

    whole_round(jobs, keeping(jobs, most=350))
    assert [day.exists() for day in kept] == [True, True, True, False]

    jobs.retention.unlink()
    whole_round(jobs, keeping(jobs, most=1))
    assert [day.exists() for day in kept] == [True, False, False, False]


def test_jobs_and_batches_have_each_the_whole_room(jobs: JobsFolder) -> None:
    kept = [make(jobs, ago, 100) for make in (done_day, pool_day) for ago in (1, 2)]

    whole_round(jobs, keeping(jobs, most=200))

    assert all(day.exists() for day in kept)


def test_what_is_old_is_looked_for_once_a_day_and_else_nothing_is_listed(
    jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_round(jobs, keeping(jobs))
    old = done_day(jobs, 99)

    with monkeypatch.context() as patch:
        patch.setattr(paths, "names_in", lambda place: pytest.fail(f"{place} is listed"))
        retention.tidy(jobs, keeping(jobs), NOW + 600)
    assert old.exists()

    whole_round(jobs, keeping(jobs), NOW + DAY)
    assert not old.exists()


def test_sizes_of_days_are_known_without_looking_at_their_jobs(
    jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    yesterday = jobs.done / name_of(1)
    for name in ("a", "b"):
        archive(jobs, active(jobs, name), JobFacts(message(), NOW, SPEC), keeping(jobs), NOW - DAY)
    really = sum(file.stat().st_size for file in yesterday.rglob("*") if file.is_file() and file.name != ".bytes")
    archive(jobs, active(jobs, "c"), JobFacts(message(), NOW, SPEC), keeping(jobs), NOW)

    def size(folder: Path) -> int:
        raise AssertionError(folder)

    monkeypatch.setattr(paths, "size_of", size)

    whole_round(jobs, keeping(jobs, most=2 * really))
    assert yesterday.exists()
    jobs.retention.unlink()
    whole_round(jobs, keeping(jobs, most=really))
    assert not yesterday.exists() and (jobs.done / TODAY).exists(), "what was added since counts"


def test_batches_of_which_no_size_is_known_are_measured_a_day_in_a_pass(
    jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = pool_day(jobs, 2), pool_day(jobs, 1)
    measured = []

    def size_of(folder: Path) -> int:
        measured.append(folder.name)
        return 100

    monkeypatch.setattr(paths, "size_of", size_of)

    retention.tidy(jobs, keeping(jobs, most=150), NOW)
    assert measured == [old.name] and old.exists()

    whole_round(jobs, keeping(jobs, most=150))
    assert measured == [old.name, new.name] and not old.exists() and new.exists()


def test_a_large_day_is_removed_bit_by_bit(jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removed, "_AT_ONCE", 10)
    day = done_day(jobs, 15)
    for number in range(30):
        (day / str(number)).mkdir()
        (day / str(number) / "message.json").touch()

    whole_round(jobs, keeping(jobs))
    assert not day.exists()
    before = len(list(jobs.removed.glob("*/*")))
    removed.sweep(jobs)
    assert len(list(jobs.removed.glob("*/*"))) == before - 10

    for _ in range(4):
        removed.sweep(jobs)
    assert list(jobs.removed.iterdir()) == []


def test_a_day_that_the_version_before_was_deleting_goes_on_going(jobs: JobsFolder) -> None:
    (jobs.done / ".removed-2020-01-01.abcdef" / "x").mkdir(parents=True)

    whole_round(jobs, keeping(jobs))
    removed.sweep(jobs)

    assert list(jobs.done.iterdir()) == [] and list(jobs.removed.iterdir()) == []


def test_links_in_a_job_s_folder_are_not_followed(jobs: JobsFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("x")
    day = done_day(jobs, 99)
    (day / "link").symlink_to(tmp_path / "elsewhere")
    (day / "x" / "link").symlink_to(tmp_path / "elsewhere")

    whole_round(jobs, keeping(jobs))
    removed.sweep(jobs)

    assert list(jobs.removed.iterdir()) == [] and (tmp_path / "elsewhere" / "file").exists()


# --- ids


def test_the_ids_of_a_day_and_what_they_came_to_are_on_disk_before_it_goes(
    jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(days, "_NOTED_AT_ONCE", 2)
    day = done_day(jobs, 20)
    for name, word in (("a", "succeeded"), ("b", "failed"), ("c", "timed_out"), ("d", "lost")):
        (day / name).mkdir()
        JobFolder(day / name).outcome.write(Outcome(word, 1, "reply", "worker", 1.0))
    (day / "no job of ours").touch()
    noted = []

    def crash_point(step: str) -> None:
        if step == "before removal":
            noted.append(done_ids.of_day(jobs, day.name))

    monkeypatch.setattr(paths, "crash_point", crash_point)
    whole_round(jobs, keeping(jobs))

    assert not day.exists()
    assert noted == [{"a": "succeeded", "b": "failed", "c": "timed_out", "d": "lost", "x": "unknown"}]


def test_an_id_is_forgotten_after_its_own_time(jobs: JobsFolder) -> None:
    done_day(jobs, 20)
    site = keeping(jobs, ids=30)
    whole_round(jobs, site)
    assert done_ids.outcome_of(jobs, "x") == "unknown"

    whole_round(jobs, site, NOW + 10 * DAY)
    assert done_ids.outcome_of(jobs, "x")

    whole_round(jobs, site, NOW + 11 * DAY)
    assert not done_ids.outcome_of(jobs, "x") and list(jobs.ids.iterdir()) == []


# --- what lies in one folder


def rejected(
    jobs: JobsFolder, name: str, days_ago: float, delivered: Optional[bool] = True, size: int = 0,
    outcome: str = "rejected",
) -> JobFolder:  # fmt: skip
    """`delivered`: None where its answer was given up."""
    job = JobFolder(jobs.rejected / name)
    paths.make_folder(job.path)
    job.outcome.write(Outcome(outcome, 1, "reply", "login", 1.0))
    if delivered is None:
        job.undeliverable.write(Undeliverable("nobody takes it", 1.0))
    elif delivered:
        job.delivered.write(Delivered("results", 1.0))
    written(job, days_ago, size)
    return job


def written(job: JobFolder, days_ago: float, size: int = 0) -> None:
    job.message.path.write_bytes(b" " * size)
    os.utime(job.message.path, (NOW - days_ago * DAY,) * 2)


def test_a_rejected_message_goes_when_it_is_old_and_its_id_stays_known(jobs: JobsFolder) -> None:
    kept, old = rejected(jobs, "a", 13.9), rejected(jobs, "b", 14.1)

    whole_round(jobs, keeping(jobs))

    assert kept.path.exists() and not old.path.exists()
    assert done_ids.outcome_of(jobs, "b") == "rejected" and not done_ids.outcome_of(jobs, "a")


def test_what_expired_before_it_could_be_read_stays_known_as_that(jobs: JobsFolder) -> None:
    rejected(jobs, "a", 15, outcome="expired")

    whole_round(jobs, keeping(jobs))

    assert done_ids.outcome_of(jobs, "a") == "expired"


@pytest.mark.parametrize("delivered", [False, None])
def test_nothing_undelivered_ever_goes(jobs: JobsFolder, delivered: Optional[bool]) -> None:
    unanswered = rejected(jobs, "a", 900, delivered, size=MUCH // 10**6)
    lying = JobFolder(jobs.undelivered / "b")
    paths.make_folder(lying.path)
    written(lying, 900)
    rejected(jobs, "c", 1)

    for day in range(3):
        whole_round(jobs, keeping(jobs, most=0, keep=0), NOW + day * DAY)

    assert unanswered.path.exists() and lying.path.exists()
    assert not (jobs.rejected / "c").exists()


def test_the_oldest_rejected_messages_make_room_when_all_were_looked_at(jobs: JobsFolder) -> None:
    kept = [rejected(jobs, f"{ago}", ago, size=100) for ago in (1, 2, 3)]

    whole_round(jobs, keeping(jobs, most=250))
    assert all(job.path.exists() for job in kept), "how many bytes there are is not known yet"

    whole_round(jobs, keeping(jobs, most=250), NOW + DAY)
    assert [job.path.exists() for job in kept] == [True, True, False]

    whole_round(jobs, keeping(jobs, most=1), NOW + 2 * DAY)
    whole_round(jobs, keeping(jobs, most=1), NOW + 3 * DAY)
    assert [job.path.exists() for job in kept] == [True, False, False], "the newest stays"


def test_a_pass_looks_at_so_many_and_the_next_one_goes_on(jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_AT_ONCE", 3)
    for number in range(8):
        rejected(jobs, f"{number}", 20 if number % 2 else 1)

    left = []
    for _ in range(4):
        retention.tidy(jobs, keeping(jobs), NOW)
        left.append("".join(sorted(path.name for path in jobs.rejected.iterdir())))

    assert left == ["0234567", "02467", "0246", "0246"]


def test_what_is_old_goes_wherever_a_pass_was_killed(jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole or not at all: what is found in its place has all of its files."""
    for step in ("before removal", "after removal", *range(6)):
        day, job = done_day(jobs, 20), rejected(jobs, "a", 20)
        steps = iter(range(100))

        def crash_point(passed: str, step: object = step) -> None:
            if step in (passed, next(steps)):  # noqa: B023
                raise KeyboardInterrupt

        with monkeypatch.context() as crash:
            crash.setattr(paths, "crash_point", crash_point)
            with pytest.raises(KeyboardInterrupt):
                whole_round(jobs, keeping(jobs))
        assert not day.exists() or (day / "x" / "message.json").exists()
        assert not job.path.exists() or (job.message.is_there() and job.delivered.is_there())
        assert day.exists() or done_ids.outcome_of(jobs, "x")
        assert job.path.exists() or done_ids.outcome_of(jobs, "a")

        jobs.retention.unlink(missing_ok=True)
        whole_round(jobs, keeping(jobs))
        removed.sweep(jobs)
        assert not day.exists() and not job.path.exists() and list(jobs.removed.iterdir()) == []
        for file in jobs.ids.iterdir():
            file.unlink()
        jobs.retention.unlink()


def test_a_part_of_a_removed_day_is_found_nowhere(jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    day = done_day(jobs, 20)
    monkeypatch.setattr(paths, "remove_tree", lambda path: None)  # killed when it had just begun

    whole_round(jobs, keeping(jobs))
    removed.sweep(jobs)

    assert not day.exists() and jobs.find(JobId("x")) is None


def test_half_made_reruns_go_and_what_was_never_ours(jobs: JobsFolder) -> None:
    with pytest.raises(KeyboardInterrupt), brought_in(jobs, JobId("a-r1")) as made:
        left = jobs.new / "b-r1.00000000"
        left.mkdir()
        (left / "message.json").write_text("{}")
        os.utime(left, (NOW - 20 * DAY,) * 2)
        os.utime(made.path, (NOW - DAY,) * 2)
        other = JobFolder(jobs.not_ours / "c")
        paths.make_folder(other.path)
        written(other, 20)

        whole_round(jobs, keeping(jobs))

        assert made.path.exists() and not left.exists() and not other.path.exists()
        assert not done_ids.outcome_of(jobs, "c"), "it may be ours when it comes again"
        raise KeyboardInterrupt


# --- what a scheduler leaves


def of_local(jobs: JobsFolder, name: str, days_ago: float, end: bool = True) -> Path:
    place = jobs.path / "local" / name
    place.mkdir(parents=True)
    (place / "request.json").write_text(json.dumps({"name": f"bf-here-{GROUP}"}))
    if end:
        at = NOW - days_ago * DAY
        (place / "end.json").write_text(
            json.dumps({"state": "COMPLETED", "end": "succeeded", "exit_code": "0:0", "at": at})
        )
    os.utime(place, (NOW - days_ago * DAY,) * 2)
    return place


@pytest.mark.parametrize("end", [True, False])
def test_what_the_scheduler_says_of_a_job_stays_until_all_of_its_group_are_put_away(
    jobs: JobsFolder, end: bool
) -> None:
    kept, old = of_local(jobs, "local-1", 13), of_local(jobs, "local-2", 20, end)
    jobs.group(GROUP).write_text("{}")
    whole_round(jobs, keeping(jobs))
    assert old.exists()

    jobs.group(GROUP).unlink()
    whole_round(jobs, keeping(jobs), NOW + DAY / 2)

    assert kept.exists() and not old.exists()


@pytest.mark.parametrize("name", ["request.json", "end.json"])
def test_what_the_scheduler_left_damaged_goes_too(jobs: JobsFolder, name: str) -> None:
    damaged, next_one = of_local(jobs, "local-1", 20), of_local(jobs, "local-2", 20)
    (damaged / name).write_text('{"name": ["x"], "at": "never"}')
    os.utime(damaged, (NOW - 20 * DAY,) * 2)

    whole_round(jobs, keeping(jobs))

    assert not damaged.exists() and not next_one.exists()


def test_a_job_that_runs_stays(jobs: JobsFolder) -> None:
    running = of_local(jobs, "local-1", 20, end=False)
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    (running / "watcher").write_text(f"{os.getpid()} {started}")
    os.utime(running, (NOW - 20 * DAY,) * 2)

    whole_round(jobs, keeping(jobs))

    assert running.exists()


# --- what goes wrong


def test_a_note_that_is_damaged_begins_the_round_anew(jobs: JobsFolder) -> None:
    day = done_day(jobs, 20)
    jobs.retention.write_text("[1]")

    whole_round(jobs, keeping(jobs))

    assert not day.exists()


def test_what_can_t_be_removed_keeps_no_pass_from_its_work(jobs: JobsFolder, caplog: pytest.LogCaptureFixture) -> None:
    day = done_day(jobs, 20)
    jobs.removed.touch()

    whole_round(jobs, keeping(jobs))

    assert day.exists() and "what is old is kept for now" in caplog.text


def test_a_kind_that_can_t_be_read_keeps_no_other_one_from_going(
    jobs: JobsFolder, caplog: pytest.LogCaptureFixture
) -> None:
    pool = Pool(jobs, "hpc-jobs")
    paths.make_folder(pool.path)
    pool.done.write_text("no folder")
    jobs.not_ours.write_text("no folder")
    old, day = rejected(jobs, "a", 20), done_day(jobs, 20)

    whole_round(jobs, keeping(jobs))

    assert not old.path.exists() and not day.exists()
    assert caplog.text.count("what is old is kept for now") == 2


def test_ids_that_can_t_be_read_are_noted_anew_before_their_day_goes(jobs: JobsFolder) -> None:
    day = done_day(jobs, 20)
    paths.make_folder(jobs.ids)
    (jobs.ids / day.name).write_bytes(b"cut of")

    whole_round(jobs, keeping(jobs))

    assert not day.exists() and done_ids.outcome_of(jobs, "x") == "unknown"


def test_the_totals_of_a_day_that_is_gone_count_no_more(jobs: JobsFolder) -> None:
    pool_day(jobs, 20)
    pool_day(jobs, 1)

    whole_round(jobs, keeping(jobs))

    totals = closed.by_day(Pool(jobs, "hpc-jobs").path)
    assert sum(day.succeeded for day in totals.values()) == 3 and list(totals) == [name_of(1)]
