"""A fact is declared once: who takes one for another is told by mypy, before anything runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.installation import ROOT

pytestmark = pytest.mark.unhurried

PLANTED = """\
from typing import Optional
from worker.folder.facts import AttemptFolder, JobFolder
from worker.job.facts import Intent, Started, Submission

def right(attempt: AttemptFolder, started: Started) -> Optional[Intent]:
    attempt.started.claim(started)
    return attempt.intent.read()

def wrong(attempt: AttemptFolder, job: JobFolder, started: Started) -> Optional[Submission]:
    attempt.intent.claim(started)
    attempt.submission.claim(Submission("1", 0.0))
    job.outcome.write(started)
    attempt.begun.claim_as(attempt.intent)
    return attempt.intent.read()
"""


def test_a_fact_that_is_taken_for_another_is_a_type_error(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(PLANTED)

    said = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache" / "planted"), str(planted)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip

    lines = {int(line) for line in re.findall(r"planted\.py:(\d+): error", said)}
    assert lines == {10, 11, 12, 13, 14}, said
