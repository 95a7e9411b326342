"""A results queue that loses answers, or is not there, is warned of; one of a requester who has gone is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from tests.worker.examples import config_for
from worker.amqp.trial import Seen, Trial
from worker.doctor.replies import look_at_replies
from worker.doctor.report import Finding, Report
from worker.folder.jobs import JobsFolder
from worker.job.facts import Message
from worker.job.names import JobId
from worker.settings import Pattern, Queue, Replies, Seconds


class Broker:
    def __init__(self, **queues: Seen) -> None:
        self._queues = queues

    def look(self, queue: Queue) -> Seen:
        return self._queues.get(queue.name, Seen("missing"))


def results(folder: Path, broker: Broker, *patterns: str, create: tuple[str, ...] = ()) -> Finding:
    replies = Replies(tuple(map(Pattern, patterns)), tuple(map(Pattern, create)), True, Seconds(3600))
    site = replace(config_for(folder).site, replies=replies)
    report = Report("broker")
    look_at_replies(report, cast(Trial, broker), site)
    (found,) = [each for each in report.findings if each.check == "results queues"]
    return found


DURABLE, TRANSIENT, UNKNOWN = Seen("there", known=True, durable=True), Seen("there", known=True), Seen("there")


@pytest.mark.parametrize(("seen", "mark", "words"), [
    (DURABLE, "ok", "results"), (TRANSIENT, "warning", "results: not durable"), (UNKNOWN, "ok", "it can't be seen"),
    (Seen("missing"), "warning", "results: not there"),
])  # fmt: skip
def test_a_results_queue_that_loses_answers_is_warned_of(tmp_path: Path, seen: Seen, mark: str, words: str) -> None:
    line = results(tmp_path, Broker(results=seen), "results", "x*")

    assert line.mark == mark and words in line.found and bool(line.mend) == (mark == "warning")


def test_one_that_a_pass_may_make_need_not_be_there(tmp_path: Path) -> None:
    assert results(tmp_path, Broker(), "results", create=("res*",)).mark == "ok"


@pytest.mark.parametrize(("place", "seen", "mark"), [
    ("active", Seen("missing"), "warning"), ("done/2026-01-02", Seen("missing"), "ok"),
    ("active", TRANSIENT, "warning"), ("done/2026-01-02", TRANSIENT, "warning"),
])  # fmt: skip
def test_queues_that_jobs_name_are_looked_at_and_may_be_gone_when_they_are_done(
    tmp_path: Path, place: str, seen: Seen, mark: str
) -> None:
    jobs = JobsFolder(config_for(tmp_path).site.jobs_dir)
    jobs.prepare()
    (jobs.path / place).mkdir(exist_ok=True)
    job = jobs.job(JobId("a"))
    job.path.mkdir()
    job.message.write(message("answers"))
    job.path.rename(jobs.path / place / "a")

    assert results(tmp_path, Broker(answers=seen), "*").mark == mark


def message(reply_to: str) -> Message:
    return Message(1, "jobs", "{}", 2, {"reply_to": reply_to}, 1.0)
