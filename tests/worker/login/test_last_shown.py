"""Accounting is asked about the time since squeue last showed what it shows no more: a hint, kept in the note that each pass
writes anyway."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import pytest

from scheduler import JobView, TooWide, Unavailable
from tests.worker.login.test_turns_of_work import Clock, Cluster, Site, clock, place
from worker.job.facts import Started

HOUR = 3600.0
DAY = 24 * HOUR
__all__ = ["clock", "place"]


class Accounting(Cluster):
    """Refuses what is longer than `longest`."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.longest, self.away = float("inf"), False
        self.ended_at: dict[str, float] = {}
        self.asked: list[float] = []
        """From when on, of each question that was answered."""

    def end(self, slurm_id: str) -> None:
        self.ended[slurm_id], self.ended_at[slurm_id] = "cancelled", self.clock.now

    def history(self, names: Sequence[str], since: float, until: Optional[float] = None) -> list[JobView]:
        if self.away:
            raise Unavailable("Problem talking to the database")
        until = self.clock.now if until is None else until
        if until - since > self.longest:
            raise TooWide("Too wide of a date range in query")
        self.asked.append(since)
        told = super().history(names, since, until)
        return [view for view in told if since <= self.ended_at.get(view.slurm_id, until) <= until]


class Story:
    def __init__(self, place: Path, clock: Clock) -> None:
        self.site, self.clock = Site(place / "site", clock, rate=10.0, burst=100), clock
        self.cluster = self.site.cluster = Accounting(clock)

    def submit(self, count: int = 1) -> list[str]:
        """Their ids in Slurm: elements of one array, if there are several."""
        for _ in range(count):
            self.site.ask_for(1)
        self.passes(2)
        return [slurm_id for slurm_id, _, _ in self.cluster.elements]

    def passes(self, count: int, pause: float = HOUR) -> None:
        for _ in range(count):
            self.clock.now += pause
            self.site.one_pass()

    def wait(self, days: int) -> float:
        """When squeue showed the jobs last."""
        self.passes(2 * days, 12 * HOUR)
        return self.clock.now

    def outcomes(self) -> list[str]:
        return [str(reply.headers["outcome"]) for reply in self.site.broker.sent]


@pytest.fixture
def story(place: Path, clock: Clock) -> Story:
    return Story(place, clock)


def test_what_has_waited_for_days_is_asked_about_since_squeue_showed_it_last(story: Story) -> None:
    (job,) = story.submit()
    shown = story.wait(days=6)

    story.cluster.end(job)
    story.passes(2, pause=60)

    assert story.cluster.asked[0] == shown - DAY, "with a day for clocks that differ"
    assert story.outcomes() == ["cancelled"]


def test_where_accounting_refuses_more_than_a_day_one_more_pass_is_enough(story: Story) -> None:
    (job,) = story.submit()
    story.wait(days=6)
    story.cluster.longest = DAY

    story.cluster.end(job)
    story.passes(3)

    assert story.outcomes() == ["cancelled"] and len(story.cluster.asked) == 1, "the first question was refused"


def test_the_hint_stays_while_accounting_is_away(story: Story) -> None:
    (job,) = story.submit()
    shown = story.wait(days=2)
    story.cluster.away = True

    story.cluster.end(job)
    story.wait(days=3)
    story.cluster.away = False
    story.passes(1)

    assert story.cluster.asked == [shown - DAY] and story.outcomes() == ["cancelled"]


def test_a_job_that_rang_before_it_vanished_has_its_hint_too(story: Story) -> None:
    (job,) = story.submit()
    shown = story.wait(days=2)
    (active,) = story.site.active()

    story.cluster.end(job)
    story.site.jobs.ring(active.id)
    story.passes(1)

    assert story.cluster.asked == [shown - DAY]


def test_without_the_note_it_is_asked_about_since_it_was_submitted(story: Story) -> None:
    (job,) = story.submit()
    submitted = story.clock.now - HOUR
    story.wait(days=6)

    story.site.jobs.standing.unlink()
    story.cluster.end(job)
    story.passes(2)

    assert story.cluster.asked[0] <= submitted - DAY and story.outcomes() == ["cancelled"]


def test_of_two_elements_of_an_array_the_one_that_vanished_first_is_found_though_the_other_was_shown_for_longer(
    story: Story,
) -> None:
    first, second = story.submit(2)
    shown = story.wait(days=2)
    story.cluster.away = True
    story.cluster.end(first)
    story.wait(days=3)
    story.cluster.end(second)
    story.cluster.away = False

    story.passes(2)

    assert story.cluster.asked[0] == shown - DAY and sorted(story.outcomes()) == ["cancelled", "cancelled"]


def test_what_squeue_showed_of_another_copy_says_nothing_about_the_one_that_began(story: Story) -> None:
    (job,) = story.submit()
    story.wait(days=2)
    (active,) = story.site.active()
    began = story.clock.now - 40 * HOUR

    active.attempt(1).started.claim(Started("777", 0, "n1", began))
    story.cluster.end(job)
    story.site.jobs.ring(active.id)
    story.passes(1)

    assert story.cluster.asked == [began - DAY]
