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
from worker.folder import pause
from worker.folder.facts import site_fault_of
from worker.folder.jobs import JobsFolder
from worker.job.facts import NotTaken, SiteFault
from worker.operate import health, status
from worker.operate.places import Wanted
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
    assert (code, words) == (0, "BATCHFERRY OK - All is well")
    assert line.count("\n") == 1 and numbers.startswith("active=1 waiting=0 undelivered=0 rejected=0 oldest_seconds=")


def test_passes_that_no_longer_run_are_critical(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(config, capsys)[0] == 2
    a_pass(jobs, ago=7300)

    code, line = checked(config, capsys)

    assert code == 2 and line.startswith("BATCHFERRY CRITICAL - No pass has run for 2 h: ")


def test_a_site_that_is_away_is_critical_and_nothing_that_was_said_breaks_the_line(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    a_pass(jobs)
    site_fault_of(jobs).write(SiteFault("api", "a|b\nc", time.time() - 7300))

    code, line = checked(config, capsys)

    assert code == 2 and line.startswith("BATCHFERRY CRITICAL - The API has been away for 2 h: ")
    assert "a/b c | active=0" in line and line.count("\n") == 1


def test_a_pause_is_a_warning_that_names_who_and_since_when(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    a_pass(jobs)
    pause.begin(jobs, "anna@login1", False, "an upgrade")

    code, line = checked(config, capsys)

    assert code == 1 and line.startswith("BATCHFERRY WARNING") and "This installation is paused" in line
    assert "anna@login1" in line and "an upgrade" in line


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
    assert first.startswith("No pass has run yet: ")
    for words in ("1 answer could not be delivered", "1 job can't be read", "1 answer can't be sent for "):
        assert any(each.startswith(words) for each in others), words


@pytest.mark.parametrize(("changes", "code", "words"), [
    ({"broker_away": "it is closed"}, 2, "CRITICAL - RabbitMQ gives no answer: it is closed |"),
    ({"queue_faults": {"jobs": "there is no queue jobs."}}, 2, "there is no queue jobs |"),
    ({"stopped": {"train": "no program"}}, 1, "WARNING - The workload train is stopped: no program |"),
])  # fmt: skip
def test_who_gives_no_answer_is_named(
    changes: dict[str, Any], code: int, words: str, config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    now: Standing = status.look(config, jobs, Wanted(), 0, None)
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
