"""What a requester reads: plain sentences that say what happened and what to change."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Optional

import pytest

from slurm import states
from worker.job import sentences
from worker.job.outcome import OUTCOMES
from worker.job.spec import Resources

ASKED = Resources(cpus=2, memory_mb=16000, time_seconds=7200)
ALL = [
    *(sentences.of_end(outcome, asked, "3:0", "mary") for outcome in OUTCOMES for asked in (ASKED, None)),
    sentences.hopeless("it asks for too much"), sentences.refused("it asks for too much"),
    sentences.waited_too_long(7 * 86400), sentences.deadline_passed(), sentences.site_away("it is away", 3600),
    sentences.not_fetched("Image", 600, "HTTP 500"), sentences.exited(3, "no space"), sentences.exited(3, ""),
    sentences.killed("SIGKILL", "no space"), sentences.killed("SIGKILL", ""),
]  # fmt: skip


@pytest.mark.parametrize("sentence", ALL)
def test_a_sentence_is_one_plain_line_that_stands_between_others(sentence: str) -> None:
    assert re.fullmatch(r"[A-Z].*[.!]|.*Its last words: .*", sentence) and sentence.isprintable()
    assert not re.search(r"\s\s|(?<!\w)/\w|Traceback|None|\{", sentence)


@pytest.mark.parametrize(("outcome", "asked", "sentence"), [
    ("out_of_memory", ASKED, "The job used all of the 16000 MB it asked for and was stopped. Ask for more memory."),
    ("out_of_memory", None, "The job used all of its memory and was stopped. Ask for more memory."),
    ("timed_out", ASKED, "The job reached its time limit of 2 h and was stopped. Ask for more time."),
    ("timed_out", None, "The job reached its time limit and was stopped. Ask for more time."),
])  # fmt: skip
def test_a_limit_that_was_reached_is_named(outcome: str, asked: Optional[Resources], sentence: str) -> None:
    assert sentences.of_end(outcome, asked) == sentence


def test_how_far_a_program_was_when_its_time_was_up_is_told_in_its_own_words() -> None:
    said = sentences.timed_out(ASKED, progress="40% (epoch 6/15)")

    assert said == "The job reached its time limit of 2 h and was stopped at 40% (epoch 6/15). Ask for more time."


def test_memory_that_was_raised_is_not_called_asked_for() -> None:
    had = replace(ASKED, memory_mb=32000)

    assert "the 32000 MB it was given in the end" in sentences.of_end("out_of_memory", had, asked=ASKED)


@pytest.mark.parametrize(("by", "words"), [("mary", "on the cluster by mary."), ("", "on the cluster.")])
def test_who_cancelled_is_told_where_it_is_known(by: str, words: str) -> None:
    assert sentences.of_end("cancelled", ASKED, by=by) == f"The job was cancelled {words}"


@pytest.mark.parametrize(("exit_code", "words"), [("3:0", "ended (exit code 3) without"), ("", "ended without")])
def test_an_end_without_a_result_tells_the_exit_code(exit_code: str, words: str) -> None:
    assert words in sentences.of_end("failed", ASKED, exit_code=exit_code)


@pytest.mark.parametrize("word", ["node_failed", "preempted", "lost"])
def test_an_end_that_was_no_fault_of_the_job_says_to_run_it_again(word: str) -> None:
    assert "un it again" in sentences.of_end(word, ASKED)


def test_every_hopeless_reason_reads_well_in_its_sentence() -> None:
    for reason in ("PartitionTimeLimit", "QOSMaxMemoryPerJob", "BadConstraints"):
        words = states.hopeless(reason)
        assert words and re.fullmatch(r"The cluster .*: (it|no node) .*[^.]\.", sentences.hopeless(words))


@pytest.mark.parametrize(("seconds", "words"), [
    (0, "0 s"), (0.5, "0.5 s"), (1, "1 s"), (59, "59 s"), (60, "1 min"), (90, "90 s"), (119, "119 s"), (120, "2 min"),
    (900, "15 min"), (3600, "1 h"), (5400, "90 min"), (7199, "120 min"), (7200, "2 h"), (21600, "6 h"), (86400, "1 day"),
    (129600, "36 h"), (172800, "2 days"), (604800, "7 days"), (10_000_000, "116 days"),
])  # fmt: skip
def test_a_duration_is_a_short_number_in_a_fitting_unit(seconds: float, words: str) -> None:
    assert sentences.duration(seconds) == words
