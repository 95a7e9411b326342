"""What passes have seen adds up; a file that is damaged or gone begins anew, and stops nothing."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Callable

import pytest

from tests.worker.examples import NOW, config_for
from tests.worker.login.situations import job, outcome, result, started
from tests.worker.operate.ground import jobs_in, put
from worker.job.facts import Delivered
from worker.job.outcome import Output, Used
from worker.login import tally
from worker.login.budget import budget_of
from worker.login.tally import BUCKETS, Commands, Ended, Spread, Tally, Uncounted
from worker.login.telling import tell

ONE = Ended("2026-11-21", "succeeded", "train", [("fetch", 2.0), ("run", 70.0)], 100, 10, 1)


def test_what_one_pass_saw_is_added_to_what_others_saw() -> None:
    first = tally.add(Tally(), [ONE], {"squeue": 1}, {"squeue": 0.5})
    both = tally.add(
        first, [ONE, replace(ONE, outcome="failed", attempts=2)], {"squeue": 2, "sacct": 1}, {"sacct": 1.0}
    )

    assert both.jobs == {"succeeded train": 2, "failed train": 1}
    assert both.attempts == {"train": 4} and both.bytes == {"in train": 300, "out train": 30}
    assert both.commands == {"squeue": Commands(3, 0.5), "sacct": Commands(1, 1.0)}
    assert both.days == {"2026-11-21": {"succeeded": 2, "failed": 1}}
    assert both.steps["run train"].sum == 210 and sum(both.steps["run train"].counts) == 3


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (0.1, 0), (0.11, 1), (60.0, 5), (1e9, len(BUCKETS))])
def test_a_duration_belongs_to_the_first_bucket_that_holds_it(seconds: float, bucket: int) -> None:
    assert Spread().plus(seconds).counts[bucket] == 1


def test_it_is_the_same_after_it_was_kept(tmp_path: Path) -> None:
    kept = tally.add(Tally(last_success=NOW), [ONE], {"squeue": 1}, {"squeue": 0.5})

    tally.write(tmp_path / "tally.json", kept)

    assert tally.read(tmp_path / "tally.json") == kept


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"jobs": 3}', '{"steps": {"run x": {"counts": [1], "sum": 1}}}', '{"days": []}']
)
def test_a_damaged_tally_begins_anew(text: str, tmp_path: Path) -> None:
    (tmp_path / "tally.json").write_text(text)

    assert tally.read(tmp_path / "tally.json") == Tally()


def test_days_of_which_nothing_is_kept_are_forgotten() -> None:
    kept = tally.without_old_days(Tally(days={"2020-01-01": {"lost": 1}, "2020-01-02": {"lost": 2}}), ["2020-01-02"])

    assert kept.days == {"2020-01-02": {"lost": 2}}


def test_of_a_job_its_steps_bytes_and_attempts_are_counted(tmp_path: Path) -> None:
    used = Used({"fetch": 1.0, "run": 60.0, "pack": 0.5, "odd": 3.0}, 1000, 50.0, 80)
    first = started(1, result=result("node_failed", used=replace(used, steps={"fetch": 2.0})))
    last = started(2, result=result(used=used, outputs={"Copy": Output(70, "0")}))
    facts = job(first, last, outcome=outcome("job", 2))
    there = put(jobs_in(tmp_path), "a", facts, "active", ("delivered.json", Delivered("answers", NOW - 998)))

    counted = tally.ended(there, facts, NOW)

    assert (counted.outcome, counted.workload, counted.attempts) == ("succeeded", "copy", 2)
    assert (counted.input_bytes, counted.output_bytes) == (2000, 70)
    assert sorted(counted.seconds) == [
        ("answer", 2.0), ("fetch", 1.0), ("fetch", 2.0), ("pack", 0.5), ("run", 60.0), ("wait", 100.0), ("wait", 100.0)
    ]  # fmt: skip


def teller(tmp_path: Path, metrics_file: str = "") -> Callable[[Uncounted, int], Path]:
    """Tells what was seen, with this exit code; returns the tally."""
    jobs = jobs_in(tmp_path)
    config = config_for(tmp_path, changes={"jobs_dir": jobs.path, "metrics_file": metrics_file})

    def told(seen: Uncounted, code: int) -> Path:
        tell(config, jobs, seen, budget_of(config.site, jobs), code)
        return jobs.tally

    return told


def test_metrics_that_can_t_be_written_change_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen = Uncounted([ONE])

    kept = teller(tmp_path, "/nowhere/batchferry.prom")(seen, 0)

    assert "metrics can't be written" in caplog.text
    assert json.loads(kept.read_text())["jobs"] == {"succeeded train": 1} and seen == Uncounted()


def test_a_pass_with_a_fault_leaves_the_time_of_the_last_good_one(tmp_path: Path) -> None:
    told = teller(tmp_path)
    good = tally.read(told(Uncounted(), os.EX_OK)).last_success

    kept = told(Uncounted(), os.EX_UNAVAILABLE)

    assert good > 0 and tally.read(kept).last_success == good


def test_a_full_disk_stops_no_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = teller(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)

    kept = told(Uncounted(), 0)

    assert not kept.exists() and tally.read(kept) == Tally()
