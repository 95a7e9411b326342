"""Where a job stands is told by the names of its files, and agrees with what the judge would do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Optional

import pytest

from tests.worker.examples import NOW, SPEC
from tests.worker.login.situations import ended, intended, job, outcome, result, started, submitted
from tests.worker.operate.ground import jobs_in, put
from worker.folder.outline import stage_at
from worker.job.facts import Asked, Cancel, Delivered, Held, NotTaken, Undeliverable
from worker.job.outcome import OUTCOMES
from worker.job.snapshot import AttemptFacts, JobFacts
from worker.job.stage import (
    ACTIVE,
    ENDED_STATES,
    OUTCOME_WORDS,
    STATES,
    Mark,
    Outline,
    Stage,
    stage_of,
    words_in_help,
)
from worker.settings import RetryPolicy

AGAIN = replace(SPEC, retry=RetryPolicy(attempts=2, on=("node_failed",)))
CANCEL = Cancel("expired", "It took too long.", NOW)
SITUATIONS: dict[str, tuple[str, JobFacts]] = {
    "not read yet": ("claimed", job(spec=None)),
    "read": ("claimed", job()),
    "about to be submitted": ("claimed", job(AttemptFacts(1))),
    "sbatch was unclear": ("unclear", job(intended())),
    "in Slurm": ("pending", job(submitted())),
    "at work": ("running", job(started())),
    "at work before sbatch's answer was noted": ("running", job(replace(started(), submission=None))),
    "asked to end": ("cancelling", job(submitted(cancel=CANCEL))),
    "ended without a result": ("ending", job(started(ended=ended("node_failed")))),
    "with a final result": ("ending", job(started(result=result()))),
    "whose result Slurm must confirm": ("ending", job(started(result=result(needs_verdict=True)))),
    "that may be tried again": ("retrying", job(started(result=result("node_failed")), spec=AGAIN)),
    "that is being tried again": ("retrying", job(started(result=result("node_failed")), AttemptFacts(2), spec=AGAIN)),
    "in its second attempt": ("pending", job(started(result=result("node_failed")), submitted(2), spec=AGAIN)),
    "that was rejected": ("ending", job(AttemptFacts(1, result=result("rejected")), spec=None)),
    "with an outcome": ("answering", job(started(result=result()), outcome=outcome("job"))),
    "whose answer nobody takes": (
        "unanswered", job(started(), outcome=outcome("job"), not_taken=NotTaken(NOW, "no queue", 3, NOW)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_state_of_a_job(situation: str, tmp_path: Path) -> None:
    word, facts = SITUATIONS[situation]

    state = stage_at(str(put(jobs_in(tmp_path), "a", facts).path))

    assert state is not None and state.word == word
    assert state.attempt == len(facts.attempts)


def test_a_job_that_is_held_is_so_until_it_has_a_result(tmp_path: Path) -> None:
    held = ("held.json", Held("there is no program", NOW))
    facts = {"held": job(), "ending": job(started(result=result()))}

    for word, each in facts.items():
        state = stage_at(str(put(jobs_in(tmp_path / word), "a", each, "active", held).path))
        assert state is not None and state.word == word


@pytest.mark.parametrize(
    "fact", [("delivered.json", Delivered("q", NOW)), ("undeliverable.json", Undeliverable("x", NOW))]
)
def test_a_job_that_is_over_for_its_requester_only_waits_to_be_put_away(
    fact: tuple[str, object], tmp_path: Path
) -> None:
    put_there = put(jobs_in(tmp_path), "a", job(started(), outcome=outcome("job")), "active", fact)

    state = stage_at(str(put_there.path))

    assert state is not None and state.word == "closing"


@pytest.mark.parametrize("facts", [job(spec=None), job(), job(intended()), job(submitted()), job(started())])
def test_a_job_that_an_operator_wants_gone_is_being_cancelled_wherever_it_stands(
    facts: JobFacts, tmp_path: Path
) -> None:
    asked = ("cancel_asked.json", Asked("mary@login1", NOW))

    state = stage_at(str(put(jobs_in(tmp_path), "a", facts, "active", asked).path))

    assert state is not None and state.word == "cancelling"


def test_a_folder_without_its_message_is_no_job_yet_and_one_that_has_begun_is_damaged(tmp_path: Path) -> None:
    being_claimed = jobs_in(tmp_path).active / "a"
    being_claimed.mkdir()
    lost_it = put(jobs_in(tmp_path), "b", job())
    lost_it.message.path.unlink()

    state = stage_at(str(lost_it.path))

    assert stage_at(str(being_claimed)) is None
    assert state is not None and state.word == "damaged"


def test_a_job_that_moves_away_while_it_is_looked_at_is_passed_over(tmp_path: Path) -> None:
    assert stage_at(str(tmp_path / "gone")) is None


def test_a_job_whose_result_can_t_be_read_is_damaged(tmp_path: Path) -> None:
    put_there = put(jobs_in(tmp_path), "a", job(started(result=result())))
    put_there.attempt(1).result.path.write_text("{")

    state = stage_at(str(put_there.path))

    assert state is not None and state.word == "damaged"


def test_since_when_is_told_by_the_fact_that_tells_where_it_stands() -> None:
    times: dict[Mark, float] = {"message": 1, "attempts": 2, "attempt": 2, "intent": 3, "submission": 4, "folder": 9}

    def stage(more: dict[Mark, float]) -> Optional[Stage]:
        times.update(more)
        return stage_of(Outline(ACTIVE, times, 1, times.__getitem__, lambda: False))

    assert stage({}) == Stage("pending", 4, 1)
    assert stage({"started": 5}) == Stage("running", 5, 1)
    assert stage({"cancel_asked": 6, "held": 3}) == Stage("cancelling", 6, 1)
    assert stage({"ended": 7}) == Stage("ending", 7, 1)
    assert stage({"outcome": 8, "not_taken": 8.5}) == Stage("unanswered", 8.5, 1)


def test_a_job_that_was_put_away_has_been_so_since_its_answer_was_settled() -> None:
    for word in ENDED_STATES:
        times: dict[Mark, float] = {"message": 1, "outcome": 2, "delivered": 3}
        assert stage_of(Outline(word, times, 1, times.__getitem__, lambda: False)) == Stage(word, 3, 1)
        del times["delivered"]
        assert stage_of(Outline(word, times, 1, times.__getitem__, lambda: False)) == Stage(word, 1, 1)


def test_every_word_of_the_table_is_explained_in_the_help() -> None:
    words = words_in_help()

    assert set(OUTCOME_WORDS) == set(OUTCOMES)
    assert all(f"  {word} " in words for word in [*STATES, *OUTCOMES])
    assert {word for word, _ in SITUATIONS.values()} | {"closing", "damaged", "declined", "held"} == set(STATES)
