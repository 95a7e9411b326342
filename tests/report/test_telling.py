"""Whose doing a failure was, what a job's life was made of, whether all is well, and what stands on an axis."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.job.facts import Intent, Message, Outcome, SiteFault, Started
from worker.job.outcome import OUTCOMES, Result, Used
from worker.job.snapshot import AttemptFacts, JobFacts
from worker.job.spec import Resources
from worker.operate import all_well, blame, charts
from worker.operate.life import Stretch, life
from worker.operate.pilots import QueueRow
from worker.operate.status import Pass, Standing

# --- whose


@pytest.mark.parametrize(("result", "who"), [
    (Result("rejected", 1), "requester"),
    (Result("failed", 1, step="run", exit_code=3), "requester"),
    (Result("failed", 1, step="run", exit_code=127), "operator"),
    (Result("failed", 1, step="run", signal=11), "operator"),
    (Result("failed", 1, 'The input "Page" is not there (HTTP 404).', "fetch"), "requester"),
    (Result("failed", 1, 'The input "Page" could not be downloaded within 10 min (no answer).', "fetch", True), "site"),
    (Result("failed", 1, "The inputs could not be downloaded: the service's account was refused.", "fetch", True),
     "operator"),
    (Result("failed", 1, 'The program did not make the output "Report".', "pack"), "operator"),
    (Result("failed", 1, "The job ended before its program could begin.", "start", True), "site"),
    (Result("node_failed", 1), "site"), (Result("lost", 1), "site"), (Result("unknown", 0), "operator"),
])  # fmt: skip
def test_a_failure_is_for_whoever_can_do_something_about_it(result: Result, who: str) -> None:
    assert blame.whose(result.outcome, result) == who


def test_who_ran_short_is_asked_if_it_said_how_much_and_the_operator_if_site_toml_did() -> None:
    for outcome, name in (("out_of_memory", "memory_mb"), ("timed_out", "time")):
        assert blame.whose(outcome, Result(outcome, 1), asked=(name,)) == "requester"
        assert blame.whose(outcome, Result(outcome, 1)) == "operator"


def test_every_outcome_is_somebody_s() -> None:
    for outcome in (*OUTCOMES[1:], "unknown"):
        for step in ("", "fetch", "run", "pack", "start", "submit", "publish", "of a later version"):
            assert blame.whose(outcome, Result(outcome, 1, step=step)) in blame.WHO
    assert blame.whose("cancelled", Result("cancelled", 1), by_operator=True) == "operator"


# --- a job's life


def facts(*attempts: AttemptFacts, outcome_at: float = 500.0) -> JobFacts:
    message = Message(1, "q", "{}", 2, {}, 100.0)
    return JobFacts(message, 100.0, attempts=attempts, outcome=Outcome("succeeded", 1, "r", "job", outcome_at))


def attempt(number: int, at: float, result: Result) -> AttemptFacts:
    return AttemptFacts(number, Intent("g", "n", 0, Resources(1, 1, 1), at - 50), started=Started("1", 0, "n", at),
                        result=result)  # fmt: skip


def test_a_life_goes_from_the_message_to_the_answer_without_a_gap() -> None:
    used = Used({"fetch": 10.0, "run": 80.0, "pack": 5.0})
    one = attempt(1, 200.0, Result("succeeded", 1, used=used, ended_at=296.0))

    assert life(facts(one), 90.0, 301.0) == (
        Stretch("wait", 110.0), Stretch("fetch", 10.0), Stretch("run", 80.0), Stretch("pack", 5.0), Stretch("answer", 6.0),
    )  # fmt: skip


def test_an_attempt_whose_worker_was_killed_ran_until_its_end() -> None:
    one, two = (attempt(n, 200.0 * n, Result("node_failed", n, ended_at=200.0 * n + 30)) for n in (1, 2))

    assert [(s.step, s.seconds) for s in life(facts(one, two), 100.0, None)] == [
        ("wait", 100.0), ("run", 30.0), ("wait", 170.0), ("run", 30.0),
    ]  # fmt: skip


def test_a_job_that_never_ran_waited_and_clocks_that_disagree_make_no_stretch_negative() -> None:
    assert life(facts(outcome_at=160.0), 100.0, 161.0) == (Stretch("wait", 60.0), Stretch("answer", 1.0))
    assert life(facts(outcome_at=90.0), 100.0, 95.0) == (Stretch("wait", 0.0), Stretch("answer", 0.0))


# --- is all well

WELL = Standing(
    at=10_000.0, installation="x", max_in_flight=100, last_pass=Pass("login1", 9_990.0, False), site_fault=None,
    waiting={}, queue_faults={}, stopped={}, broker_away="", slurm_away="", active={"running": 1}, oldest_claimed_at=None,
    oldest_unanswered_since=None, done={}, outcomes={}, rejected=7, undelivered=0,
)  # fmt: skip


def test_all_is_well_where_nothing_is_away_and_says_if_nobody_was_asked() -> None:
    assert all_well.findings(WELL) == []
    assert all_well.headline([], asked=True) == "All is well"
    assert all_well.headline([], asked=False) == "All is well, as far as the files tell"


def test_an_answer_that_has_just_been_made_is_nothing_to_tell() -> None:
    assert all_well.findings(replace(WELL, active={"answering": 2}, oldest_unanswered_since=9_900.0)) == []


@pytest.mark.parametrize(("change", "words", "since"), [
    ({"site_fault": SiteFault("slurm", "w", 5.0)}, "Slurm has been away", 5.0),
    ({"site_fault": SiteFault("login", "w", 5.0)}, "The API has refused our login", 5.0),
    ({"site_fault": SiteFault("of a later version", "w", 5.0)}, "of a later version has been away", 5.0),
    ({"broker_away": "no route"}, "RabbitMQ gives no answer", None),
    ({"last_pass": None}, "No pass has run yet", None),
    ({"last_pass": Pass("login1", 9_000.0, False)}, "No pass has run", 9_000.0),
    ({"last_pass": Pass("login1", 9_000.0, True)}, "No pass has run", 9_000.0),
    ({"active": {"unanswered": 2}, "oldest_unanswered_since": 7.0}, "2 answers can't be sent", 7.0),
    ({"active": {"damaged": 1}}, "1 job can't be read", None),
    ({"active": {"answering": 2}, "oldest_unanswered_since": 7.0}, "An answer has been on its way", 7.0),
    ({"pilots": [QueueRow("q", unfit="they end at once")]}, "No pilot works for the queue q", None),
    ({"pilots": [QueueRow("q", damaged=["a.3.1"])]}, "A batch of the queue q can't be read", None),
    ({"undelivered": 1}, "1 answer could not be delivered", None),
    ({"stopped": {"train": "no such file"}}, "The workload train is stopped", None),
    ({"queue_faults": {"q": "no such queue"}}, "The queue q can't be read", None),
    ({"declined": ["Slurm declines ..."]}, "Slurm declines some jobs", None),
])  # fmt: skip
def test_what_is_not_well_is_said_first_with_since_when(change: dict[str, Any], words: str, since: Any) -> None:
    (found,) = all_well.findings(replace(WELL, **change))

    assert (found.words, found.since) == (words, since)
    assert all_well.headline([found], asked=False) == words


def test_what_stops_everything_comes_before_what_stops_a_job_and_slurm_is_named_once() -> None:
    found = all_well.findings(
        replace(WELL, undelivered=1, slurm_away="no", broker_away="no", site_fault=SiteFault("slurm", "w", 5.0))
    )

    assert [each.words for each in found] == [
        "Slurm has been away", "RabbitMQ gives no answer", "1 answer could not be delivered",
    ]  # fmt: skip


# --- axes and words


@given(st.floats(0, 10**7))
def test_an_axis_has_few_ticks_that_are_whole_numbers_and_ends_above_what_it_shows(most: float) -> None:
    for axis in (charts.of_counts, charts.of_times):
        ticks, words = axis(most)
        assert ticks[0] == 0 and most <= ticks[-1] and (2 <= len(ticks) <= 6 or most > 400 * 86400)
        assert all(words(tick).split()[0].isdigit() for tick in ticks)


@pytest.mark.parametrize(("most", "words"), [
    (3, ["0", "1", "2", "3"]), (47, ["0", "20", "40", "60"]), (0, ["0", "1"]),
])  # fmt: skip
def test_jobs_are_counted_in_ones_twos_and_fives(most: float, words: list[str]) -> None:
    ticks, word = charts.of_counts(most)

    assert [word(tick) for tick in ticks] == words


@pytest.mark.parametrize(("most", "words"), [
    (47 * 60, ["0", "15 min", "30 min", "45 min", "60 min"]), (5 * 3600, ["0", "2 h", "4 h", "6 h"]), (0.2, ["0", "1 s"]),
])  # fmt: skip
def test_times_are_counted_as_clocks_are(most: float, words: list[str]) -> None:
    ticks, word = charts.of_times(most)

    assert [word(tick) for tick in ticks] == words


def test_what_is_too_short_to_be_seen_is_drawn_all_the_same_and_the_whole_fills_its_width() -> None:
    drawn = charts.strip([(0, 10_000.0, "wait"), (1, 0.5, "fetch"), (2, 0.0, "run <b>")])

    widths = [float(part.split('"')[0].rstrip("%")) for part in drawn.split('width="')[1:]]
    assert sum(widths) == pytest.approx(100, abs=0.01) and min(widths) > 0.3
    assert "<b>" not in drawn
