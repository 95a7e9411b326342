"""The metrics are what Prometheus can read, say what is true, and have the names that dashboard and alerts use."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.installation import ROOT
from tests.worker.examples import NOW
from tests.worker.login.situations import job, outcome, started, submitted
from tests.worker.operate.ground import jobs_in, put
from worker.folder.facts import site_fault_of
from worker.folder.jobs import JobsFolder
from worker.job.facts import NotTaken, SiteFault
from worker.login import metrics, tally
from worker.login.tally import Ended, Tally

MONITORING = ROOT / "docs" / "monitoring"
FULL = tally.add(
    Tally(last_success=NOW - 60, redelivered=7),
    [Ended("2026-11-21", "failed", 'a "b"\n\\', [("run", 2.0), ("run", 400.0)], 100, 10, 2)],
    {"squeue": 3}, {"squeue": 0.25},
)  # fmt: skip


@pytest.fixture
def jobs(tmp_path: Path) -> JobsFolder:
    made = jobs_in(tmp_path)
    put(made, "a", job(submitted()))
    put(made, "b", job(started()))
    put(made, "c", job(started(), outcome=outcome("job"), not_taken=NotTaken(NOW, "no queue", 1, NOW)))
    put(made, "d", job(), "rejected")
    site_fault_of(made).write(SiteFault("api", "it is away", NOW - 500))
    return made


def written(jobs: JobsFolder, kept: Tally = FULL, code: int = 69) -> str:
    file = jobs.path / "batchferry.prom"
    before = os.umask(0o077)  # as check.py has it
    metrics.write(file, jobs, kept, code, NOW)
    os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o644, "the collector is another user"
    return file.read_text()


def values(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_jobs_for_pilots_are_counted_by_the_names_of_their_batches(jobs: JobsFolder) -> None:
    for place in ("todo/1.40", "todo/2.7", "locked/3.5~pilot-1"):
        (jobs.pilots / "q-jobs" / place).mkdir(parents=True)
    (jobs.pilots / "crew" / "pilot-1").mkdir(parents=True)

    found = values(written(jobs))

    assert [found["batchferry_pilot_jobs", state] for state in ("todo", "locked", "ended")] == [47, 5, 0]
    assert [found["batchferry_pilots", state] for state in ("pending", "running")] == [1, 0]


def test_they_say_how_things_stand(jobs: JobsFolder) -> None:
    found = values(written(jobs))

    assert [found["batchferry_jobs", word] for word in ("pending", "running", "unanswered", "claimed")] == [1, 1, 1, 0]
    assert found["batchferry_rejected_kept",] == 1 and found["batchferry_unsent_answers",] == 1
    assert found["batchferry_site_away_seconds", "api"] == 500 and found["batchferry_site_away_seconds", "login"] == 0
    assert found["batchferry_last_pass_exit_code",] == 69
    assert found["batchferry_last_success_timestamp_seconds",] == NOW - 60


def test_they_say_what_was_counted_whatever_a_workload_is_called(jobs: JobsFolder) -> None:
    found = values(written(jobs))
    name = 'a "b"\n\\'

    assert found["batchferry_jobs_ended_total", "failed", name] == 1
    assert found["batchferry_bytes_total", "in", name] == 100
    assert found["batchferry_slurm_commands_total", "squeue"] == 3
    assert found["batchferry_redelivered_total",] == 7
    assert found["batchferry_slurm_command_seconds_total", "squeue"] == 0.25
    assert found["batchferry_step_seconds_count", "run", name] == 2
    assert found["batchferry_step_seconds_sum", "run", name] == 402
    assert found["batchferry_step_seconds_bucket", "5.0", "run", name] == 1


def test_nothing_half_written_is_left_beside_them(jobs: JobsFolder) -> None:
    written(jobs)
    written(jobs)

    assert [path.name for path in jobs.path.glob("*.prom*")] == ["batchferry.prom"]


@pytest.mark.parametrize("file", ["dashboard.json", "alerts.yml"])
def test_dashboard_and_alerts_use_names_that_there_are(file: str, jobs: JobsFolder) -> None:
    names = {name for name, *_ in values(written(jobs))}

    used = set(re.findall(r"batchferry_\w+", (MONITORING / file).read_text()))

    assert used and used <= names, used - names


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    board = json.loads((MONITORING / "dashboard.json").read_text())

    assert board["title"] and board["schemaVersion"] >= 36
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) and all(p["targets"] and p["gridPos"] for p in board["panels"])


def test_prometheus_own_checker_finds_no_fault_where_it_is_there(jobs: JobsFolder) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        return
    asked = [["check", "metrics"], ["check", "rules", str(MONITORING / "alerts.yml")],
             ["test", "rules", str(MONITORING / "alerts.test.yml")]]  # fmt: skip

    done = [
        subprocess.run(
            [promtool, *words], input=written(jobs), capture_output=True, text=True, timeout=300, check=False
        )
        for words in asked
    ]

    assert [(each.returncode, each.stderr) for each in done] == [(0, "")] * 3
