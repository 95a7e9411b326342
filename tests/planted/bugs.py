"""Faulty versions of single functions of the product, each as somebody might have written it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from scheduler import JobView
from worker.embedded import Embedded
from worker.folder import answer, fence, paths
from worker.folder.answer import concluded
from worker.folder.batches import Pool
from worker.folder.facts import AttemptFolder, JobFolder, read_reply
from worker.folder.jobs import JobsFolder
from worker.folder.records import Exclusive
from worker.in_job import run, steps
from worker.in_job.publish import publish as publish_answer
from worker.in_job.steps import Placement
from worker.job import facts, judge, retry
from worker.job.facts import Ended, Message, Outcome, Started
from worker.job.judge import Observed, Step
from worker.job.names import JobId
from worker.job.outcome import Reply, Result
from worker.job.snapshot import AttemptFacts, JobFacts
from worker.login import archive, claim, quiet
from worker.login.claiming import Claimed, Claiming
from worker.login.settle import Settler
from worker.settings import Queue, Timing
from worker.sources import Taken

Plant = Callable[[pytest.MonkeyPatch], None]
BUGS: dict[str, Plant] = {}


def bug(plant: Plant) -> Plant:
    BUGS[plant.__name__.replace("_", " ")] = plant
    return plant


@bug
def acks_before_the_message_is_on_disk(patch: pytest.MonkeyPatch) -> None:
    right = Claiming._claim_or_give_back

    def wrong(self: Claiming, queue: Queue, pool: Optional[Pool], deliveries: Sequence[Taken]) -> list[Claimed]:
        self._ends.source(queue).ack(deliveries)
        return right(self, queue, pool, deliveries)

    patch.setattr(Claiming, "_claim_or_give_back", wrong)


@bug
def resubmits_an_unclear_submission_at_once(patch: pytest.MonkeyPatch) -> None:
    def wrong(job: JobFacts, a: AttemptFacts, timing: Timing, max_wait: float, clock: judge.Clock) -> Step:
        return judge._submit(job, a.number, max_wait, clock)

    patch.setattr(judge, "_unclear_submission", wrong)


@bug
def a_second_copy_works_too(patch: pytest.MonkeyPatch) -> None:
    def wrong(job: JobFolder, attempt: AttemptFolder, place: Placement) -> Optional[Started]:
        started = Started(place.scheduler_id, place.restarts, place.node, time.time())
        if job.outcome.path.exists():
            return None
        attempt.started.write(started)
        return started

    patch.setattr(run, "_start", wrong)


@bug
def not_in_the_queue_means_completed(patch: pytest.MonkeyPatch) -> None:
    right = judge.observe

    def wrong(
        a: AttemptFacts, seen: Sequence[JobView], clear: bool, timing: Timing, now: float, others: bool = False
    ) -> Observed:
        gone = not seen and a.slurm_id
        return {"ended": Ended("succeeded", "GONE", now)} if gone else right(a, seen, clear, timing, now, others)

    patch.setattr(judge, "observe", wrong)


@bug
def a_second_copy_of_an_answer_has_a_new_id(patch: pytest.MonkeyPatch) -> None:
    right = read_reply

    def wrong(attempt: AttemptFolder, stem: str, properties: Optional[Reply] = None) -> Reply:
        return replace(right(attempt, stem), timestamp=int(time.time()))

    patch.setattr(answer, "read_reply", wrong)


@bug
def exit_code_0_is_believed_when_memory_ran_out(patch: pytest.MonkeyPatch) -> None:
    right = judge._verdict

    def wrong(job: JobFacts, a: AttemptFacts, result: Result, ended: Ended) -> Result:
        known = result.outcome == "succeeded" and ended.end == "out_of_memory"
        return replace(result, needs_verdict=False) if known else right(job, a, result, ended)

    patch.setattr(judge, "_verdict", wrong)


@bug
def an_answer_is_sent_before_it_is_the_outcome(patch: pytest.MonkeyPatch) -> None:
    def wrong(*what: Any) -> tuple[Outcome, Optional[Reply]]:
        with pytest.MonkeyPatch.context() as late:
            claim = Exclusive.claim
            late.setattr(Exclusive, "claim", lambda fact, said: fact.name == "outcome.json" or claim(fact, said))
            return concluded(*what)

    right = publish_answer

    def publish(config: Any, job: JobFolder, outcome: Outcome, message: Message, reply: Optional[Reply]) -> None:
        right(config, job, outcome, message, reply)
        job.outcome.claim(outcome)

    patch.setattr(run, "concluded", wrong)
    patch.setattr(run, "publish", publish)


@bug
def a_late_attempt_writes_over_the_outcome(patch: pytest.MonkeyPatch) -> None:
    right = Exclusive.claim

    def wrong(fact: Exclusive[Any], said: object) -> bool:
        if fact.name != "outcome.json":
            return right(fact, said)
        fact.write(said)
        return True

    patch.setattr(Exclusive, "claim", wrong)


@bug
def a_job_that_is_not_shown_once_is_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(judge, "is_lost", lambda a, *_: a.absent is not None)


@bug
def duplicates_of_finished_jobs_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: JobsFolder, job_id: JobId, _: Sequence[Path] = ()) -> Optional[JobFolder]:
        places = (self.active, self.rejected, self.undelivered)
        return next((JobFolder(p / job_id) for p in places if (p / job_id / "message.json").exists()), None)

    patch.setattr(JobsFolder, "find", wrong)


@bug
def a_group_is_removed_when_its_first_member_is_done(patch: pytest.MonkeyPatch) -> None:
    def wrong(jobs: JobsFolder, job: JobFolder, group: str, log_file: Path) -> None:
        paths.remove(jobs.group(group))

    patch.setattr(archive, "_end_group", wrong)


@bug
def delivered_is_noted_before_the_broker_confirms(patch: pytest.MonkeyPatch) -> None:
    right = Embedded.send

    def wrong(job: JobFolder, reply: Reply, broker: Any, now: float, note: str) -> None:
        job.delivered.write(facts.Delivered(to=reply.routing_key, at=now, note=note))
        paths.crash_point("before publish")
        right(broker, reply)
        paths.crash_point("after publish")

    patch.setattr(answer, "_publish", wrong)


@bug
def every_redelivery_is_taken_for_known(patch: pytest.MonkeyPatch) -> None:
    right = claim.free_id

    def wrong(jobs: JobsFolder, delivery: Taken, places: Sequence[Path] = ()) -> Optional[JobId]:
        return None if delivery.redelivered else right(jobs, delivery, places)

    patch.setattr(claim, "free_id", wrong)


@bug
def what_nobody_saw_start_is_answered_without_being_closed(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Settler, job: JobFolder, step: judge.Close) -> None:
        attempt = job.attempt(step.attempt)
        paths.make_folder(attempt.path)
        outcome, reason = (step.why.outcome, step.why.reason) if step.why else ("failed", "It ended.")
        answer.record(attempt, Result(outcome, step.attempt, reason, ended_at=time.time()))

    patch.setattr(Settler, "_close", wrong)


@bug
def a_worker_begins_what_was_closed(patch: pytest.MonkeyPatch) -> None:
    def wrong(job: JobFolder, attempt: AttemptFolder, place: Placement) -> Optional[Started]:
        first = attempt.started.read()
        if first is not None and first.closed:
            attempt.started.remove()
        return right(job, attempt, place)

    right = run._start
    patch.setattr(run, "_start", wrong)


@bug
def a_job_that_has_begun_is_withdrawn_all_the_same(patch: pytest.MonkeyPatch) -> None:
    def wrong(attempt: AttemptFolder, why: Optional[facts.Cancel], now: float) -> bool:
        if not fence_close(attempt, why, now):
            attempt.started.write(facts.closed_at(now))
        return True

    fence_close = fence.close
    patch.setattr(fence, "close", wrong)


@bug
def a_program_begins_before_it_is_on_disk_that_it_does(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(steps, "note_begun", lambda *_: None)


@bug
def what_had_begun_and_left_nothing_is_tried_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(retry, "NO_RESULT", "start")


@bug
def a_job_that_was_quiet_once_is_quiet_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(quiet.Row, "still", lambda row, views: True)
    patch.setattr(quiet, "LOOK_AGAIN", 9e9)
