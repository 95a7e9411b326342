"""`show --follow`: each line of a log once, at once, also into a pipe."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.installation import ROOT
from tests.worker.examples import NOW, config_for
from tests.worker.login.situations import job, outcome, result, started
from tests.worker.operate.ground import jobs_in, put
from worker.folder.facts import JobFolder
from worker.folder.jobs import JobsFolder
from worker.job.facts import Delivered
from worker.operate import naming, show
from worker.operate.places import Found
from worker.settings import Config


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_for(tmp_path, changes={"jobs_dir": jobs_in(tmp_path).path})


def over(config: Config, log: bytes) -> JobFolder:
    """A job that has its answer, and its log."""
    jobs = JobsFolder(config.site.jobs_dir)
    facts = job(started(result=result()), outcome=outcome("job"))
    made = put(jobs, "a", facts, "done/2026-11-27", ("delivered.json", Delivered("answers", NOW)))
    made.attempt(1).log.write_bytes(log)
    return made


def followed(config: Config, capsys: pytest.CaptureFixture[str], lines: int = 10) -> list[str]:
    jobs = JobsFolder(config.site.jobs_dir)
    found = naming.one(config, jobs, "a")
    assert isinstance(found, Found)
    capsys.readouterr()
    show._follow(jobs, found, lines)
    return capsys.readouterr().out.splitlines()


def test_a_line_that_is_written_just_after_the_end_was_read_is_shown(
    config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = over(config, b"one\ntwo\nthr")
    right = show._end_of

    def and_then(path: Path, lines: int) -> show._End:
        end = right(path, lines)
        with path.open("ab") as log:
            log.write(b"ee\nfour\n")
        return end

    monkeypatch.setattr(show, "_end_of", and_then)

    assert followed(config, capsys) == ["one", "two", "three", "four"]
    assert made.attempt(1).log.exists()


def test_a_last_line_without_an_end_is_shown_too(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    over(config, b"\n".join(b"line %d" % number for number in range(20)))

    assert followed(config, capsys, lines=2) == ["line 17", "line 18", "line 19"]


def test_into_a_pipe_what_the_log_says_comes_at_once(tmp_path: Path) -> None:
    config_for(tmp_path)
    jobs = jobs_in(tmp_path)
    site = tmp_path / "site.toml"
    site.write_text(site.read_text().replace('jobs_dir = "jobs"', f"jobs_dir = {json.dumps(str(jobs.path))}"))
    made = put(jobs, "a", job(started()))
    made.attempt(1).log.write_bytes(b"the only line\n")
    argv = [sys.executable, str(ROOT / "check.py"), "show", "a", "--follow", "--offline"]
    files = ["--site", str(site), "--credentials", str(tmp_path / "credentials.env")]

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

    with subprocess.Popen(
        [*argv, *files], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as follows:
        assert follows.stdout is not None
        said, end = b"", time.monotonic() + 120
        try:
            while b"the only line" not in said and time.monotonic() < end:
                if select.select([follows.stdout], [], [], 1)[0]:
                    more = os.read(follows.stdout.fileno(), 65536)
                    assert more, said.decode()
                    said += more
        finally:
            follows.kill()

    assert b"the only line" in said
