"""`pause` and `resume` say what they did, and whoever looks at the installation sees it."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.worker.examples import config_for
from tests.worker.login.test_metrics import values
from tests.worker.operate.ground import jobs_in
from worker.doctor.pause import look_at_pause
from worker.doctor.report import Report
from worker.doctor.subject import Subject
from worker.folder import pause as pauses
from worker.folder.jobs import JobsFolder
from worker.login import metrics
from worker.login.tally import Tally
from worker.operate import dry_run, pause, resume, status
from worker.settings import Config


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_for(tmp_path, changes={"jobs_dir": jobs_in(tmp_path).path})


@pytest.fixture
def jobs(config: Config) -> JobsFolder:
    return JobsFolder(config.site.jobs_dir)


def said(verb: Any, config: Config, capsys: pytest.CaptureFixture[str], *words: str, expect: int = 0) -> str:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    capsys.readouterr()
    assert verb.run(config, parser.parse_args(list(words))) == expect
    return capsys.readouterr().out


def test_pause_says_what_goes_on_and_who_was_first_and_resume_who_it_was(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    first = said(pause, config, capsys, "--reason", "new\x1b[2J disks")
    again = said(pause, config, capsys)
    more = said(pause, config, capsys, "--submit")
    ended, nothing = said(resume, config, capsys), said(resume, config, capsys)

    assert "no new message is taken" in first and "deadlines and max_wait go on" in first and "\x1b" not in first
    assert "It was so already: paused by" in again and "disks" in again and "Nothing was changed" in again
    assert "nothing that is claimed is submitted" in more and "answered expired" in more
    assert "messages are taken again. It was paused by" in ended and nothing == "Nothing is paused.\n"
    log = jobs.operator_log.read_text()
    assert [line.split("verb=")[1].split()[0] for line in log.splitlines()] == ["pause", "pause", "resume"]


def test_as_json_they_say_whether_anything_changed(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    first, again = (json.loads(said(pause, config, capsys, "--submit", "--json")) for _ in range(2))
    ended = json.loads(said(resume, config, capsys, "--json"))

    assert first["changed"] and not again["changed"] and first["paused"] == again["paused"]
    assert first["paused"]["submit"] and first["paused"]["by"]
    assert ended["paused"] is None and ended["changed"]


@pytest.mark.parametrize("verb", [pause, resume])
def test_without_a_jobs_folder_nothing_is_made(verb: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_for(tmp_path)

    said(verb, config, capsys, expect=os.EX_CANTCREAT)

    assert not config.site.jobs_dir.exists()


def test_status_shows_who_paused_and_since_when(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert json.loads(said(status, config, capsys, "--offline", "--json"))["paused"] is None
    pauses.begin(jobs, "anna@login1", False, "new disks")

    text = said(status, config, capsys, "--offline")
    paused = json.loads(said(status, config, capsys, "--offline", "--json"))["paused"]

    assert "by anna@login1 since" in text and "(new disks)" in text and "./check.py resume" in text
    assert (paused["by"], paused["reason"], paused["submit"], paused["damaged"]) == (
        "anna@login1",
        "new disks",
        False,
        "",
    )


def test_status_says_of_a_damaged_pause_what_it_stops(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.paused.write_text("{")

    assert "no new message is taken, and nothing that is claimed is submitted, because the file" in (
        said(status, config, capsys, "--offline")
    )


@pytest.mark.parametrize(("submit", "take", "submits"), [(False, 100.0, 0.0), (True, 100.0, 100.0)])
def test_metrics_say_for_how_long(jobs: JobsFolder, submit: bool, take: float, submits: float) -> None:
    pauses.begin(jobs, "anna@login1", submit, "")
    found = pauses.look(jobs)
    assert found is not None

    metrics.write(jobs.path / "x.prom", jobs, Tally(), 0, found.at + 100)
    said = values((jobs.path / "x.prom").read_text())

    assert said["batchferry_paused_seconds", "take"] == pytest.approx(take)
    assert said["batchferry_paused_seconds", "submit"] == pytest.approx(submits)


def test_a_dry_run_takes_nothing_while_it_is_paused(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SimpleNamespace(waiting=lambda queue, make: 7)
    monkeypatch.setattr(dry_run, "open_ends", lambda _: SimpleNamespace(source=lambda _: source, close=lambda: None))
    pauses.begin(jobs, "anna@login1", False, "")

    dry_run.dry_run(config, True, in_json=False)
    text = capsys.readouterr().out
    dry_run.dry_run(config, True, in_json=True)
    told = json.loads(capsys.readouterr().out)

    assert text.startswith("paused by anna@login1") and "takes 0" in text
    assert told["paused"]["by"] == "anna@login1" and told["queues"][0]["would_take"] == 0


def test_the_doctor_warns_of_a_pause_and_one_that_is_damaged_is_a_fault(config: Config, jobs: JobsFolder) -> None:
    subject = cast(Subject, SimpleNamespace(site=config.site))
    report = Report("passes")
    look_at_pause(report, subject)
    pauses.begin(jobs, "anna@login1", False, "")
    look_at_pause(report, subject)
    jobs.paused.write_text("{")
    look_at_pause(report, subject)

    assert [each.mark for each in report.findings] == ["ok", "warning", "fault"]
    assert all("resume" in each.mend for each in report.findings[1:])
