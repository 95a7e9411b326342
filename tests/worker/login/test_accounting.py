"""A site that refuses long questions to accounting is asked piece by piece, and nobody is missing before all were asked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional, cast

import pytest

from scheduler import JobView, Scheduler, TooWide
from tests.worker.examples import NOW
from tests.worker.login.situations import seen, submitted
from worker.job.facts import Started
from worker.login import accounting
from worker.login.pass_state import Faults
from worker.login.reconcile import alive_at

HOUR = 3600.0
DAY = 24 * HOUR


class Accounting:
    """Refuses what is longer than `longest`."""

    def __init__(self, longest: float) -> None:
        self.longest, self.now = longest, NOW
        self.asked: list[tuple[float, float]] = []
        self.ended_at = 0.0

    def history(self, names: Sequence[str], since: float, until: Optional[float] = None) -> list[JobView]:
        until = self.now if until is None else until
        if until - since > self.longest:
            raise TooWide("Too wide of a date range in query")
        self.asked.append((since, until))
        return [seen("COMPLETED")] if since <= self.ended_at <= until else []


def test_of_an_attempt_that_has_begun_nothing_is_asked_of_the_days_in_which_it_waited() -> None:
    waits = submitted()
    assert waits.intent is not None

    assert alive_at(waits) == waits.intent.at
    assert (
        alive_at(replace(waits, started=Started("7", 0, "n1", waits.intent.at + 6 * DAY))) == waits.intent.at + 6 * DAY
    )


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    return tmp_path / "history.json"


def ask(noted: Path, slurm: Accounting, since: float, names: Sequence[str] = ("a",)) -> tuple[int, Collection[str]]:
    """One pass: how many rows it got, and of whom this is all. None of both where it was refused."""
    try:
        views, clear = accounting.ask(cast(Scheduler, slurm), noted, Faults(), names, since, slurm.now)
    except TooWide:
        return 0, ()
    return len(views), clear


def test_without_a_limit_one_question_is_enough(noted: Path) -> None:
    slurm = Accounting(longest=float("inf"))

    assert ask(noted, slurm, NOW - 9 * DAY) == (0, {"a"})
    assert slurm.asked == [(NOW - 10 * DAY, NOW)], "with a day for clocks that differ"
    assert not noted.exists()


def test_after_the_clock_was_set_back_a_day_is_asked_about_all_the_same(noted: Path) -> None:
    slurm = Accounting(longest=float("inf"))

    ask(noted, slurm, NOW + 5 * DAY)

    assert slurm.asked == [(NOW - DAY, NOW)]


def test_under_a_limit_all_of_it_is_asked_the_newest_first_before_anything_follows(noted: Path) -> None:
    slurm = Accounting(longest=DAY)
    passes = []
    for number in range(8):
        slurm.now = NOW + 60 * number
        passes.append(ask(noted, slurm, NOW - 4 * DAY))

    *before, (_, clear) = passes[:6]
    assert not any(names for _, names in before) and clear == {"a"}
    assert slurm.asked[0][1] == NOW + 60, "the first question was refused"
    for newer, older in zip(slurm.asked, slurm.asked[1:5]):
        assert older[1] == newer[0] and older[1] - older[0] <= DAY
    assert slurm.asked[4][0] <= NOW - 4 * DAY and not passes[6][1], "then it begins anew"


def test_an_end_of_just_now_is_found_by_the_first_piece(noted: Path) -> None:
    slurm = Accounting(longest=DAY)
    slurm.ended_at = NOW - 100
    ask(noted, slurm, NOW - 30 * DAY)

    rows, clear = ask(noted, slurm, NOW - 30 * DAY)

    assert rows == 1 and not clear


def test_of_a_name_that_newer_pieces_were_not_about_nothing_follows(noted: Path) -> None:
    slurm = Accounting(longest=DAY)
    for number in range(6):
        slurm.now = NOW + 60 * number
        _, clear = ask(noted, slurm, NOW - 4 * DAY, ["a"] if number < 3 else ["a", "b"])

    assert clear == {"a"}


def test_a_limit_that_is_no_day_is_found_out(noted: Path) -> None:
    slurm = Accounting(longest=2 * HOUR)
    for _ in range(20):
        _, clear = ask(noted, slurm, NOW - 5 * HOUR)
        if clear:
            break
        slurm.now += 60

    assert clear == {"a"} and all(until - since <= 2 * HOUR for since, until in slurm.asked)


@pytest.mark.parametrize("text", ["{", "[]", '{"longest": 86340, "names": ["a"], "down_to": 9e9}'])
def test_a_note_that_can_not_be_right_costs_only_another_question(noted: Path, text: str) -> None:
    noted.write_text(text)
    slurm = Accounting(longest=DAY)

    for _ in range(9):
        _, clear = ask(noted, slurm, NOW - 2 * DAY)
        if clear:
            break

    assert clear == {"a"}
