"""docs/install.md and docs/symptoms.md speak of commands, settings and log lines that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import check
from docs.settings import tables
from tests.installation import ROOT
from worker.pythons import NEWEST, OLDEST

LINKED = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [ROOT / "docs" / "install.md", ROOT / "docs" / "symptoms.md"]
LINES = [line.strip() for page in [*PAGES, ROOT / "README.md"] for line in page.read_text().splitlines()]
COMMANDS = sorted({
    *(match for line in LINES for match in re.findall(r"`(\./check\.py[^`]*)`", line)),
    *(line for line in LINES if line.startswith("./check.py")),
})  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_that_check_py_takes(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["4f0c" if word in ("JOB", "JOB...") else word for word in shlex.split(command, comments=True)]
    monkeypatch.setattr("sys.argv", words)

    if "--help" not in words:
        check._parser().parse_args(words[1:])


def test_there_are_commands_to_look_at() -> None:
    assert {"./check.py init --add", "./check.py doctor --from-node", "./check.py --dry-run"} <= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_is_named_is_one(page: Path) -> None:
    known = set(re.findall(r"`(\w+)`", tables()))
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", page.read_text()))

    assert {"jobs_dir", "max_wait"} <= known and named <= known | {
        "run_check",
        "out_of_memory",
        "timed_out",
        "http_proxy",
    }, named - known


def test_every_symptom_of_the_log_is_what_the_code_says() -> None:
    said = "\n".join(
        path.read_text()
        for path in (
            *(path for room in ("worker", "scheduler", "slurm") for path in (ROOT / room).rglob("*.py")),
            ROOT / "run_check",
        )
    )
    headings = [line for line in PAGES[1].read_text().splitlines() if line.startswith("## ")]
    phrases = [phrase for line in headings for phrase in re.findall(r"`([^`]+)`", line) if " " in phrase]

    assert len(phrases) >= 5
    assert [phrase for phrase in phrases if phrase not in said] == []


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        headings = (
            [line.lstrip("# ").lower() for line in file.read_text().splitlines() if line.startswith("#")]
            if anchor
            else []
        )
        assert not anchor or anchor in [re.sub(r"[^\w\- ]", "", each).strip().replace(" ", "-") for each in headings], (
            target
        )


def test_the_pages_and_the_doctor_agree_on_the_pythons_that_are_tested() -> None:
    oldest, newest = (".".join(map(str, version)) for version in (OLDEST, NEWEST))

    for page in ("README.md", "docs/install.md", "requirements.txt"):
        assert f"Python {oldest} to {newest}" in (ROOT / page).read_text(), page
