"""What the past adds up to: counted by day, and sampled fairly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.operate import history
from worker.operate.history import Past, Try

DAY = "2026-11-20"


def tried(**more: Any) -> Try:
    known: dict[str, Any] = {
        "outcome": "succeeded", "node": "n1", "asked_memory_mb": 16000, "asked_seconds": 21600, "waited": 60.0,
        "seconds": 300.0, "memory_mb": 1200.0,
    }  # fmt: skip
    return Try(**{**known, **more})


def past(*tries: Try, **more: Any) -> Past:
    known: dict[str, Any] = {
        "job": "j", "day": DAY, "workload": "binarize", "outcome": "succeeded", "cause": "", "reason": "",
        "claimed_at": 0.0, "ended_at": 1.0,
    }  # fmt: skip
    return Past(**{**known, "tries": tries, **more})


# --- counts


def test_jobs_that_no_pass_counted_are_told_as_unknown() -> None:
    counted = {"a": {"succeeded": 3, "failed": 0}, "b": {"failed": 1, "of a later version": 1}}

    days = history.by_day(["a", "b", "c"], counted, {"a": 3, "b": 5})

    assert [dict(day.outcomes) for day in days] == [{"succeeded": 3}, {"failed": 1, "unknown": 4}, {}], (
        "one of four by its word"
    )
    assert [day.total for day in days] == [3, 5, 0]


@given(st.lists(st.integers(0, 10**6), max_size=20), st.integers(0, 10**4))
def test_a_sample_is_never_too_large_and_takes_as_much_of_one_day_as_of_another(sizes: list[int], most: int) -> None:
    shares = history.shares(sizes, most)

    assert sum(shares) == min(most, sum(sizes))
    assert all(share <= size for share, size in zip(shares, sizes))
    cut = [share for share, size in zip(shares, sizes) if share < size]
    assert not cut or max(shares) - min(cut) <= 1


@given(st.lists(st.floats(0, 10**6), min_size=1))
def test_half_of_the_waits_are_at_most_the_median_and_nine_in_ten_at_most_the_other(values: list[float]) -> None:
    found = history.spread(values)

    assert found is not None and found.count == len(values) and found.median <= found.p90
    assert sum(value <= found.median for value in values) * 2 >= len(values)
    assert sum(value <= found.p90 for value in values) * 10 >= len(values) * 9


def test_waits_are_told_by_the_day_on_which_the_job_was_put_away() -> None:
    jobs = [past(tried(waited=30.0), queued=5.0), past(tried(waited=None)), past(tried(), day="2026-11-19", queued=7.0)]

    first, second = history.looked(jobs, ["2026-11-19", DAY], 3, 0).waits

    assert first.queue == history.Spread(1, 7.0, 7.0)
    assert second.queue == history.Spread(1, 5.0, 5.0) and second.slurm == history.Spread(1, 30.0, 30.0)


def test_failures_are_grouped_by_cause_with_the_last_one_s_words() -> None:
    failed = past(cause="failed in run, exit code 3", outcome="failed", whose="requester")

    causes = history.looked(
        [past(), failed, replace(failed, reason="late", ended_at=9.0, job="k"), replace(failed, cause="lost")],
        [DAY],
        4,
        0,
    ).causes

    assert [(each.cause, each.jobs, each.last_reason, each.last_job, each.last_jobs) for each in causes] == [
        ("failed in run, exit code 3", 2, "late", "k", ("k", "j")), ("lost", 1, "", "j", ("j",)),
    ]  # fmt: skip


def test_the_same_cause_is_told_apart_by_whose_it_is() -> None:
    of_both = [past(cause="timed out", outcome="timed_out", whose=who) for who in ("operator", "requester")]

    causes = history.looked(of_both, [DAY], 2, 0).causes

    assert [(each.whose, each.jobs) for each in causes] == [("operator", 1), ("requester", 1)]


def test_a_node_is_told_by_its_attempts_also_of_jobs_that_succeeded_in_the_end() -> None:
    jobs = [
        past(tried(outcome="node_failed", node="n2"), tried()),
        past(tried(node="n2")),
        past(tried(outcome="cancelled")),
    ]

    assert history.looked(jobs, [DAY], 3, 0).nodes == [history.Node("n2", 2, 1)]


@pytest.mark.parametrize(("known", "words"), [
    (("succeeded",), ""), (("out_of_memory", "run", 1), "out of memory"), (("failed", "fetch"), "failed in fetch"),
    (("failed", "run", 3), "failed in run, exit code 3"), (("failed", "run", None, 11), "failed in run, signal 11"),
    (("unknown",), "unknown"),
])  # fmt: skip
def test_a_cause_is_told_in_few_words(known: tuple[Any, ...], words: str) -> None:
    assert history.cause_of(*known) == words
