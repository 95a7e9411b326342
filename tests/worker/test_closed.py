"""What closed batches come to is known without walking them, whatever was killed, and whoever else closed some."""

from __future__ import annotations

import argparse
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.worker.examples import config_for
from tests.worker.test_batches import claimed
from worker.folder import batches, closed, paths
from worker.folder.batches import Batch, Pool
from worker.folder.closed import Total
from worker.folder.facts import JobFolder
from worker.folder.jobs import JobsFolder
from worker.login.archive import archive_pilot
from worker.operate import pilots, report, status

DAY, LATER = "2023-11-14", "2023-11-15"
NOW = 1_700_000_000.0  # on DAY


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    made = Pool(JobsFolder(tmp_path), "jobs")
    made.jobs.prepare()
    made.prepare()
    return made


def ended(pool: Pool) -> Batch:
    batch = batches.add(pool, [claimed(1)], 0)
    return batches.move(batch, pool.ended / f"{batch.path.name}~pilot-1")


def walked(pool: Pool) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for batch in pool.closed():
        succeeded, failed, left = batches.counts(batch)
        numbers = {"succeeded": succeeded, "failed": failed, "left": left, "bytes": paths.size_of(batch.path)}
        found.setdefault(batch.path.parent.name, Counter()).update(numbers)
    return found


def known(pool: Pool, with_bytes: bool = True) -> dict[str, Counter[str]]:
    words = ("succeeded", "failed", "left", *(["bytes"] if with_bytes else []))
    return {
        day: Counter({word: getattr(total, word) for word in words}) for day, total in closed.by_day(pool.path).items()
    }


def without_bytes(found: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    return {day: Counter({word: n for word, n in counted.items() if word != "bytes"}) for day, counted in found.items()}


def nobody_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(pool: Path, day: str) -> Total:
        raise AssertionError(f"{day} is walked")

    monkeypatch.setattr(closed, "_count", count)


def test_what_was_closed_is_known_and_no_day_is_walked(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in (DAY, LATER):
        closed.close(pool, ended(pool), day, 5, 2, 1)
    nobody_counts(monkeypatch)
    for number in range(3):
        closed.close(pool, ended(pool), DAY, number, 1, 0)

    totals = known(pool)
    monkeypatch.undo()

    assert totals == walked(pool)


def test_batches_that_the_version_before_closed_are_counted_by_their_names(pool: Pool) -> None:
    for name in ("a.240.8.2", "b.1.0.0", "no batch", ".c.9.9.9"):
        (pool.done / DAY / name).mkdir(parents=True)
    assert known(pool, False) == {DAY: Counter(succeeded=241, failed=8, left=2)}

    closed.close(pool, ended(pool), DAY, 1, 1, 1)

    assert known(pool, False) == {DAY: Counter(succeeded=242, failed=9, left=3)}
    assert closed.by_day(pool.path)[DAY].bytes == closed.UNKNOWN
    closed.measure(pool.path, DAY)
    assert known(pool) == walked(pool)


def test_what_the_version_before_closes_in_between_counts_too(pool: Pool) -> None:
    closed.close(pool, ended(pool), DAY, 1, 0, 0)
    batches.move(ended(pool), pool.done / DAY / "b.10.20.30")
    assert known(pool, False) == without_bytes(walked(pool))

    closed.close(pool, ended(pool), DAY, 1, 0, 0)

    assert known(pool, False) == {DAY: Counter(succeeded=12, failed=20, left=30)}


def test_a_day_that_is_removed_counts_no_more_and_its_total_is_dropped(pool: Pool) -> None:
    for day in (DAY, LATER):
        closed.close(pool, ended(pool), day, 5, 2, 1)

    shutil.rmtree(pool.done / DAY)

    assert known(pool) == walked(pool) and list(known(pool)) == [LATER]
    closed.measure(pool.path, LATER)
    assert DAY not in (pool.path / "closed.json").read_text()


@pytest.mark.parametrize("step", ["before batch to", "after batch to"])
def test_a_kill_makes_no_total_wrong_also_where_clocks_are_coarse(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    closed.close(pool, ended(pool), DAY, 5, 2, 1)
    tick = os.stat(pool.done / DAY).st_mtime_ns
    batch = ended(pool)

    def crash_point(passed: str) -> None:
        if passed.startswith(step):
            raise KeyboardInterrupt

    with monkeypatch.context() as crash, pytest.raises(KeyboardInterrupt):
        crash.setattr(paths, "crash_point", crash_point)
        closed.close(pool, batch, DAY, 7, 0, 0)
    os.utime(pool.done / DAY, ns=(tick, tick))
    assert known(pool, False) == without_bytes(walked(pool))

    if batch.path.exists():
        closed.close(pool, batch, DAY, 7, 0, 0)
    closed.close(pool, ended(pool), DAY, 1, 0, 0)

    assert known(pool, False) == {DAY: Counter(succeeded=13, failed=2, left=1)}


def test_to_close_it_twice_counts_it_once(pool: Pool) -> None:
    batch = ended(pool)
    closed.close(pool, batch, DAY, 5, 2, 1)

    with pytest.raises(FileNotFoundError):
        closed.close(pool, batch, DAY, 5, 2, 1)

    assert known(pool, False) == {DAY: Counter(succeeded=5, failed=2, left=1)}


@pytest.mark.parametrize("content", ["", "[]", '{"days": {"2023-11-14": {"succeeded": "many"}}}'])
def test_totals_that_can_t_be_read_are_counted_anew(pool: Pool, content: str) -> None:
    closed.close(pool, ended(pool), DAY, 5, 2, 1)
    (pool.path / "closed.json").write_text(content)

    assert known(pool, False) == {DAY: Counter(succeeded=5, failed=2, left=1)}


def test_no_room_for_totals_keeps_no_batch_from_being_closed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    closed.close(pool, ended(pool), DAY, 5, 2, 1)

    def full(path: Path, content: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(paths, "write_note", full)
    closed.close(pool, ended(pool), DAY, 1, 0, 0)

    assert known(pool, False) == {DAY: Counter(succeeded=6, failed=2, left=1)}


def test_a_pilot_that_is_put_away_leaves_the_total_standing(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    closed.close(pool, ended(pool), DAY, 5, 2, 1)
    before = closed.by_day(pool.path)[DAY]
    crew = JobFolder(batches.crew_of(pool.jobs) / "pilot-20231114000000-0a1b2c")
    paths.make_folder(crew.attempt(1).path)
    crew.attempt(1).slurm_log.write_bytes(b"x" * 100)
    nobody_counts(monkeypatch)

    archive_pilot(pool.jobs, crew, pool, NOW)

    after = closed.by_day(pool.path)[DAY]
    assert (after.succeeded, after.bytes) == (5, before.bytes + 100) and (pool.done / DAY / crew.id).exists()


@pytest.mark.parametrize("verb", ["pilots", "status", "report"])
def test_who_only_counts_walks_no_closed_batches(
    tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_for(tmp_path)
    jobs = JobsFolder(config.site.jobs_dir)
    jobs.prepare()
    pool = Pool(jobs, config.site.queues[0].name)
    pool.prepare()
    closed.close(pool, ended(pool), DAY, 5, 2, 1)
    looked: list[Path] = []
    names_in = paths.names_in

    def names(path: Path) -> list[str]:
        looked.append(path)
        return names_in(path)

    monkeypatch.setattr(paths, "names_in", names)
    run = {"pilots": pilots.run, "status": status.run, "report": report.run}[verb]
    options = argparse.Namespace(
        queue="", put_back=False, list="", limit=9, json=True, every=None, offline=True, job=[], state=[], workload="",
        outcome="", older_than=0, newer_than=0, days=14, jobs=10, output=None, mode=0o600, check=False,
    )  # fmt: skip

    run(config, options)

    assert '"done": 5' in capsys.readouterr().out
    assert pool.done in looked and pool.done / DAY not in looked
