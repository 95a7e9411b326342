"""A result becomes the job's one answer: on disk before it is named, named before it is sent, and sent again to the byte."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional, Union

import pytest

from tests.worker.examples import NOW, QUEUE
from worker.errors import Damaged, TooLarge, Transient, Unroutable
from worker.folder import paths
from worker.folder.answer import conclude, deliver, record, refused_reply_to
from worker.folder.facts import AttemptFolder, JobFolder
from worker.job.facts import Delivered, Message, Outcome
from worker.job.outcome import Output, Reply, Result
from worker.settings import Pattern, Replies, Seconds, Site

SITE = Site((QUEUE,), {}, replies=Replies(retry_wait=Seconds(20), give_up_after=Seconds(100)))
FAILED = Result("failed", 1, "It broke.", ended_at=NOW)


class Wire:
    """What a broker does with a reply, and what has been sent."""

    def __init__(self, *faults: Optional[Exception]) -> None:
        self.faults = list(faults)
        self.sent: list[Reply] = []

    def send(self, reply: Reply) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        self.sent.append(reply)


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    return claimed(tmp_path)


def claimed(place: Path, **properties: Union[str, bytes, int, None]) -> JobFolder:
    job = JobFolder(place / "abc")
    paths.make_folder(job.attempt(1).path)
    known = {"reply_to": "answers", "correlation_id": "c-1", **properties}
    job.message.write(Message(1, "jobs", "{}", 2, known, NOW))
    return job


def concluded(job: JobFolder, result: Result = FAILED, by: str = "login") -> Outcome:
    return conclude(job, job.attempt(1), result, SITE.replies, by, NOW + 0.5)


def send(job: JobFolder, wire: Any, now: float = NOW, site: Site = SITE) -> None:
    outcome = job.outcome.read()
    assert outcome is not None
    deliver(job, outcome, lambda _: wire, site, lambda: now)


def success(attempt: AttemptFolder) -> Result:
    paths.write_bytes(attempt.reply_body("reply-9"), b'{"Model 0": "b25l"}')
    return Result("succeeded", 1, outputs={"Model 0": Output(3, "aa")}, body="reply-9", ended_at=NOW, exit_code=0)


# --- results


def test_the_first_result_counts_and_a_later_one_is_kept_beside_it(job: JobFolder) -> None:
    late = replace(FAILED, outcome="node_failed")

    assert record(job.attempt(1), FAILED) == FAILED
    assert record(job.attempt(1), late) == FAILED

    assert job.attempt(1).result.read() == FAILED
    assert job.attempt(1).late_result.read() == late


def test_a_result_that_can_t_be_read_is_not_written_over(job: JobFolder) -> None:
    job.attempt(1).result.path.write_text("{")

    with pytest.raises(Damaged):
        record(job.attempt(1), FAILED)
    assert job.attempt(1).result.path.read_text() == "{"


# --- outcomes


def test_the_first_outcome_counts(job: JobFolder) -> None:
    ours = concluded(job, by="job")
    theirs = concluded(job, replace(FAILED, outcome="lost"))

    assert ours == theirs == job.outcome.read()
    assert (ours.outcome, ours.attempt, ours.by) == ("failed", 1, "job")


@pytest.mark.parametrize("kind", ["failure", "success"])
def test_the_reply_is_on_disk_before_the_outcome_names_it(
    job: JobFolder, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    result = FAILED if kind == "failure" else success(job.attempt(1))
    seen: list[list[str]] = []

    def passing(step: str) -> None:
        if step == "before outcome.json":
            seen.append(sorted(path.suffix for path in job.attempt(1).path.glob("reply-*")))

    monkeypatch.setattr(paths, "crash_point", passing)
    concluded(job, result)

    assert seen == [[".bin", ".json"]]


def test_a_crash_between_reply_and_outcome_leaves_one_outcome(job: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def passing(step: str) -> None:
        if step == "before outcome.json":
            raise KeyboardInterrupt

    with monkeypatch.context() as crash, pytest.raises(KeyboardInterrupt):
        crash.setattr(paths, "crash_point", passing)
        concluded(job)

    wire = Wire()
    concluded(job)
    send(job, wire)

    assert len(wire.sent) == 1


# --- replies


def test_a_failure_is_told_in_a_sentence_and_its_facts_in_headers(job: JobFolder) -> None:
    concluded(job)
    wire = Wire()

    send(job, wire)

    (reply,) = wire.sent
    assert json.loads(reply.body) == {"error": "It broke."}
    assert (reply.routing_key, reply.correlation_id, reply.message_id) == ("answers", "c-1", "abc")
    assert (reply.type, reply.content_type, reply.timestamp) == ("error", "application/json", int(NOW))
    assert reply.expiration_ms == 7 * 86400 * 1000
    assert (reply.headers["outcome"], reply.headers["job_id"]) == ("failed", "abc")
    assert job.delivered.read() == Delivered("answers", NOW)


def test_a_success_sends_the_packed_body_as_it_lies_there(job: JobFolder) -> None:
    concluded(job, success(job.attempt(1)))
    wire = Wire()

    send(job, wire)

    assert (wire.sent[0].body, wire.sent[0].type) == (b'{"Model 0": "b25l"}', "result")


def test_a_reply_that_is_sent_again_is_equal_to_the_byte(job: JobFolder) -> None:
    concluded(job)
    wire = Wire()

    send(job, wire, now=NOW)
    job.delivered.path.unlink()  # the power failed between the confirm and our note of it
    send(job, wire, now=NOW + 999)

    assert wire.sent[0] == wire.sent[1]


def test_a_reply_that_was_sent_is_not_changed_by_who_comes_late(job: JobFolder) -> None:
    result = success(job.attempt(1))
    conclude(job, job.attempt(1), result, SITE.replies, "job", NOW)
    wire = Wire()
    send(job, wire)

    conclude(job, job.attempt(1), result, SITE.replies, "login", NOW + 99)
    send(job, wire)

    assert wire.sent[0] == wire.sent[1]


@pytest.mark.parametrize("correlation_id", [b"\xff\xfe", "", None, "x" * 255])
def test_any_correlation_id_goes_back_as_it_came(tmp_path: Path, correlation_id: Union[str, bytes, None]) -> None:
    job = claimed(tmp_path, correlation_id=correlation_id)
    concluded(job)
    wire = Wire()

    send(job, wire)

    assert wire.sent[0].correlation_id == correlation_id


def test_a_broker_that_is_away_leaves_the_answer_for_later(job: JobFolder) -> None:
    concluded(job)
    wire = Wire(Transient("away"))

    with pytest.raises(Transient):
        send(job, wire)
    assert not job.delivered.path.exists()

    send(job, wire)
    assert job.delivered.path.exists() and len(wire.sent) == 1


def test_an_answer_whose_queue_is_gone_is_kept_for_a_while_and_then_given_up(job: JobFolder) -> None:
    concluded(job)
    wire = Wire(*[Unroutable("answers")] * 3)

    send(job, wire, now=NOW)
    send(job, wire, now=NOW + 99)
    assert not job.undeliverable.path.exists()

    send(job, wire, now=NOW + 100)

    given_up = job.undeliverable.read()
    assert given_up is not None and "answers, for longer than 100 s" in given_up.why
    assert not job.delivered.path.exists() and wire.sent == []


def test_between_two_tries_more_time_passes_each_time_but_never_beyond_the_end(job: JobFolder) -> None:
    concluded(job)
    waits, now = [], NOW
    for _ in range(3):
        send(job, Wire(Unroutable("answers")), now=now)
        kept = job.unroutable.read()
        assert kept is not None
        waits.append(kept.again_at - now)
        now = kept.again_at

    assert waits == [20, 40, 40]  # give_up_after is 100 s


def test_an_answer_whose_queue_comes_back_is_sent(job: JobFolder) -> None:
    concluded(job)
    wire = Wire(Unroutable("answers"))

    send(job, wire, now=NOW)
    send(job, wire, now=NOW + 99)

    assert len(wire.sent) == 1 and job.delivered.path.exists()


def test_outputs_that_no_message_can_carry_are_answered_with_an_error(job: JobFolder) -> None:
    concluded(job, success(job.attempt(1)))
    wire = Wire(TooLarge("larger than max size"))

    send(job, wire, site=replace(SITE, jobs_dir=job.path.parent))

    (reply,) = wire.sent
    until = time.strftime("%Y-%m-%d", time.gmtime(reply.timestamp + 14 * 86400))
    kept = f" They are kept on the cluster, until {until} at the latest."
    assert json.loads(reply.body)["error"] == f"The outputs are too large to be sent back: they make 19 bytes.{kept}"
    assert (reply.type, reply.headers["outcome"], reply.correlation_id) == ("error", "failed", "c-1")
    assert "outputs" not in reply.headers and reply.message_id == "abc"
    delivered = job.delivered.read()
    assert delivered is not None and "too large" in delivered.note


@pytest.mark.parametrize("reply_to", [None, ""])
def test_a_message_that_wants_no_answer_is_done_without_one(tmp_path: Path, reply_to: Optional[str]) -> None:
    job = claimed(tmp_path, reply_to=reply_to)
    concluded(job)
    wire = Wire()

    send(job, wire)

    delivered = job.delivered.read()
    assert delivered is not None and delivered.to == "" and wire.sent == []


@pytest.mark.parametrize("reply_to", [b"\xff", "jobs"])
def test_an_answer_that_may_not_go_where_it_should_is_given_up(tmp_path: Path, reply_to: Union[str, bytes]) -> None:
    job = claimed(tmp_path, reply_to=reply_to)
    concluded(job)
    wire = Wire()

    send(job, wire)

    assert job.undeliverable.path.exists() and not job.delivered.path.exists() and wire.sent == []


@pytest.mark.parametrize(("name", "patterns", "words"), [
    ("answers", ("*",), None), ("answers", ("answers",), None), ("answers-7", ("x", "answers*"), None), (None, (), None),
    ("", (), None), ("answers", (), "not among"), ("answers2", ("answers",), "not among"),
    ("Answers", ("answers*",), "not among"),
    ("jobs", ("*",), "is a jobs queue"), (b"\xff", ("*",), "not UTF-8"), (7, ("*",), "not UTF-8"),
])  # fmt: skip
def test_where_answers_may_go_is_the_site_s_to_say(
    name: Union[str, bytes, int, None], patterns: tuple[str, ...], words: Optional[str]
) -> None:
    site = replace(SITE, replies=Replies(patterns=tuple(map(Pattern, patterns))))

    refusal = refused_reply_to(name, site)

    assert refusal is None if words is None else words in (refusal or "")
