"""When a job is tried again, and with what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.worker.examples import SPEC
from worker.job.outcome import OUTCOMES, Result
from worker.job.retry import is_final, larger, next_attempt_at
from worker.job.spec import Caps, JobSpec, Resources
from worker.settings import GpuRule, RetryPolicy

POLICY = RetryPolicy(attempts=3, on=("node_failed", "preempted", "fetch"), wait=60)
HAD = Resources(cpus=2, memory_mb=16000, time_seconds=7200)
CAPS = Caps(memory_mb=50000, time_seconds=20000)


def spec(caps: Caps = CAPS, **policy: object) -> JobSpec:
    return replace(SPEC, retry=replace(POLICY, **policy), caps=caps)  # type: ignore[arg-type]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_only_ends_that_the_policy_names_are_tried_again(outcome: str) -> None:
    assert is_final(Result(outcome, attempt=1), spec(), HAD) == (outcome not in ("node_failed", "preempted"))


@pytest.mark.parametrize(("step", "may_work_again", "final"), [
    ("fetch", True, False), ("fetch", False, True), ("run", True, True), ("run", False, True), ("pack", True, True),
    ("", True, True),
])  # fmt: skip
def test_a_failed_step_is_tried_again_where_its_cause_may_pass(step: str, may_work_again: bool, final: bool) -> None:
    assert is_final(Result("failed", 1, step=step, may_work_again=may_work_again), spec(), HAD) == final


@pytest.mark.parametrize("on", [("no_result",), ("fetch", "start", "pack"), ()])
@pytest.mark.parametrize("may_work_again", [True, False])
def test_what_had_begun_and_left_no_result_is_tried_again_for_a_word_of_its_own(
    on: tuple[str, ...], may_work_again: bool
) -> None:
    """A program that failed by itself leaves a result, and is never tried again."""
    again = not is_final(Result("failed", 1, step="run", may_work_again=may_work_again), spec(on=on), HAD)

    assert again == (may_work_again and on == ("no_result",))


@pytest.mark.parametrize(("attempts", "attempt", "final"), [
    (3, 1, False), (3, 2, False), (3, 3, True), (3, 4, True), (1, 1, True), (0, 1, True),
])  # fmt: skip
def test_the_last_attempt_is_final(attempts: int, attempt: int, final: bool) -> None:
    assert is_final(Result("node_failed", attempt), spec(attempts=attempts), HAD) == final


def test_a_site_that_tries_nothing_again_takes_every_end_as_final() -> None:
    assert is_final(Result("node_failed", 1), spec(on=()), HAD)


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 60), (2, 120), (3, 240), (10, 60 * 512)])
def test_the_wait_doubles_with_each_attempt(attempt: int, seconds: float) -> None:
    assert next_attempt_at(Result("node_failed", attempt, ended_at=1000.0), POLICY) == 1000.0 + seconds


def test_an_end_without_a_time_is_tried_again_at_once() -> None:
    assert next_attempt_at(Result("node_failed", 1), POLICY) < 1000


# --- more than before


@pytest.mark.parametrize(("had", "then"), [(16000, 32000), (30000, 50000), (50000, 50000), (60000, 60000)])
def test_a_job_that_ran_out_of_memory_gets_twice_as_much_up_to_the_cap(had: int, then: int) -> None:
    assert larger(replace(HAD, memory_mb=had), "out_of_memory", spec()) == replace(HAD, memory_mb=then)


@pytest.mark.parametrize(("had", "then"), [(7200, 14400), (15000, 20000), (20000, 20000)])
def test_a_job_that_ran_out_of_time_gets_twice_as_much_up_to_the_cap(had: int, then: int) -> None:
    assert larger(replace(HAD, time_seconds=had), "timed_out", spec()) == replace(HAD, time_seconds=then)


@pytest.mark.parametrize("outcome", ["node_failed", "preempted", "failed", "lost"])
def test_other_ends_change_nothing(outcome: str) -> None:
    assert larger(HAD, outcome, spec()) == HAD


@pytest.mark.parametrize("outcome", ["out_of_memory", "timed_out"])
def test_more_of_the_same_is_not_tried_once_the_cap_is_reached(outcome: str) -> None:
    job = spec(on=("out_of_memory", "timed_out"))
    at_the_cap = replace(HAD, memory_mb=CAPS.memory_mb, time_seconds=CAPS.time_seconds)

    assert not is_final(Result(outcome, 1), job, HAD)
    assert is_final(Result(outcome, 1), job, at_the_cap)


def test_gpus_that_follow_from_the_memory_follow_it() -> None:
    rules = (GpuRule(16000, "gpu:1"), GpuRule(64000, "gpu:v100l:1"))
    job = spec(caps=replace(CAPS, gpus_by_memory=rules))

    assert larger(replace(HAD, gres="gpu:1"), "out_of_memory", job).gres == "gpu:v100l:1"
    assert larger(replace(HAD, gres="gpu:3"), "out_of_memory", spec()).gres == "gpu:3"
