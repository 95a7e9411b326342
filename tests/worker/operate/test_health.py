"""`status --check`: a monitor reads one line and an exit code, and both are true."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.worker.examples import NOW, config_for
from tests.worker.login.situations import job, outcome, started, submitted
from tests.worker.operate.ground import jobs_in, put
from worker.errors import Fault
from worker.folder.facts import site_fault_of
from worker.folder.jobs import JobsFolder
from worker.job.facts import NotTaken, SiteFault
from worker.operate import health, status
from worker.operate.status import Pass, Standing
from worker.settings import Config


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_for(tmp_path, changes={"jobs_dir": jobs_in(tmp_path).path})


@pytest.fixture
def jobs(config: Config) -> JobsFolder:
    return JobsFolder(config.site.jobs_dir)


def a_pass(jobs: JobsFolder, ago: float = 0) -> None:
    jobs.lease.write_text('{"host": "login1"}')
    os.utime(jobs.lease, (time.time() - ago,) * 2)


def checked(config: Config, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    status.add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    code = status.run(config, parser.parse_args(["--check", "--offline", *words]))
    return code, capsys.readouterr().out


def test_where_all_is_well_one_line_says_so_with_numbers(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    a_pass(jobs)
    put(jobs, "a", job(submitted()))

    code, line = checked(config, capsys)

    words, _, numbers = line.partition(" | ")
    assert (code, words) == (0, "BATCHFERRY OK - passes run, and nothing is away")
    assert line.count("\n") == 1 and numbers.startswith("active=1 waiting=0 undelivered=0 rejected=0 oldest_seconds=")


def test_passes_that_no_longer_run_are_critical(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(config, capsys)[0] == 2
    a_pass(jobs, ago=7300)

    code, line = checked(config, capsys)

    assert code == 2 and line.startswith("BATCHFERRY CRITICAL - no sign of a pass for 2 h (it was on login1) |")


@pytest.mark.parametrize(("ago", "code"), [(60, 1), (7200, 2)])
def test_a_site_that_is_away_is_a_warning_and_after_half_an_hour_critical(
    ago: float, code: int, config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    a_pass(jobs)
    site_fault_of(jobs).write(SiteFault("api", "a|b\nc", time.time() - ago))

    found, line = checked(config, capsys)

    assert found == code and "api away for" in line and "a/b c | active=0" in line and line.count("\n") == 1


def test_the_worst_comes_first_and_each_is_counted(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    put(jobs, "a", job(), "undelivered")
    put(jobs, "b", job(started(), outcome=outcome("job"), not_taken=NotTaken(NOW, "no queue", 1, NOW)))
    put(jobs, "c", job(started()))
    for path in (jobs.active / "c").rglob("*.json"):
        path.unlink()
    (jobs.active / "c" / "spec.json").write_text("{}")

    code, printed = checked(config, capsys, "--json")

    told = json.loads(printed)
    assert (code, told["level"], told["exit_code"]) == (2, "CRITICAL", 2)
    first, *others = told["findings"]
    assert first == "no pass has run yet"
    assert "1 answer given up (see resend)" in others and any("1 job that can't be read" in each for each in others)


@pytest.mark.parametrize(("changes", "code", "words"), [
    ({"broker_away": "it is closed"}, 2, "the broker gives no answer: it is closed"),
    ({"slurm_away": "it hangs"}, 1, "Slurm gives no answer: it hangs"),
    ({"queue_faults": {"jobs": "there is no queue jobs."}}, 1, "there is no queue jobs"),
    ({"stopped": {"train": "no program"}}, 1, "workload train is stopped: no program"),
])  # fmt: skip
def test_who_gives_no_answer_is_named(
    changes: dict[str, Any], code: int, words: str, config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    now: Standing = status.look(config, jobs, status.Wanted(), 0, None)
    well = replace(now, last_pass=Pass("login1", now.at, False))

    assert health.check(replace(well, **changes), in_json=False) == code

    assert words in capsys.readouterr().out


def test_files_that_are_at_fault_are_critical_and_a_folder_that_can_t_be_read_is_unknown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert health.at_fault([Fault(Path("/x/site.toml"), "no such setting", 3)], in_json=False) == 2
    assert health.unreadable(OSError("Input/output error"), in_json=False) == 3

    assert capsys.readouterr().out.splitlines() == [
        "BATCHFERRY CRITICAL - site.toml: no such setting (line 3)",
        "BATCHFERRY UNKNOWN - the jobs folder can't be read: Input/output error",
    ]
