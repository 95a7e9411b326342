"""What happens next with a job, for every situation it can be in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional

import pytest

from scheduler import SlurmJobId
from slurm import states
from tests.worker.examples import NOW, SPEC, TIMING
from tests.worker.login.situations import (
    LONG_AGO,
    after,
    ended,
    intended,
    job,
    outcome,
    result,
    seen,
    started,
    submitted,
)
from worker.job.facts import Absent, Asked, Cancel, Ended, Started, Stuck, Submission
from worker.job.judge import (
    Archive,
    AskToCancel,
    Close,
    CloseProgram,
    Conclude,
    Deliver,
    GiveVerdict,
    LookAnew,
    Record,
    Step,
    Submit,
    Understand,
    Wait,
    judge,
    observe,
)
from worker.job.outcome import Result
from worker.job.snapshot import AttemptFacts, JobFacts
from worker.job.spec import JobSpec, deadline_of
from worker.settings import RetryPolicy

ENDS = ["succeeded", "failed", "out_of_memory", "timed_out", "node_failed", "preempted", "cancelled"]
DAY = 86400.0
AGAIN = replace(SPEC, retry=RetryPolicy(attempts=2, on=("node_failed", "preempted", "fetch"), wait=60))
ONCE = replace(SPEC, retry=RetryPolicy(attempts=1))


def step(facts: JobFacts, max_wait: float = 7 * DAY, server_now: float = NOW) -> Step:
    return judge(facts, TIMING, max_wait, NOW, server_now)


def outcome_of(facts: JobFacts) -> str:
    """The word in the result that is recorded next, if the attempt can be closed where that comes first."""
    next_step = recorded(facts)
    assert isinstance(next_step, (Record, GiveVerdict)), next_step
    return next_step.result.outcome


def recorded(facts: JobFacts, max_wait: float = 7 * DAY) -> Step:
    first = step(facts, max_wait)
    if not isinstance(first, Close):
        return first
    second = step(after(facts, first), max_wait)
    assert isinstance(second, Record), "what is closed is answered in the same pass"
    return second


# --- before Slurm has it


def test_a_claimed_message_is_read_first() -> None:
    assert step(job(spec=None)) == Understand()


def test_a_job_that_was_understood_is_submitted() -> None:
    assert step(job()) == Submit(1, SPEC.resources, SPEC.workload)


def test_a_crash_before_a_rejection_was_written_down_only_repeats_the_reading() -> None:
    assert step(job(AttemptFacts(1), spec=None)) == Understand()


def test_a_rejection_is_the_job_s_end() -> None:
    assert step(job(AttemptFacts(1, result=result("rejected")), spec=None)) == Conclude(1)


def test_a_crash_before_the_intent_only_repeats_the_submission() -> None:
    assert step(job(AttemptFacts(1))) == Submit(1, SPEC.resources, SPEC.workload)


def test_a_job_that_slurm_refused_is_the_job_s_end() -> None:
    assert step(job(intended(result=result("rejected")))) == Conclude(1)


@pytest.mark.parametrize(("properties", "claimed_at", "words"), [
    ({"expiration": "1000"}, NOW - 1, "deadline passed"),
    ({"expiration": "1000", "timestamp": int(NOW) - 100}, NOW, "deadline passed"),
    ({"expiration": "0"}, NOW, "deadline passed"),
    ({}, NOW - 7 * DAY, "did not start within 7 days"),
])  # fmt: skip
def test_a_job_that_no_longer_needs_to_start_has_expired(
    properties: dict[str, Any], claimed_at: float, words: str
) -> None:
    next_step = recorded(job(properties=properties, claimed_at=claimed_at))

    assert isinstance(next_step, Record) and next_step.result.outcome == "expired"
    assert words in next_step.result.reason
    assert step(job(AttemptFacts(1, result=next_step.result))) == Conclude(1)


@pytest.mark.parametrize(("properties", "max_wait"), [({"expiration": "1000"}, 7 * DAY), ({}, 900.0)])
def test_a_second_attempt_is_not_held_against_the_deadline(properties: dict[str, Any], max_wait: float) -> None:
    first = started(ended=ended("node_failed"), result=result("node_failed"))

    before = step(job(first, spec=AGAIN, properties=properties), max_wait)
    second = intended(2, at=NOW - 800)
    taken = replace(second, submission=Submission("8", NOW - 800))
    waits = step(job(first, taken, spec=AGAIN, properties=properties), max_wait)
    absent = replace(second, absent=Absent(NOW - 700, 2, NOW))
    again = step(job(first, absent, spec=AGAIN, properties=properties), max_wait)

    assert before == Submit(2, SPEC.resources, SPEC.workload)
    assert isinstance(waits, Wait)
    assert isinstance(again, Submit) and again.again is not None


@pytest.mark.parametrize("second", ["unclear", "pending", "absent from slurm", "declined before"])
@pytest.mark.parametrize("word", ["node_failed", "preempted"])
def test_a_second_attempt_that_waits_in_vain_ends_and_the_end_of_the_first_is_told(word: str, second: str) -> None:
    """However far it has come: nobody waits for it for ever, and nothing of it can begin afterwards."""
    first = started(ended=ended(word), result=result(word))
    most, pending = NOW - LONG_AGO, submitted(2)
    assert pending.intent is not None
    waiting = job(first, {
        "unclear": intended(2), "pending": pending,
        "absent from slurm": submitted(2, absent=Absent(NOW - 9, 1, NOW - 9)),
        "declined before": replace(pending, earlier=(pending.intent,), intent=replace(pending.intent, at=NOW)),
    }[second], spec=AGAIN)  # fmt: skip

    early, late = step(waiting, most + 1), step(waiting, most)

    assert isinstance(early, Wait)
    assert isinstance(late, Close) and late.attempt == 2 and late.why is not None and late.why.outcome == "expired"
    assert step(after(waiting, late), most) == step(after(waiting, late)) == Conclude(1)


def test_a_second_attempt_that_began_in_the_moment_it_was_given_up_goes_on() -> None:
    first = started(ended=ended("node_failed"), result=result("node_failed"))

    assert isinstance(step(job(first, started(2, "8"), spec=AGAIN), 1.0), Wait)


def test_an_operator_s_cancel_goes_before_the_end_of_an_attempt_that_waits_in_vain() -> None:
    first = started(ended=ended("node_failed"), result=result("node_failed"))
    facts = job(first, submitted(2), spec=AGAIN, cancel_asked=Asked("mary@here", NOW))

    assert outcome_of(facts) == "cancelled"


def test_an_element_that_vanished_out_of_a_known_array_was_cancelled() -> None:
    gone = submitted(slurm_id="7_1", absent=Absent(NOW - TIMING.lost_after, 2, NOW - 60))

    assert observe(gone, [], True, TIMING, NOW, others=True) == {"ended": Ended("cancelled", "CANCELLED", NOW)}
    for other in (gone, replace(gone, started=Started("7_1", 0, "n1", LONG_AGO)), replace(gone, submission=None)):
        known = other is gone
        assert "ended" not in observe(other, [], True, TIMING, NOW, others=not known)
    assert "ended" not in observe(gone, [], False, TIMING, NOW, others=True)


def test_what_only_accounting_remembers_is_believed_until_its_time_is_over() -> None:
    view = replace(seen("RUNNING"), remembered=True)
    begun = NOW - SPEC.resources.time_seconds - TIMING.lost_after
    runaway = replace(started(), started=Started("7", 0, "n1", begun))
    alive = replace(started(), started=Started("7", 0, "n1", begun + 1))

    assert observe(alive, [view], True, TIMING, NOW) == {}
    assert observe(runaway, [view], True, TIMING, NOW) == {"absent": Absent(NOW, 1, NOW)}
    assert observe(runaway, [seen("RUNNING")], True, TIMING, NOW) == {}


def test_an_attempt_that_started_and_waits_again_is_withdrawn_and_its_node_has_failed() -> None:
    observed = observe(started(), [seen("PENDING")], True, TIMING, NOW)
    stuck = observed["stuck"]
    assert isinstance(stuck, Stuck)

    for facts in (started(stuck=stuck), started(stuck=stuck, result=result("cancelled", needs_verdict=True))):
        asked = step(job(facts))
        assert isinstance(asked, AskToCancel) and asked.only_waiting
        for later in (seen("CANCELLED", ended_at=NOW), seen("RUNNING")):  # also an end that is not believed yet
            assert "stuck" not in observe(facts, [later], True, TIMING, NOW)
        after = replace(facts, cancel=asked.cancel, ended=ended("cancelled"))
        assert outcome_of(job(after)) == "node_failed"


def test_a_limit_that_an_administrator_shortened_is_not_told_as_the_one_that_was_asked_for() -> None:
    next_step = step(job(replace(started(ended=ended("timed_out")), started=Started("7", 0, "n1", NOW - 1060))))

    assert isinstance(next_step, Record) and "reached its time limit and was stopped" in next_step.result.reason


# --- sbatch gave no clear answer


@pytest.mark.parametrize(("absent", "age", "again"), [
    (None, 1000, False),
    (Absent(NOW - 500, 1, NOW), 1000, False),
    (Absent(NOW - 119, 2, NOW), 1000, False),
    (Absent(NOW - 120, 2, NOW), 1000, True),
    (Absent(NOW - 500, 2, NOW), 119, False),
    (Absent(NOW - 5000, 9, NOW), 9000, True),
])  # fmt: skip
def test_an_unclear_submission_is_repeated_after_two_clear_answers_and_some_time(
    absent: Optional[Absent], age: float, again: bool
) -> None:
    attempt = intended(at=NOW - age, absent=absent)

    next_step = step(job(attempt))

    assert (
        next_step == Submit(1, SPEC.resources, SPEC.workload, attempt.intent) if again else isinstance(next_step, Wait)
    )


def test_an_unclear_submission_that_started_is_never_repeated() -> None:
    unclear = replace(started(absent=Absent(NOW - 500, 5, NOW)), submission=None)

    assert isinstance(step(job(unclear)), Wait)


def test_an_unclear_submission_that_slurm_shows_is_adopted() -> None:
    observed = observe(intended(absent=Absent(NOW - 60, 1, NOW)), [seen("PENDING")], True, TIMING, NOW)

    assert observed == {"submission": Submission("7", NOW, adopted=True), "absent": None}


def test_an_unclear_submission_that_has_ended_already_is_adopted_with_its_end() -> None:
    observed = observe(intended(), [seen("TIMEOUT")], True, TIMING, NOW)

    assert observed["submission"] == Submission("7", NOW, adopted=True)
    assert isinstance(observed["ended"], Ended) and observed["ended"].end == "timed_out"


# --- Slurm has it


@pytest.mark.parametrize("attempt", [submitted(), started()])
def test_a_job_that_waits_or_runs_is_left_alone(attempt: AttemptFacts) -> None:
    assert isinstance(step(job(attempt)), Wait)


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "WHATEVER"])
def test_what_is_no_end_adds_nothing(state: str) -> None:
    assert observe(submitted(), [seen(state)], True, TIMING, NOW) == {}


def test_an_end_is_written_down_as_slurm_tells_it() -> None:
    view = seen("CANCELLED", by="mary", exit_code="0:15", ended_at=NOW - 5)

    observed = observe(started(), [view], True, TIMING, NOW)

    assert observed == {"ended": Ended("cancelled", "CANCELLED", NOW - 5, "0:15", "n1", "mary")}


@pytest.mark.parametrize(("ended_at", "at"), [(None, NOW), (NOW + 500, NOW), (NOW - 500, NOW - 500)])
def test_an_end_is_never_later_than_now(ended_at: Optional[float], at: float) -> None:
    observed = observe(started(), [seen("FAILED", ended_at=ended_at)], True, TIMING, NOW)

    assert isinstance(observed["ended"], Ended) and observed["ended"].at == at


def test_clear_answers_without_the_job_are_counted() -> None:
    first = observe(submitted(), [], True, TIMING, NOW)
    second = observe(submitted(absent=Absent(NOW, 1, NOW)), [], clear=True, timing=TIMING, now=NOW + 60)

    assert (first, second) == ({"absent": Absent(NOW, 1, NOW)}, {"absent": Absent(NOW, 2, NOW + 60)})


def test_an_answer_that_is_not_clear_says_nothing() -> None:
    assert observe(submitted(absent=Absent(NOW, 1, NOW)), [], clear=False, timing=TIMING, now=NOW) == {}


def test_a_job_that_is_seen_again_was_never_lost() -> None:
    assert observe(submitted(absent=Absent(NOW, 5, NOW)), [seen("RUNNING")], True, TIMING, NOW) == {"absent": None}


@pytest.mark.parametrize("attempt", [submitted, started])
@pytest.mark.parametrize(("since", "answers", "lost"), [(599, 9, False), (600, 1, False), (600, 2, True)])
def test_a_job_is_lost_after_repeated_answers_and_some_time(
    attempt: Any, since: float, answers: int, lost: bool
) -> None:
    facts = job(attempt(absent=Absent(NOW - since, answers, NOW)))

    if lost:
        assert outcome_of(facts) == "lost"
    else:
        assert isinstance(step(facts), Wait)


def test_what_another_pass_missed_before_the_job_was_submitted_does_not_count() -> None:
    submission = Submission("7", at=NOW - 100)

    assert isinstance(step(job(replace(submitted(absent=Absent(NOW - 700, 2, NOW)), submission=submission))), Wait)


def test_a_lost_job_is_answered() -> None:
    lost = started(absent=Absent(NOW - 600, 2, NOW), result=result("lost"))

    assert step(job(lost)) == Conclude(1)


# --- two Slurm jobs under one name


def test_of_two_copies_the_one_that_started_counts() -> None:
    views = [seen("COMPLETED", "8"), seen("OUT_OF_MEMORY", "7")]

    observed = observe(started(slurm_id="7"), views, True, TIMING, NOW)

    assert isinstance(observed["ended"], Ended) and observed["ended"].end == "out_of_memory"


def test_a_copy_that_still_waits_does_not_stand_for_the_one_that_started() -> None:
    assert observe(started(slurm_id="7"), [seen("PENDING", "8")], True, TIMING, NOW) == {"absent": Absent(NOW, 1, NOW)}


def test_as_long_as_one_copy_is_alive_the_attempt_has_not_ended() -> None:
    observed = observe(
        submitted(slurm_id="7"), [seen("CANCELLED", "7"), seen("PENDING", "8")], clear=True, timing=TIMING, now=NOW
    )

    assert "ended" not in observed


def test_the_copy_that_is_alive_is_the_one_to_be_cancelled() -> None:
    stuck = [seen("CANCELLED", "8"), seen("PENDING", "7", reason="BadConstraints")]

    observed = observe(submitted(slurm_id="8"), stuck, True, TIMING, NOW)

    assert observed["submission"] == Submission("7", NOW, adopted=True)


def test_of_two_copies_that_are_both_over_the_submitted_one_counts() -> None:
    views = [seen("FAILED", "6"), seen("TIMEOUT", "7")]

    observed = observe(submitted(slurm_id="7"), views, True, TIMING, NOW)

    assert isinstance(observed["ended"], Ended) and observed["ended"].end == "timed_out"


# --- it ended without a result

ENDED_ALONE = {
    "succeeded": "failed", "failed": "failed", "out_of_memory": "out_of_memory", "timed_out": "timed_out",
    "node_failed": "node_failed", "preempted": "preempted", "cancelled": "cancelled",
}  # fmt: skip


@pytest.mark.parametrize("attempt", [submitted, started])
@pytest.mark.parametrize(("end", "word"), ENDED_ALONE.items())
def test_an_end_without_a_result_is_told_as_slurm_saw_it(attempt: Any, end: str, word: str) -> None:
    assert outcome_of(job(attempt(ended=ended(end, ago=90)))) == word


@pytest.mark.parametrize("end", ENDS)
def test_a_result_may_still_be_invisible_for_a_while(end: str) -> None:
    assert isinstance(step(job(started(ended=ended(end, ago=89)))), Wait)


@pytest.mark.parametrize("end", ENDS)
def test_an_attempt_that_ended_before_it_began_is_closed_at_once(end: str) -> None:
    assert step(job(submitted(ended=ended(end, ago=1)))) == Close(1, None)


def test_what_is_recorded_says_where_when_and_why() -> None:
    next_step = step(job(started(ended=ended("failed", exit_code="3:0"))))

    assert isinstance(next_step, Record)
    recorded = next_step.result
    assert (recorded.slurm_job_id, recorded.node, recorded.step) == ("7", "n1", "run")
    assert (recorded.started_at, recorded.ended_at) == (LONG_AGO + 100, NOW - 1000)
    assert "exit code 3" in recorded.reason and not recorded.needs_verdict


def test_who_cancelled_it_is_told() -> None:
    next_step = step(job(started(ended=ended("cancelled", by="mary"))))

    assert isinstance(next_step, Record) and "by mary" in next_step.result.reason


@pytest.mark.parametrize(("attempt", "word"), [(submitted, "expired"), (started, "cancelled")])
def test_our_own_reason_counts_only_for_a_job_that_never_started(attempt: Any, word: str) -> None:
    cancelled = attempt(ended=ended("cancelled"), cancel=Cancel("expired", "It waited.", NOW - 2000))

    assert outcome_of(job(cancelled)) == word


@pytest.mark.parametrize("end", ENDS)
def test_a_job_that_ended_before_it_began_was_withdrawn_where_that_had_been_settled(end: str) -> None:
    attempt = submitted(ended=ended(end), cancel=Cancel("expired", "It waited.", NOW - 2000))

    assert outcome_of(job(attempt)) == "expired"


# --- nobody has seen it start

WITHDRAWN = Cancel("expired", "It waited.", NOW - 5)


@pytest.mark.parametrize("more", [
    {}, {"absent": Absent(LONG_AGO, 9, NOW)}, {"ended": ended("succeeded", 1)}, {"stuck": Stuck("BadConstraints", LONG_AGO)},
    {"submission": None}, {"submission": None, "intent": None},
])  # fmt: skip
def test_a_closed_attempt_came_to_what_was_on_disk_before_whatever_slurm_says(more: dict[str, Any]) -> None:
    closed = replace(submitted(cancel=WITHDRAWN, closed=True), **more)

    next_step = step(job(closed))

    assert isinstance(next_step, Record)
    assert (next_step.result.outcome, next_step.result.reason) == ("expired", "It waited.")


@pytest.mark.parametrize("more", [
    {}, {"absent": Absent(NOW - 60, 1, NOW)}, {"ended": ended("cancelled", 1)},
])  # fmt: skip
def test_what_a_closed_attempt_came_to_is_answered_without_waiting_for_slurm(more: dict[str, Any]) -> None:
    closed = submitted(cancel=WITHDRAWN, closed=True, result=result("expired"), **more)

    assert step(job(closed)) == Conclude(1)


@pytest.mark.parametrize("word", ["expired", "cancelled", "rejected"])
def test_a_job_is_put_away_when_slurm_no_longer_has_what_was_closed(word: str) -> None:
    closed = submitted(cancel=WITHDRAWN, closed=True, result=result(word))
    answered = job(closed, outcome=outcome("login", word=word), delivered=True)

    assert step(answered) == Wait("for Slurm to end it")
    for over in ({"ended": ended("cancelled", 1)}, {"absent": Absent(NOW - 600, 2, NOW)}):
        assert step(replace(answered, attempts=(replace(closed, **over),))) == Archive()


def test_one_that_slurm_never_came_to_have_is_withdrawn_at_once() -> None:
    assert outcome_of(job(intended(), properties={"expiration": "1000"})) == "expired"


def test_a_pass_without_a_new_answer_of_slurm_loses_nothing() -> None:
    absent = Absent(NOW - 5000, 2, NOW - 5000 + 599)

    assert isinstance(step(job(submitted(absent=absent))), Wait)


def test_what_was_asked_to_end_and_is_gone_was_cancelled() -> None:
    gone = Absent(NOW - 600, 2, NOW)
    told = result("cancelled", needs_verdict=True)

    for a in (started(absent=gone), submitted(absent=gone), started(absent=gone, result=told)):
        assert outcome_of(job(a, cancel_asked=ASKED)) == "cancelled"


# --- its node could not begin it

REFUSED = [
    *states.parse_squeue("""\
7|CANCELLED|1|None|n1|bf-here-1
7|LAUNCH_FAILED|1|None|n1|bf-here-1
7|PENDING|1|launch failed requeued held||bf-here-1
7|PENDING|1|launch_failed_requeued_held||bf-here-1
7|PENDING|1|job requeued in held state||bf-here-1
7|REQUEUE_HOLD|1|JobHeldAdmin||bf-here-1
7|SPECIAL_EXIT|1|JobHeldUser||bf-here-1
"""),
    *states.parse_sacct("7|CANCELLED by 0|0:0|1|n1|bf-here-1\n7|CANCELLED by 64030|0:0|1|n1|bf-here-1\n", own="1000"),
]
"""Rows of one whose node was to begin it, and did not."""


FORGOTTEN = Absent(NOW - 600, 2, NOW)


@pytest.mark.parametrize(
    "facts",
    [
        *(job(started(ended=ended(end))) for end in ENDS),
        job(replace(started(ended=ended("failed")), started=Started("7", 0, "n1", LONG_AGO, says_begun=True))),
        job(started(absent=FORGOTTEN)),
        job(started(ended=ended("succeeded")), outcome=outcome("job"), outcome_at=NOW - 5000),
        job(started(absent=FORGOTTEN), outcome=outcome("job"), outcome_at=NOW - 5000),
    ],
)
def test_nothing_that_can_not_be_taken_back_follows_from_a_missing_fact_before_its_folder_was_looked_at_anew(
    facts: JobFacts,
) -> None:
    assert step(replace(facts, looked_anew=0)) == LookAnew(1)
    assert isinstance(step(facts), (Record, CloseProgram, Deliver))


@pytest.mark.parametrize(
    "facts",
    [
        job(started()),
        job(started(ended=ended("succeeded"), result=result())),
        job(started(ended=ended("failed", ago=1))),
        job(started(ended=ended("succeeded")), outcome=outcome("login")),
    ],
)
def test_no_folder_is_looked_at_anew_for_what_is_there_or_may_come_still(facts: JobFacts) -> None:
    assert step(replace(facts, looked_anew=0)) == step(facts) != LookAnew(1)


SAYS_BEGUN = Started("7", 0, "n1", LONG_AGO, says_begun=True)
UNASKED = replace(SPEC, retry=RetryPolicy(attempts=3, wait=0))
ASKED_FOR = replace(SPEC, retry=RetryPolicy(attempts=3, wait=0, on=("no_result",)))


@pytest.mark.parametrize("end", ENDS)
def test_what_ended_without_a_result_is_asked_whether_it_had_begun_only_where_that_decides(end: str) -> None:
    next_step = step(job(replace(started(ended=ended(end)), started=SAYS_BEGUN)))

    asks = next_step == CloseProgram(1)
    assert asks == (end in ("succeeded", "failed"))
    assert asks or isinstance(next_step, Record)


def test_whether_it_had_begun_is_asked_only_when_its_files_can_be_seen() -> None:
    assert isinstance(step(job(replace(started(ended=ended("failed", ago=89)), started=SAYS_BEGUN))), Wait)


@pytest.mark.parametrize("spec", [UNASKED, ASKED_FOR])
@pytest.mark.parametrize("begun", [True, False])
def test_what_had_begun_is_tried_again_only_where_the_site_asks_for_it(begun: bool, spec: JobSpec) -> None:
    ran = replace(started(ended=ended("failed", exit_code="0:9")), started=SAYS_BEGUN, begun=begun)

    next_step = step(job(ran, spec=spec))

    assert isinstance(next_step, Record)
    failed = next_step.result
    assert (failed.outcome, failed.step) == ("failed", "run" if begun else "start")
    words = (
        "(signal 9) without leaving a result after its program had begun" if begun else "before its program could begin"
    )
    assert words in failed.reason
    after_it = step(job(replace(ran, result=failed), spec=spec))
    again = spec is ASKED_FOR if begun else spec is UNASKED
    assert isinstance(after_it, Submit if again else Conclude)


def test_a_job_of_an_older_worker_which_does_not_say_whether_it_began_is_judged_as_it_was() -> None:
    next_step = step(job(started(ended=ended("failed")), spec=ASKED_FOR))

    assert isinstance(next_step, Record)
    failed = next_step.result
    assert (failed.step, failed.may_work_again) == ("run", False) and "begun" not in failed.reason


@pytest.mark.parametrize("view", REFUSED)
def test_an_attempt_that_its_node_could_not_begin_is_tried_again(view: Any) -> None:
    observed = observe(submitted(), [view], True, TIMING, NOW)
    facts = job(replace(submitted(), **observed), spec=replace(AGAIN, retry=RetryPolicy(attempts=2)))  # type: ignore[arg-type]

    next_step = recorded(facts)

    assert isinstance(next_step, Record)
    failed = next_step.result
    assert (failed.outcome, failed.step, failed.may_work_again) == ("failed", "start", True)
    assert "could not begin it" in failed.reason
    tried = replace(submitted(), closed=True, result=replace(failed, ended_at=NOW - 60))
    assert isinstance(step(replace(facts, attempts=(tried,))), Submit)


@pytest.mark.parametrize("view", REFUSED)
def test_one_that_has_begun_was_not_refused_by_its_node(view: Any) -> None:
    observed = observe(started(), [view], True, TIMING, NOW)
    begun = replace(started(), **observed, ended_noted=NOW - 90)  # type: ignore[arg-type]

    next_step = step(job(begun))

    came_to = next_step.result.outcome if isinstance(next_step, Record) else ""
    assert came_to in ("cancelled", "node_failed") or isinstance(next_step, AskToCancel)


def test_one_that_its_own_user_cancelled_or_that_had_no_node_yet_is_not_tried_again() -> None:
    rows = "7|CANCELLED by 1000|0:0|1|n1|bf-here-1\n7|CANCELLED by 0|0:0|1|None assigned|bf-here-1\n"

    for view in states.parse_sacct(rows, own="1000"):
        observed = observe(submitted(), [view], True, TIMING, NOW)
        assert outcome_of(job(replace(submitted(), **observed))) == "cancelled"  # type: ignore[arg-type]


# --- it left a result


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("ago", "next_step"), [(89, None), (90, Conclude(1))])
def test_a_final_result_whose_worker_never_answered_is_concluded_when_it_surely_is_gone(
    end: str, ago: float, next_step: Optional[Step]
) -> None:
    facts = job(started(result=result("failed"), ended=ended(end, ago)))

    assert step(facts) == next_step if next_step else isinstance(step(facts), Wait)


def test_a_final_result_is_its_worker_s_to_answer_while_slurm_knows_it() -> None:
    assert isinstance(step(job(started(result=result("succeeded")))), Wait)


def test_a_final_result_is_answered_also_when_slurm_has_forgotten_the_job() -> None:
    forgotten = started(result=result("succeeded"), absent=Absent(NOW - 600, 2, NOW))

    assert step(job(forgotten)) == Conclude(1)
    assert isinstance(step(job(replace(forgotten, absent=Absent(NOW - 599, 2, NOW)))), Wait)


VERDICTS = {
    "succeeded": {
        "succeeded": "succeeded", "failed": "succeeded", "out_of_memory": "out_of_memory", "timed_out": "timed_out",
        "node_failed": "node_failed", "preempted": "preempted", "cancelled": "cancelled",
    },
    "cancelled": {
        "succeeded": "node_failed", "failed": "node_failed", "out_of_memory": "out_of_memory", "timed_out": "timed_out",
        "node_failed": "node_failed", "preempted": "preempted", "cancelled": "cancelled",
    },
}  # fmt: skip


@pytest.mark.parametrize("thought", VERDICTS)
@pytest.mark.parametrize("end", ENDS)
def test_where_the_worker_could_not_be_sure_slurm_s_word_counts(thought: str, end: str) -> None:
    unsure = result(thought, needs_verdict=True, exit_code=0, body="reply-9", outputs={})

    next_step = step(job(started(result=unsure, ended=ended(end, ago=1))))

    assert isinstance(next_step, GiveVerdict)
    verdict = next_step.result
    assert verdict.outcome == VERDICTS[thought][end] and not verdict.needs_verdict
    assert (verdict.outcome == "succeeded") == (verdict.reason == "")
    assert (verdict.outcome == "succeeded") == (verdict.body == "reply-9")


@pytest.mark.parametrize("thought", VERDICTS)
def test_slurm_s_word_is_waited_for_until_the_job_is_lost(thought: str) -> None:
    unsure = started(result=result(thought, needs_verdict=True))

    assert isinstance(step(job(unsure)), Wait)
    assert isinstance(step(job(replace(unsure, absent=Absent(NOW - 599, 9, NOW)))), Wait)
    assert outcome_of(job(replace(unsure, absent=Absent(NOW - 600, 2, NOW)))) == "lost"
    requeued = replace(unsure, stuck=Stuck("requeued", NOW - 9999), absent=Absent(NOW - 600, 2, NOW))
    assert outcome_of(job(requeued)) == "lost", "and forgotten before it could be cancelled"


@pytest.mark.parametrize("end", ENDS)
def test_a_verdict_is_final_at_once(end: str) -> None:
    attempt = started(result=result(needs_verdict=True), verdict=result("failed"), ended=ended(end, ago=1))

    assert step(job(attempt)) == Conclude(1)


# --- attempts that are tried again


@pytest.mark.parametrize("cause", [
    {"outcome": "node_failed"}, {"outcome": "preempted"},
    {"outcome": "failed", "step": "fetch", "may_work_again": True},
])  # fmt: skip
@pytest.mark.parametrize(("ago", "next_step"), [(59, None), (60, Submit(2, SPEC.resources, SPEC.workload))])
def test_the_next_attempt_follows_after_its_wait(cause: dict[str, Any], ago: float, next_step: Optional[Step]) -> None:
    facts = job(started(result=result(**cause, ended_at=NOW - ago), ended=ended("failed", ago)), spec=AGAIN)

    assert step(facts) == next_step if next_step else isinstance(step(facts), Wait)


def test_the_last_attempt_is_concluded() -> None:
    first = started(result=result("node_failed"), ended=ended("node_failed"))
    second = started(2, "8", result=result("node_failed", 2), ended=ended("node_failed"))

    assert step(job(first, second, spec=AGAIN)) == Conclude(2)
    assert step(job(first, spec=ONCE)) == Conclude(1)


def test_a_verdict_may_lead_to_another_attempt() -> None:
    told_to_stop = result("cancelled", needs_verdict=True)
    attempt = started(result=told_to_stop, verdict=result("preempted"), ended=ended("preempted"))

    assert step(job(attempt, spec=AGAIN)) == Submit(2, SPEC.resources, SPEC.workload)


def test_while_an_attempt_runs_there_is_no_other() -> None:
    first = started(result=result("node_failed"), ended=ended("node_failed"))

    assert isinstance(step(job(first, started(2, "8"), spec=AGAIN)), Wait)


# --- reasons and deadlines of a job that waits in Slurm


def test_a_reason_that_does_not_pass_is_noted_with_its_time() -> None:
    view = replace(seen("PENDING", reason="BadConstraints"), hopeless="no node has that")
    stuck = Stuck("BadConstraints", NOW, "no node has that")

    assert observe(submitted(), [view], True, TIMING, NOW) == {"stuck": stuck}
    assert observe(submitted(stuck=Stuck("BadConstraints", NOW - 9)), [view], True, TIMING, NOW) == {}
    assert observe(submitted(stuck=Stuck("InvalidQOS", NOW - 9)), [view], True, TIMING, NOW) == {"stuck": stuck}


@pytest.mark.parametrize("view", [
    seen("PENDING", reason="Resources"), seen("RUNNING"), seen("CONFIGURING", reason="BadConstraints"),
])  # fmt: skip
def test_a_reason_that_has_passed_is_forgotten(view: Any) -> None:
    assert observe(submitted(stuck=Stuck("BadConstraints", NOW - 9)), [view], True, TIMING, NOW)["stuck"] is None


def test_a_job_that_can_never_start_is_cancelled_after_a_while_and_told_why() -> None:
    stuck = submitted(stuck=Stuck("PartitionTimeLimit", NOW - 3600, "it asks for more time than the partition allows"))

    next_step = step(job(stuck))

    assert isinstance(next_step, Close) and next_step.why is not None
    assert next_step.why.outcome == "rejected"
    assert "more time than the partition allows" in next_step.why.reason
    assert outcome_of(job(stuck)) == "rejected"
    assert isinstance(step(job(replace(stuck, stuck=Stuck("PartitionTimeLimit", NOW - 3599)))), Wait)


@pytest.mark.parametrize(("properties", "max_wait"), [({"expiration": "1000"}, 7 * DAY), ({}, 20_000.0)])
def test_a_job_that_waits_for_too_long_is_withdrawn(properties: dict[str, Any], max_wait: float) -> None:
    next_step = recorded(job(submitted(), properties=properties), max_wait)

    assert isinstance(next_step, Record) and next_step.result.outcome == "expired"


@pytest.mark.parametrize("properties", [{}, {"expiration": "1000"}])
def test_a_job_that_runs_is_never_cancelled_for_waiting(properties: dict[str, Any]) -> None:
    runs = started(stuck=Stuck("BadConstraints", NOW - 9999))

    assert isinstance(step(job(runs, properties=properties), max_wait=1), Wait)


def test_the_first_reason_for_which_a_job_was_to_end_stays() -> None:
    cancel = Cancel("rejected", "The first reason.", NOW - 3000)

    assert step(job(submitted(cancel=cancel)), max_wait=1) == Close(1, cancel)
    assert outcome_of(job(submitted(cancel=cancel, ended=ended("cancelled")))) == "rejected"


# --- it has its outcome


@pytest.mark.parametrize("a", [started(), started(ended=ended("succeeded")), AttemptFacts(1), intended()])
def test_an_outcome_of_the_login_side_is_sent_by_it(a: AttemptFacts) -> None:
    assert step(job(a, outcome=outcome("login"))) == Deliver()


def test_an_outcome_of_the_job_is_sent_by_it_while_it_lives() -> None:
    assert isinstance(step(job(started(result=result()), outcome=outcome("job"))), Wait)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("ago", "ours"), [(89, False), (90, True), (299, True), (300, True)])
def test_an_outcome_of_a_job_that_has_ended_is_sent_by_us(end: str, ago: float, ours: bool) -> None:
    a = started(result=result(), ended=ended(end, ago))

    next_step = step(job(a, outcome=outcome("job"), outcome_at=NOW - 5000))

    may_live = end == "node_failed" and ago < 300
    assert next_step == Deliver() if ours and not may_live else isinstance(next_step, Wait)


@pytest.mark.parametrize(("silent", "ours"), [(0, False), (299, False), (300, True)])
@pytest.mark.parametrize("a", [
    started(result=result(), ended=ended("node_failed", 9999)), started(result=result("lost"), absent=Absent(0, 9, NOW)),
])  # fmt: skip
def test_a_cut_off_job_that_showed_life_is_given_time(a: AttemptFacts, silent: float, ours: bool) -> None:
    next_step = step(job(a, outcome=outcome("job"), outcome_at=NOW - silent))

    assert next_step == Deliver() if ours else isinstance(next_step, Wait)


def test_the_age_of_an_outcome_is_told_by_the_file_server_s_clock() -> None:
    a = replace(started(result=result(), ended=ended("node_failed", 9999)), ended_noted=0)
    facts = job(a, outcome=outcome("job"), outcome_at=500.0)

    assert isinstance(step(facts, server_now=799.0), Wait)
    assert step(facts, server_now=800.0) == Deliver()


def test_an_outcome_of_a_job_that_slurm_has_forgotten_is_sent_by_us() -> None:
    forgotten = started(result=result(), absent=Absent(NOW - 600, 2, NOW))

    assert step(job(forgotten, outcome=outcome("job"), outcome_at=NOW - 5000)) == Deliver()


@pytest.mark.parametrize("by", ["job", "login"])
@pytest.mark.parametrize("done", [{"delivered": True}, {"undeliverable": True}])
def test_what_is_done_is_put_away_when_slurm_too_says_it_ended(by: str, done: dict[str, Any]) -> None:
    running, over = started(result=result()), started(result=result(), ended=ended("succeeded", 1))

    assert isinstance(step(job(running, outcome=outcome(by), **done)), Wait)
    assert step(job(over, outcome=outcome(by), **done)) == Archive()


def test_what_is_done_and_was_forgotten_by_slurm_is_put_away_too() -> None:
    forgotten = started(result=result(), absent=Absent(NOW - 600, 2, NOW))

    assert step(job(forgotten, outcome=outcome("job"), delivered=True)) == Archive()


@pytest.mark.parametrize("a", [AttemptFacts(1, result=result("expired")), intended(result=result("rejected"))])
def test_what_slurm_never_had_is_put_away_at_once(a: AttemptFacts) -> None:
    assert step(job(a, outcome=outcome("login"), delivered=True)) == Archive()


def test_when_an_attempt_has_answered_the_others_are_cancelled() -> None:
    cut_off = started(result=result(), ended=ended("node_failed"))

    before = step(job(cut_off, started(2, "8"), outcome=outcome("job", attempt=1)))
    next_step = step(job(cut_off, started(2, "8"), outcome=outcome("job", attempt=1), delivered=True))

    assert isinstance(before, Deliver)
    assert isinstance(next_step, AskToCancel)
    assert (next_step.attempt, next_step.only_waiting) == (2, False)


@pytest.mark.parametrize("other", [started(2, "8"), submitted(2, "8")])
def test_another_attempt_that_slurm_has_forgotten_does_not_hold_the_answer_back(other: AttemptFacts) -> None:
    cut_off = started(result=result(), ended=ended("node_failed", 9999))
    forgotten = replace(other, absent=Absent(NOW - 600, 2, NOW))
    facts = job(cut_off, forgotten, outcome=outcome("job", attempt=1), outcome_at=NOW - 5000)

    assert step(facts) == Deliver()
    assert step(replace(facts, delivered=True)) == Archive()


def test_an_unclear_submission_of_another_attempt_is_waited_for_before_the_job_is_put_away() -> None:
    cut_off = started(result=result(), ended=ended("node_failed", 9999))
    facts = job(cut_off, intended(2), outcome=outcome("job"), outcome_at=NOW - 5000, delivered=True)

    assert isinstance(step(facts), Wait)


# --- deadlines


@pytest.mark.parametrize(("properties", "deadline"), [
    ({}, None),
    ({"expiration": "60000"}, 1_000_000_060),
    ({"expiration": "60000", "timestamp": 999_999_000}, 999_999_060),
    ({"expiration": "60000", "timestamp": 1_000_000_000}, 1_000_000_060),
    ({"timestamp": 999_999_000}, None),
    ({"expiration": "60000", "timestamp": 1_000_000_001}, 1_000_000_060),
    ({"expiration": "60000", "timestamp": 999_999_000_000}, 1_000_000_060),
    ({"expiration": "60000", "timestamp": 9223372036854775807}, 1_000_000_060),
    ({"expiration": "60000", "timestamp": 0}, 1_000_000_060),
    ({"expiration": "60000", "timestamp": None}, 1_000_000_060),
    ({"expiration": "soon"}, None), ({"expiration": ""}, None), ({"expiration": "-1"}, None), ({"expiration": "1.5"}, None),
    ({"expiration": b"60000\xff"}, None), ({"expiration": 60000}, None), ({"expiration": "9" * 200}, None),
    ({"expiration": "²"}, None), ({"expiration": None}, None),
])  # fmt: skip
def test_a_deadline_is_believed_only_where_it_can_be_read(
    properties: dict[str, Any], deadline: Optional[float]
) -> None:
    assert deadline_of(properties, claimed_at=1_000_000_000.0) == deadline


def test_a_slurm_id_is_a_text() -> None:
    assert started(slurm_id="8").slurm_id == SlurmJobId("8")
    assert replace(submitted(slurm_id="7"), started=started(slurm_id="8").started).slurm_id == "8"


# --- what an operator asked for

ASKED = Asked("mary@login1", NOW - 5, "It is not needed.")
WORDS = "The job was cancelled by those who run the service: It is not needed."


@pytest.mark.parametrize("facts", [
    job(), job(AttemptFacts(1)),
    job(intended(absent=Absent(LONG_AGO, 2, NOW))),
    job(started(ended=ended("node_failed"), result=result("node_failed", ended_at=NOW)), spec=AGAIN),
])  # fmt: skip
def test_a_job_that_slurm_does_not_have_is_cancelled_at_once(facts: JobFacts) -> None:
    number = 2 if facts.spec is AGAIN else 1

    next_step = recorded(replace(facts, cancel_asked=ASKED))

    assert next_step == Record(Result("cancelled", number, WORDS, ended_at=NOW))
    assert step(replace(facts, cancel_asked=ASKED, attempts=(
        *facts.attempts[: number - 1], AttemptFacts(number, result=next_step.result)
    ))) == Conclude(number)  # fmt: skip


@pytest.mark.parametrize("a", [intended(), submitted()])
def test_a_job_that_nobody_saw_start_is_cancelled_at_once(a: AttemptFacts) -> None:
    assert step(job(a, cancel_asked=ASKED)) == Close(1, Cancel("cancelled", WORDS, NOW))
    assert outcome_of(job(a, cancel_asked=ASKED)) == "cancelled"


def test_slurm_is_asked_to_cancel_one_that_has_begun() -> None:
    running = job(started(), cancel_asked=ASKED)

    assert step(running) == AskToCancel(1, Cancel("cancelled", WORDS, NOW), only_waiting=False)


@pytest.mark.parametrize("a", [
    submitted(ended=ended("cancelled"), cancel=Cancel("cancelled", WORDS, NOW)),
    started(ended=ended("cancelled", by="mary"), cancel=Cancel("cancelled", WORDS, NOW)),
    started(ended=ended("cancelled", by="mary")),
])  # fmt: skip
def test_what_was_cancelled_for_an_operator_is_told_in_the_operator_s_words(a: AttemptFacts) -> None:
    next_step = recorded(job(a, cancel_asked=ASKED))

    assert isinstance(next_step, Record)
    assert (next_step.result.outcome, next_step.result.reason) == ("cancelled", WORDS)


def test_a_worker_that_was_told_to_stop_for_an_operator_says_so() -> None:
    told = result("cancelled", needs_verdict=True)

    next_step = step(job(started(ended=ended("cancelled"), result=told), cancel_asked=ASKED))

    assert isinstance(next_step, GiveVerdict) and next_step.result.reason == WORDS


@pytest.mark.parametrize("word", ["succeeded", "failed", "out_of_memory", "timed_out"])
def test_a_job_that_came_to_its_own_end_first_keeps_its_outcome(word: str) -> None:
    facts = job(started(ended=ended("failed"), result=result(word)), spec=ONCE, cancel_asked=ASKED)

    assert step(facts) == Conclude(1)


def test_an_attempt_that_was_to_wait_is_submitted_when_an_operator_asks() -> None:
    first = started(ended=ended("node_failed"), result=result("node_failed", ended_at=NOW))

    assert step(job(first, spec=AGAIN)) == Wait("before the next attempt")
    assert step(job(first, spec=AGAIN, retry_asked=Asked("mary@login1", NOW, attempt=1))) == Submit(
        2, SPEC.resources, SPEC.workload
    )
    assert step(job(first, spec=AGAIN, retry_asked=Asked("mary@login1", NOW, attempt=7))) == Wait(
        "before the next attempt"
    )
