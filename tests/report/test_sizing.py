"""What jobs asked for against what they needed: nothing is advised that the jobs do not bear out."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.test_history import past, tried
from worker.config import parse_duration
from worker.operate import sizing
from worker.operate.history import Past
from worker.settings import ResourceRules, Seconds


def advice(*jobs: Past) -> list[str]:
    return list(sizing.advice(sizing.usage(jobs)))


def lines(*jobs: Past, **more: Any) -> list[str]:
    rules = ResourceRules(**{"memory_mb": 16000, "time": Seconds(21600), **more})
    return sizing.site_lines(jobs, {"q": rules})


def short(**more: Any) -> Past:
    return past(tried(outcome="out_of_memory", **more), outcome="out_of_memory", queue="q")


def test_who_asks_for_far_too_much_is_told_what_would_have_covered_them() -> None:
    assert advice(*[past(tried())] * 40) == [
        "binarize with 16 GB: 95 % of 40 jobs needed at most 1.2 GB in their largest process. "
        "1.5 GB would have covered 40 of them, with a quarter to spare.",
        "binarize with 6 h: 95 % of 40 jobs needed at most 5 min. "
        "10 min would have covered 40 of them, with a quarter to spare.",
    ]


@pytest.mark.parametrize("jobs", [
    [past(tried())] * 9,
    [past(tried(memory_mb=None, seconds=None))] * 40,
    [past(tried(memory_mb=9000.0, seconds=11000.0))] * 40,
    [past(tried(asked_memory_mb=100, memory_mb=40.0, asked_seconds=60, seconds=1.0))] * 40,
    [past(tried(), outcome="failed")] * 40,
])  # fmt: skip
def test_no_advice_is_given_where_few_succeeded_or_needed_less_or_less_can_not_be_asked_for(jobs: list[Past]) -> None:
    assert advice(*jobs) == []


def test_a_job_that_ran_short_counts_against_what_it_asked_for_itself_and_not_against_others() -> None:
    asked_little = [short(asked_memory_mb=500, seconds=None)] * 12

    said = advice(*[past(tried(seconds=None))] * 40, *asked_little)

    assert said == [
        "binarize with 16 GB: 95 % of 40 jobs needed at most 1.2 GB in their largest process. "
        "1.5 GB would have covered 40 of them, with a quarter to spare.",
        "binarize with 500 MB: 12 of 12 jobs ran out of memory, so how much would do is not known yet. "
        "Give more, then look again.",
    ]


def test_what_a_second_attempt_needed_is_known() -> None:
    again = past(tried(outcome="out_of_memory"), tried(asked_memory_mb=32000, memory_mb=20000.0, seconds=None))

    (said,) = advice(*[again] * 12)

    assert said.startswith("binarize with 16 GB: 12 of 12 jobs ran out of memory. 95 % of 12 jobs needed at most 20 GB")
    assert "32 GB would have covered 12 of them" in said


def test_one_that_ran_out_though_its_largest_process_had_little_needed_more_than_it_asked_for() -> None:
    again = past(tried(outcome="out_of_memory", memory_mb=100.0), tried(asked_memory_mb=32000, memory_mb=100.0))

    assert sizing.need(again, sizing.MEMORY) == pytest.approx(16160)


def test_lines_of_site_toml_are_of_those_jobs_alone_that_had_its_defaults() -> None:
    own = [past(tried(memory_mb=9000.0, seconds=9000.0), queue="q", asked=("memory_mb", "time"))] * 40
    other = [past(tried(asked_memory_mb=4000, asked_seconds=3600), queue="q")] * 40

    assert lines(*own, *other) == []
    assert lines(*own, *other, *[past(tried(), queue="q")] * 12) == [
        '# below name = "q"',
        "[queues.resources]",
        "memory_mb = 1500  # 16000 now; this would have covered 12 of 12 jobs",
        'time = "10min"  # "6h" now; this would have covered 12 of 12 jobs',
    ]


def test_a_default_has_to_do_for_each_workload_of_its_queue_also_for_a_seldom_one() -> None:
    often, seldom = past(tried(), queue="q"), past(tried(memory_mb=7000.0, seconds=None), queue="q", workload="rare")

    said = lines(*[often] * 200, seldom)

    assert not [line for line in said if line.startswith("memory_mb")], "of 201 jobs it is less than 5 %"


def test_a_default_of_which_too_many_ran_out_is_raised_and_called_a_guess() -> None:
    said = lines(*[short()] * 12, max_memory_mb=16000)

    assert said[2:] == [
        "memory_mb = 32000  # 16000 now, of which 12 of 12 jobs ran short; a guess: look again afterwards",
        "max_memory_mb = 32000  # 16000 now",
    ]


@given(
    used=st.lists(st.floats(1, 10**6), min_size=10, max_size=60),
    asked=st.integers(100, 10**6),
    ran_out=st.integers(0, 9),
)
def test_what_is_advised_covers_95_of_100_as_it_says(used: list[float], asked: int, ran_out: int) -> None:
    """Those that ran out are never counted as covered."""
    jobs = [past(tried(asked_memory_mb=asked, memory_mb=each, seconds=None)) for each in used]
    fit = sizing.fit([*jobs, *[short(asked_memory_mb=asked)] * ran_out], sizing.MEMORY)

    assert fit.measured == len(used) + ran_out and fit.short == ran_out
    if fit.enough is not None:
        assert fit.covers == sum(each * 1.25 <= fit.enough for each in used) >= math.floor(0.95 * fit.measured)
        assert fit.enough <= asked / 2 or (fit.enough > asked and ran_out > 0.05 * fit.measured)


@given(st.floats(1, 10**7))
def test_what_was_needed_is_rounded_up_and_never_down(needed: float) -> None:
    for kind in (sizing.MEMORY, sizing.TIME):
        rounded = sizing._no_finer(needed, kind.steps)
        assert needed <= rounded <= needed * 1.5 + 1


@given(st.integers(1, 10**7))
def test_a_time_is_written_as_site_toml_takes_it(seconds: int) -> None:
    assert parse_duration(sizing._as_written(seconds).strip('"')) == seconds
