"""What Slurm tells people about one job; a field that it leaves empty is not made up."""

from __future__ import annotations

import pytest

from scheduler import Outlook, Stock, Usage
from slurm.details import parse_nodes, parse_outlook, parse_usage


def test_memory_is_the_largest_step_s_and_the_rest_the_job_s() -> None:
    text = "7|125|4|08:20|\n7.batch|125|4|08:20|1048576K\n7.extern|125|4|00:00|0\n"

    assert parse_usage(text) == Usage(125, 4, 500, 1024)


def test_a_job_that_accounting_does_not_know_has_no_usage() -> None:
    assert parse_usage("") is None


def test_what_accounting_leaves_empty_is_unknown() -> None:
    assert parse_usage("7||0||\n") == Usage()


@pytest.mark.parametrize(("text", "seconds"), [
    ("00:00.250", 0.25), ("01:30", 90), ("02:00:00", 7200), ("1-00:00:01", 86401), ("", None), ("INVALID", None),
])  # fmt: skip
def test_slurm_s_durations(text: str, seconds: object) -> None:
    usage = parse_usage(f"7|1|1|{text}|\n")

    assert usage is not None and usage.cpu_seconds == seconds


@pytest.mark.parametrize(
    ("text", "megabytes"), [("512K", 0.5), ("1.50M", 1.5), ("2G", 2048), ("1048576", 1), ("x", None)]
)
def test_slurm_s_sizes(text: str, megabytes: object) -> None:
    usage = parse_usage(f"7.batch|1|1|00:01|{text}\n")

    assert usage is not None and usage.memory_mb == megabytes


def test_why_a_job_waits_and_until_when() -> None:
    assert parse_outlook("PENDING|Resources|gpu|1700000000\n") == Outlook("PENDING", "Resources", "gpu", 1700000000)
    assert parse_outlook("PENDING|Priority|gpu|N/A\n") == Outlook("PENDING", "Priority", "gpu")
    assert parse_outlook("") is None


def test_a_partition_s_nodes_are_added_up() -> None:
    def row(cpus: str, gres: str, used: str) -> str:
        return f"{cpus:40}{gres:400}{used:400}\n"

    text = row("3/5/0/8", "gpu:v100l:4(S:0-1),tmpdisk:100", "gpu:v100l:2(IDX:0-1)") + row(
        "8/0/0/8", "gpu:v100l:4,gpu:p100l:2", "gpu:v100l:0(IDX:N/A),gpu:p100l:1(IDX:1)"
    )

    assert parse_nodes(text) == [Stock("CPUs", 16, 11), Stock("gpu:v100l", 8, 2), Stock("gpu:p100l", 2, 1)]
    assert parse_nodes(row("0/4/0/4", "(null)", "(null)") + row("0/2/0/2", "gpu:2", "gpu:0")) == [
        Stock("CPUs", 6, 0), Stock("gpu", 2, 0)
    ]  # fmt: skip
    assert parse_nodes("nonsense\n\n") == []
