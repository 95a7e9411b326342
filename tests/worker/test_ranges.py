"""Every number that a site can set has a least and a most, and what lies outside is a fault with its line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from tests.installation import ROOT
from tests.worker.examples import CREDENTIALS
from worker import settings
from worker.config import read_separately
from worker.install.files import site_text
from worker.login.budget import LEAST_AT_ONCE
from worker.settings import Seconds

EXAMPLE = (ROOT / "site.example.toml").read_text()
TABLES = {
    "": settings.Site, "api": settings.ApiSettings, "slurm": settings.SlurmSettings, "replies": settings.Replies,
    "limits": settings.Limits, "timing": settings.Timing, "queues": settings.Queue,
    "queues.resources": settings.ResourceRules, "queues.pilot": settings.PilotRules,
    "workloads.binarize": settings.Workload, "workloads.binarize.forms": settings.Form,
    "workloads.binarize.retry": settings.RetryPolicy, "queues.resources.gpus_by_memory": settings.GpuRule,
}  # fmt: skip


def numbers() -> Iterator[tuple[str, str, Any, Any]]:
    """Table, name, kind and field of each."""
    for table, cls in TABLES.items():
        hints = get_type_hints(cls)
        for f in fields(cls):
            if hints[f.name] in (int, float, Seconds):
                yield table, f.name, hints[f.name], f


def faults(folder: Path, table: str, name: str, value: Any) -> list[str]:
    """Of the example with this value, but for those that only this folder has."""
    if table == "queues.resources.gpus_by_memory":
        text = site_text(EXAMPLE, {("queues.resources", "gpus_by_memory"): []})
        text = text.replace("gpus_by_memory = []", f'gpus_by_memory = [{{ gres = "gpu:1", {name} = {value} }}]', 1)
    else:
        text = site_text(EXAMPLE, {(table, name): value})
    (folder / "site.toml").write_text(text)
    (folder / "credentials.env").write_text(CREDENTIALS)
    (folder / "credentials.env").chmod(0o600)
    found = read_separately(folder, folder / "site.toml", folder / "credentials.env")[2]
    return [str(fault) for fault in found if "there is no program" not in fault.found]


def line_of(folder: Path, name: str) -> set[int]:
    lines = (folder / "site.toml").read_text().split("\n")
    return {number for number, line in enumerate(lines, 1) if name in line and not line.startswith("#")}


@pytest.mark.parametrize(
    ("table", "name", "kind", "f"), numbers(), ids=lambda each: each if isinstance(each, str) else ""
)
def test_a_number_outside_its_range_is_a_fault_with_its_line(
    tmp_path: Path, table: str, name: str, kind: Any, f: Any
) -> None:
    least, most = f.metadata["least"], f.metadata["most"]
    step = 1 if kind is int else least / 2 or 0.5

    for value in (least - step, most + 1, most * 1000, -1, *(["1e400"] if kind is not int else [])):
        found = faults(tmp_path, table, name, value)
        assert len(found) == 1 and f"{name}: must be " in found[0], (value, found)
        assert int(found[0].rpartition("(line ")[2].rstrip(")")) in line_of(tmp_path, name), found


@pytest.mark.parametrize(
    ("table", "name", "kind", "f"), numbers(), ids=lambda each: each if isinstance(each, str) else ""
)
def test_the_least_and_the_most_are_taken_and_the_default_lies_between(
    tmp_path: Path, table: str, name: str, kind: Any, f: Any
) -> None:
    least, most = f.metadata["least"], f.metadata["most"]

    for value in (least, most):
        assert [each for each in faults(tmp_path, table, name, value) if f"{name}: must be " in each] == []
    assert f.default is MISSING or least <= f.default <= most


@pytest.mark.parametrize("value", [2.5, "3", True, "nan"])
def test_a_whole_number_is_one(tmp_path: Path, value: Any) -> None:
    (fault,) = faults(tmp_path, "queues.pilot", "jobs_per_pilot", value)

    assert "jobs_per_pilot: must be a whole number" in fault


@pytest.mark.parametrize(("table", "name", "value", "what"), [
    ("queues.pilot", "jobs_per_pilot", 0, "a division by zero in each pass"),
    ("queues.pilot", "most", 0, "no pilot ever"),
    ("queues.pilot", "max_open", 0, "no job ever for a pilot"),
    ("replies", "expiration", 0, "answers that vanish, delivered"),
    ("replies", "expiration", "50d", "answers that RabbitMQ refuses"),
    ("slurm", "commands_at_once", 2, "nothing is ever taken"),
    ("slurm", "commands_per_second", 0, "nothing is ever taken again"),
    ("", "max_in_flight", 0, "nothing is ever taken"),
    ("timing", "end_margin", "1d", "an option that sbatch refuses"),
    ("timing", "keep_done", 0, "nobody can look at what was answered"),
    ("timing", "keep_ids", 0, "an answered message that comes again runs again"),
])  # fmt: skip
def test_a_value_that_ruins_an_installation_is_refused(
    tmp_path: Path, table: str, name: str, value: Any, what: str
) -> None:
    assert len(faults(tmp_path, table, name, value)) == 1, what


def test_the_least_burst_of_slurm_commands_is_what_a_submission_needs() -> None:
    (least,) = (f.metadata["least"] for _, name, _, f in numbers() if name == "commands_at_once")

    assert least >= LEAST_AT_ONCE
