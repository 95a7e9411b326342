"""Defaults fit each other, and values that hardly can have been meant together are said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.worker.examples import SITE, read
from worker import advice as advices
from worker.build import traits
from worker.errors import Advice
from worker.fit import default_resources, unfit_for_pilots
from worker.settings import GpuRule, PilotRules, Queue, ResourceRules, Seconds, Site, Timing


def advice(site: Site) -> Iterator[Advice]:
    return advices.advice(site, traits(site))


def found(folder: Path, more: str = "", resources: str = "") -> list[str]:
    """Of the example of a service, with more tables before it and more lines in its [queues.resources]."""
    site = SITE.replace("gpus_by_memory = [", f"{resources}gpus_by_memory = [")
    return [each.found for each in advice(read(folder, more + site).site)]


@pytest.mark.parametrize("mode", ["job", "pilot"])
def test_a_queue_in_either_mode_with_nothing_else_set_needs_no_advice(tmp_path: Path, mode: str) -> None:
    site = read(tmp_path).site
    queue = Queue("jobs", "train", mode=mode)

    assert list(advice(replace(site, queues=(queue,)))) == []
    assert unfit_for_pilots(default_resources(queue.resources), queue.pilot, Timing()) is None


def test_the_default_caps_hold_the_default_job_of_the_platform() -> None:
    rules = ResourceRules()

    assert rules.max_memory_mb >= 257000 and rules.max_cpus >= 6 and rules.max_time >= 6 * 3600


@pytest.mark.parametrize(("resources", "pilot", "words"), [
    ({"time": 7200.0}, {}, "asks for 120 minutes, a pilot gives a job less than 115"),
    ({}, {"time": 3600.0}, "asks for 60 minutes, a pilot gives a job less than 55"),
    ({"cpus": 2}, {}, "asks for 2 CPUs, a pilot has 1"),
    ({"memory_mb": 4001}, {}, "asks for 4001 MB, a pilot has 4000"),
    ({"gpus": 1, "max_gpus": 1}, {}, "asks for GPUs"),
    ({"gpus_by_memory": (GpuRule(4000, "gpu:1"),)}, {}, "asks for GPUs"),
    ({"gpus_by_memory": (GpuRule(3999, "gpu:1"),), "max_memory_mb": 3999}, {}, ""),
])  # fmt: skip
def test_a_queue_whose_jobs_no_pilot_can_take_is_told_why(
    tmp_path: Path, resources: dict[str, Any], pilot: dict[str, Any], words: str
) -> None:
    queue = Queue("tiny", "train", mode="pilot", resources=ResourceRules(**resources), pilot=PilotRules(**pilot))

    said = [each for each in advice(replace(read(tmp_path).site, queues=(queue,))) if "pilot" in each.found]

    assert [words in each.found and "tiny" in each.fix for each in said] == ([True] if words else [])


def test_a_workload_that_is_for_pilots_on_a_queue_that_is_not(tmp_path: Path) -> None:
    assert found(tmp_path) == []

    site = read(tmp_path).site
    train = replace(site.workloads["train"], mode="pilot")

    assert len(list(advice(replace(site, workloads={"train": train})))) == 1


@pytest.mark.parametrize(("more", "words"), [
    ('slurm = { poll_fastest = "90s" }\n', "poll_fastest is longer than poll_slowest"),
    ('slurm = { command_timeout = "5min" }\ntiming = { lease_expires = "5min" }\n', "a pass is ended after 300 s"),
    ('timing = { end_margin = "5s" }\n', "train may take longer to stop"),
])  # fmt: skip
def test_values_that_do_not_go_together(tmp_path: Path, more: str, words: str) -> None:
    (only,) = found(tmp_path, more)

    assert words in only


def test_a_rule_for_gpus_that_no_job_ever_reaches(tmp_path: Path) -> None:
    site = read(tmp_path, SITE.replace("up_to_mb = 192000", "up_to_mb = 100000")).site

    assert ["no job ever gets gpu:v100l:1" in each.found for each in advice(site)] == [True]


def test_memory_beyond_the_last_rule_for_gpus(tmp_path: Path) -> None:
    site = read(tmp_path, SITE.replace("max_memory_mb = 257000", "max_memory_mb = 300000")).site

    assert ["more than 257000 MB gets no GPU" in each.found for each in advice(site)] == [True]


def test_a_pilot_s_time_counts_less_its_margin() -> None:
    asked = default_resources(ResourceRules(time=Seconds(600)))

    assert unfit_for_pilots(asked, PilotRules(time=Seconds(751)), Timing()) is None
    assert unfit_for_pilots(asked, PilotRules(time=Seconds(750)), Timing()) is not None
