"""When jobs of a shape that Slurm declined are tried again, how many together, and who is blamed in the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

import pytest

from worker.job.facts import Shape
from worker.job.spec import Resources
from worker.login.shapes import (
    Ask,
    GiveUp,
    Hold,
    Try,
    after_answer,
    after_decline,
    after_taken,
    forgotten,
    goes_first,
    is_kept_room,
    is_worth_asking,
    next_step,
    sentence,
    without_objection,
)
from worker.settings import DAY, HOUR, Timing

TIMING = Timing()
ASKED = Resources(cpus=2, memory_mb=200, time_seconds=300)
NOW = 1_700_000_000.0


def declined(
    before: Optional[Shape] = None, count: int = 1, now: float = NOW, in_slurm: int = 0, by_itself: bool = True
) -> Shape:
    return after_decline(before, ASKED, count, "QOSMaxCpuPerJobLimit", TIMING, now, in_slurm, by_itself)


def answered(shape: Shape, objection: str = "", now: float = NOW, in_slurm: int = 0) -> Shape:
    return after_answer(shape, objection, TIMING, now, in_slurm)


def test_what_was_never_declined_is_tried_in_any_number() -> None:
    assert next_step(None, TIMING, NOW, 0) == Try()


def test_what_is_declined_as_an_array_is_halved_until_a_single_one_is_declined() -> None:
    shape, sizes = declined(count=12), []
    while isinstance(step := next_step(shape, TIMING, NOW, 0), Try):
        sizes.append(step.most)
        shape = declined(shape, step.most)

    assert sizes == [6, 3, 1]
    assert next_step(shape, TIMING, NOW, 0) == Hold(NOW + TIMING.adopt_after)


def test_how_many_are_taken_together_is_remembered_for_a_while() -> None:
    shape = after_taken(declined(count=12), TIMING, NOW, 6)

    assert next_step(shape, TIMING, NOW + HOUR - 1, 6) == Try(6)
    assert next_step(shape, TIMING, NOW + HOUR, 6) == Try()


def test_one_is_tried_for_all_of_its_shape_after_a_pause_that_grows_up_to_an_hour() -> None:
    shape, now, pauses = declined(), NOW, []
    for _ in range(8):
        step = next_step(shape, TIMING, now, 0)
        assert isinstance(step, Hold)
        pauses.append((step.until - now) / 60)
        now = step.until
        assert next_step(shape, TIMING, now, 0) == Try(1)
        shape = declined(shape, now=now)

    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]


def test_patience_counts_from_the_first_decline_and_slurm_is_asked_before_the_job_is_blamed() -> None:
    shape = replace(declined(), tries=20)
    later = NOW + TIMING.patience

    assert next_step(shape, TIMING, later, 0) == Ask()
    shape = answered(shape, now=later)
    assert next_step(shape, TIMING, later, 0) == Try(1)
    shape = declined(shape, now=later)
    assert next_step(shape, TIMING, later, 0) == GiveUp(job_at_fault=True)
    assert next_step(shape, TIMING, later + DAY, 0, declined_at=later) == GiveUp(job_at_fault=True)


def test_where_the_smallest_job_is_declined_too_the_site_is_at_fault_and_it_is_tried_every_two_minutes() -> None:
    shape = answered(declined(), "Required partition not available")
    for n in range(1, 10):
        shape = declined(shape, now=NOW + n * 120)
        assert next_step(shape, TIMING, NOW + n * 120 + 119, 0) == Hold(NOW + n * 120 + 120)
    later = NOW + TIMING.patience
    shape = answered(shape, "Required partition not available", later)

    assert next_step(shape, TIMING, later, 0) == GiveUp(job_at_fault=False)
    assert next_step(shape, TIMING, later, 0, claimed_at=NOW + 1) == Try(1)  # this one has not waited for as long


def test_while_slurm_is_full_of_our_jobs_time_does_not_count_and_as_many_are_tried_as_ended() -> None:
    shape = answered(declined(in_slurm=5), "AssocMaxSubmitJobLimit", in_slurm=5)

    assert isinstance(next_step(shape, TIMING, NOW, 5), Hold)
    assert next_step(shape, TIMING, NOW, 3) == Try(2)
    taken = after_taken(shape, TIMING, NOW, 5)
    assert isinstance(next_step(taken, TIMING, NOW, 5), Hold)
    assert next_step(taken, TIMING, NOW, 4) == Try(1)
    assert next_step(declined(shape, count=2, in_slurm=3), TIMING, NOW, 3) == Try(1)  # halved here too
    later = answered(shape, "AssocMaxSubmitJobLimit", NOW + 2 * TIMING.patience, in_slurm=5)
    assert not isinstance(next_step(later, TIMING, NOW + 2 * TIMING.patience, 5), GiveUp)


def test_where_slurm_has_jobs_of_ours_a_try_waits_for_one_of_them_to_end_for_as_long_as_its_pause() -> None:
    shape = answered(declined(in_slurm=5), in_slurm=5)
    due = NOW + TIMING.adopt_after

    assert next_step(shape, TIMING, due - 1, 4) == Hold(due)
    assert next_step(shape, TIMING, due, 5) == Hold(due + TIMING.adopt_after)
    assert next_step(shape, TIMING, due, 4) == Try(1)
    assert next_step(shape, TIMING, due + TIMING.adopt_after, 5) == Try(1)
    assert next_step(answered(declined()), TIMING, due, 5) == Try(1), "none of ours was in its way"


def test_a_shape_that_is_declined_alone_goes_first_when_it_is_tried() -> None:
    assert goes_first(answered(declined(in_slurm=5), in_slurm=5))
    assert not any(map(goes_first, (None, declined(count=4), answered(declined(), "no"))))


def test_a_shape_that_is_taken_again_is_forgotten() -> None:
    assert after_taken(declined(), TIMING, NOW, 1) is None


def test_slurm_is_asked_about_the_smallest_job_once_an_hour() -> None:
    assert not is_worth_asking(declined(count=4), TIMING, NOW)
    assert is_worth_asking(declined(), TIMING, NOW)
    assert not is_worth_asking(answered(declined()), TIMING, NOW + HOUR - 1)
    assert is_worth_asking(answered(declined()), TIMING, NOW + HOUR)
    assert is_worth_asking(answered(declined()), TIMING, NOW - 1)
    assert is_worth_asking(without_objection(answered(declined(), "no"), NOW), TIMING, NOW)


def test_a_clock_that_was_set_back_holds_nobody_for_longer_than_an_hour() -> None:
    assert next_step(replace(declined(), again_at=NOW + 5 * HOUR), TIMING, NOW, 0) == Try(1)
    assert forgotten(declined(), TIMING, NOW - 2 * DAY) and forgotten(declined(), TIMING, NOW + 2 * DAY)
    assert not forgotten(declined(), TIMING, NOW + HOUR)


@pytest.mark.parametrize(("shape", "words"), [
    (declined(), "Slurm declines jobs of 2 CPUs, 200 MB, 5 min: QOSMaxCpuPerJobLimit; tried again at"),
    (declined(count=12), "at most 6 are submitted at a time"),
    (answered(declined(), "no"), "and any other job too"),
    (answered(declined(in_slurm=3), "no", in_slurm=3), "Slurm has 3 of our jobs and takes no more"),
])  # fmt: skip
def test_people_read_what_waits_and_why(shape: Shape, words: str) -> None:
    assert words in sentence(shape, NOW)


@pytest.mark.parametrize("by_itself", [True, False])
def test_room_is_kept_unless_slurm_says_that_the_job_is_too_large_by_itself(by_itself: bool) -> None:
    shape: Optional[Shape] = None
    for turn in range(5):
        shape = declined(shape, now=NOW + turn, in_slurm=8, by_itself=by_itself)

    assert shape is not None and is_kept_room(shape) is not by_itself
