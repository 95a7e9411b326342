"""What status and show print: true, short, and safe to print whatever a stranger has put into a message or a log."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.worker.examples import NOW, SPEC, config_for
from tests.worker.login.situations import job, message, outcome, result, started, submitted
from tests.worker.operate.ground import jobs_in, put
from worker.folder.facts import site_fault_of
from worker.folder.jobs import JobsFolder
from worker.job.facts import Delivered, NotTaken, Progress, SiteFault
from worker.job.names import JobId
from worker.job.spec import Input
from worker.login import tally
from worker.login.tally import Ended, Tally
from worker.operate import show, status
from worker.settings import Config

HOSTILE = "\x1b[2J\x1b]0;owned\x07[red]\r\nx"


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
    assert verb.run(config, parser.parse_args(["--offline", *words])) == expect
    return capsys.readouterr().out


def test_an_installation_without_a_job_says_so(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(status, config, capsys)

    assert "none yet (is run_check in the crontab?)" in text and "0 of at most" in text and "none kept" in text


def test_the_head_counts_everything_and_the_table_lists_the_oldest(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    put(jobs, "a", job(submitted()))
    put(jobs, "b", job(started()))
    jobs.job(JobId("b")).attempt(1).progress.write(Progress(0.4, "epoch 6/15", NOW))
    put(jobs, "c", job(started(), outcome=outcome("job"), not_taken=NotTaken(NOW, "no queue", 1, NOW)))
    put(jobs, "d", job(), "undelivered")
    put(jobs, "e", job(started(result=result()), outcome=outcome("job")), "done/2026-11-20")
    site_fault_of(jobs).write(SiteFault("api", "it is away", NOW))
    tally.write(
        jobs.tally, tally.add(Tally(), [Ended("2026-11-20", end, "copy") for end in ("lost", "rejected")], {}, {})
    )

    text = said(status, config, capsys, "--limit", "2")
    standing = json.loads(said(status, config, capsys, "--json"))

    assert "3 of at most 100: pending 1, running 1, unanswered 1" in text
    assert "(api): it is away" in text and "rejected 0, undelivered 1" in text
    assert "1 kept of 1 day; 2026-11-20 1 (lost 1)" in text
    assert "40% epoch 6/15" in text and "There are more" in text
    assert standing["active"] == {"pending": 1, "running": 1, "unanswered": 1} and len(standing["jobs"]) == 3
    assert standing["done"] == {"2026-11-20": 1} and not standing["more"]


def test_a_job_that_can_t_be_read_hides_no_other(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    put(jobs, "a", job(started())).message.path.write_text("{")
    put(jobs, "b", job(started()))

    rows = {row["job"]: row for row in json.loads(said(status, config, capsys, "--json"))["jobs"]}

    assert rows["a"]["state"] == "damaged" and "message.json is not what was written" in rows["a"]["why"]
    assert rows["b"]["state"] == "running"


def hostile_job(jobs: JobsFolder) -> None:
    spec = replace(
        SPEC, workload=HOSTILE, inputs={HOSTILE: Input("https://h/x?signature=secret" + HOSTILE, "x", False)},
        outputs={HOSTILE: "y"}, settings={HOSTILE: HOSTILE},
    )  # fmt: skip
    told = message(correlation_id=HOSTILE, reply_to=HOSTILE)
    a = started(result=result("failed", reason=HOSTILE))
    assert a.started is not None and a.submission is not None
    a = replace(a, started=replace(a.started, node=HOSTILE))
    facts = job(a, spec=spec, outcome=outcome("job", word="failed"))
    place = put(
        jobs,
        "a",
        replace(facts, message=replace(told, queue=HOSTILE)),
        "active",
        ("delivered.json", Delivered(HOSTILE, NOW)),
    )
    place.attempt(1).progress.write(Progress(0.5, HOSTILE, NOW))
    place.attempt(1).log.write_text(HOSTILE * 10 + "\xff" * 10_000)


@pytest.mark.parametrize(
    ("verb", "words"), [(status, []), (status, ["--json"]), (show, ["a"]), (show, ["a", "--json"])]
)
def test_nothing_that_a_stranger_said_commands_the_terminal(
    verb: Any, words: list[str], config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile_job(jobs)

    text = said(verb, config, capsys, *words)

    assert all(character.isprintable() or character == "\n" for character in text)
    assert "owned" in text and "[red]" in text and "signature" not in text


def test_a_damaged_job_is_told_by_show_with_the_file_at_fault(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    put(jobs, "a", job(started())).attempt(1).started.path.write_text("[]")

    said(show, config, capsys, "a", expect=65)


def test_show_reads_only_the_end_of_a_large_log(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    log = put(jobs, "a", job(started())).attempt(1).log
    with open(log, "wb") as file:
        file.truncate(5 * 2**30)
        file.seek(0, 2)
        file.write(b"\nlast but one\nlast\n")

    story = json.loads(said(show, config, capsys, "a", "--lines", "2", "--json"))

    assert story["log_tail"] == ["last but one", "last"]
