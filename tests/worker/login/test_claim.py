"""A message becomes a folder before the broker forgets it; the same message again does not become a second job."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.folder import paths
from worker.folder.facts import JobFolder
from worker.folder.jobs import JobsFolder
from worker.folder.moves import move_job
from worker.job.facts import Message
from worker.login.claim import claim, note_acked, sync_names
from worker.sources import Properties, Taken, digest

WITH_ID = Properties(reply_to="answers", correlation_id="c-1")
WITHOUT_ID = Properties(reply_to="answers")


@pytest.fixture
def jobs(tmp_path: Path) -> JobsFolder:
    jobs = JobsFolder(tmp_path)
    jobs.prepare()
    return jobs


def delivery(body: bytes = b"{}", properties: Properties = WITH_ID, redelivered: bool = False,
             queue: str = "jobs") -> Taken:  # fmt: skip
    return Taken(queue, body, properties, redelivered, tag=1)


def take(jobs: JobsFolder, what: Taken, keep_bytes: int = 1000) -> Optional[JobFolder]:
    claimed = claim(jobs, what, keep_bytes, now=5.0)
    sync_names(jobs)
    return claimed.job if claimed else None


def read(job: Optional[JobFolder]) -> Message:
    assert job is not None
    message = job.message.read()
    assert message is not None
    return message


def test_a_message_is_kept_as_it_came(jobs: JobsFolder) -> None:
    properties = Properties("answers", b"\xff", "m", "60000", 2**63, "application/json", headers=b"\0\1")

    message = read(take(jobs, delivery(b'{"a": 1}', properties)))

    assert (message.queue, message.body, message.body_size, message.claimed_at) == ("jobs", '{"a": 1}', 8, 5.0)
    assert message.properties == {
        "reply_to": "answers", "correlation_id": b"\xff", "message_id": "m", "expiration": "60000", "timestamp": 2**63,
        "content_type": "application/json", "headers": b"\0\1",
    }  # fmt: skip


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", "ä".encode(), b"\0"])
def test_any_body_is_kept(jobs: JobsFolder, body: bytes) -> None:
    kept = read(take(jobs, delivery(body))).body

    assert (kept.encode() if isinstance(kept, str) else kept) == body


def test_of_a_body_that_is_too_large_only_as_much_is_kept_as_shows_that(jobs: JobsFolder) -> None:
    message = read(take(jobs, delivery("ä".encode() * 500), keep_bytes=10))

    assert message.body_size == 1000
    assert len(message.body.encode() if isinstance(message.body, str) else message.body) == 11


@pytest.mark.parametrize("redelivered", [False, True])
def test_a_message_with_an_id_becomes_one_job(jobs: JobsFolder, redelivered: bool) -> None:
    first = take(jobs, delivery())
    second = take(jobs, delivery(redelivered=redelivered))

    assert first is not None and second is None
    assert os.listdir(jobs.active) == [first.id]


@pytest.mark.parametrize("place", ["rejected", "undelivered", "done/2024-01-01"])
def test_a_message_of_a_job_that_is_over_becomes_no_second_one(jobs: JobsFolder, place: str) -> None:
    job = take(jobs, delivery())
    assert job is not None
    move_job(job, jobs.path / place)

    assert take(jobs, delivery(redelivered=True)) is None


def test_a_claim_that_was_interrupted_before_the_message_was_written_is_completed(jobs: JobsFolder) -> None:
    (jobs.active / digest(delivery())).mkdir()

    assert read(take(jobs, delivery(redelivered=True))).body == "{}"


@pytest.mark.parametrize("step", ["before message.json", "after message.json"])
def test_a_crash_while_claiming_neither_loses_the_message_nor_doubles_it(
    jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def passing(now: str) -> None:
        if now == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as crash, pytest.raises(KeyboardInterrupt):
        crash.setattr(paths, "crash_point", passing)
        take(jobs, delivery())

    again = take(jobs, delivery(redelivered=True))

    assert (again is not None) == step.startswith("before")
    (job,) = jobs.active_jobs()
    assert read(job).body == "{}"


# --- messages without any id


def test_equal_messages_without_an_id_are_two_jobs(jobs: JobsFolder) -> None:
    first, second, third = (take(jobs, delivery(properties=WITHOUT_ID)) for _ in range(3))

    assert first and second and third
    assert [second.id, third.id] == [f"{first.id}-2", f"{first.id}-3"]


def test_a_redelivery_without_an_id_whose_ack_was_never_settled_is_the_same_job(jobs: JobsFolder) -> None:
    take(jobs, delivery(properties=WITHOUT_ID))

    assert take(jobs, delivery(properties=WITHOUT_ID, redelivered=True)) is None


def test_a_redelivery_without_an_id_is_another_job_when_ours_was_surely_acked(jobs: JobsFolder) -> None:
    first = take(jobs, delivery(properties=WITHOUT_ID))
    assert first is not None
    note_acked(jobs, delivery(properties=WITHOUT_ID), 6.0)

    second = take(jobs, delivery(properties=WITHOUT_ID, redelivered=True))

    assert second is not None and second.id == f"{first.id}-2"
    assert take(jobs, delivery(properties=WITHOUT_ID, redelivered=True)) is None


def test_an_ack_is_noted_for_each_of_several_equal_messages(jobs: JobsFolder) -> None:
    first = take(jobs, delivery(properties=WITHOUT_ID))
    note_acked(jobs, delivery(properties=WITHOUT_ID), 6.0)
    second = take(jobs, delivery(properties=WITHOUT_ID))
    assert first and second
    before = (first.acked.path.exists(), second.acked.path.exists())

    note_acked(jobs, delivery(properties=WITHOUT_ID), 6.0)

    assert (before, second.acked.path.exists()) == ((True, False), True)


# --- the name of a job


@pytest.mark.parametrize("other", [
    delivery(b"{} "), delivery(queue="other"), delivery(properties=replace(WITH_ID, correlation_id="c-2")),
    delivery(properties=replace(WITH_ID, reply_to="others")), delivery(properties=replace(WITH_ID, message_id="m")),
    delivery(properties=replace(WITH_ID, correlation_id=None, message_id="c-1")), delivery(properties=WITHOUT_ID),
    delivery(properties=replace(WITH_ID, reply_to=None)), delivery(properties=replace(WITH_ID, message_id="")),
])  # fmt: skip
def test_a_different_message_has_another_name(other: Taken) -> None:
    assert digest(other) != digest(delivery())


@pytest.mark.parametrize("same", [
    delivery(redelivered=True), delivery(properties=replace(WITH_ID, timestamp=7, expiration="1", headers=b"x", type="t")),
])  # fmt: skip
def test_what_the_broker_may_change_is_not_in_the_name(same: Taken) -> None:
    assert digest(same) == digest(delivery())


TEXT = st.none() | st.text(max_size=3) | st.binary(max_size=3)


@given(st.tuples(TEXT, TEXT, TEXT, st.binary(max_size=3)), st.tuples(TEXT, TEXT, TEXT, st.binary(max_size=3)))
def test_a_name_is_safe_and_tells_messages_apart(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    names = [digest(delivery(body, Properties(r, c, m))) for r, c, m, body in (one, other)]

    assert all(len(name) == 32 and name.isalnum() and name.isascii() for name in names)
    assert (names[0] == names[1]) == (as_sent(one) == as_sent(other))


def as_sent(parts: tuple[Any, ...]) -> list[Optional[bytes]]:
    return [part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part for part in parts]


# --- whoever claims may be killed before a name is on disk


@pytest.mark.parametrize("killed", ["after its folder was made", "after message.json had its name"])
def test_a_claim_that_was_killed_is_on_disk_before_its_message_is_acked_the_next_time(
    jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    with monkeypatch.context() as patch:

        def power_fails(path: Path) -> None:
            raise KeyboardInterrupt

        patch.setattr(paths, "sync_folder", power_fails if "folder" in killed else lambda path: None)
        if "folder" not in killed:
            link = os.link

            def link_and_die(source: Path, target: Path) -> None:
                link(source, target)
                raise KeyboardInterrupt

            patch.setattr(os, "link", link_and_die)
        with pytest.raises(KeyboardInterrupt):
            take(jobs, delivery())
    synced: list[Path] = []
    monkeypatch.setattr(paths, "sync_folder", synced.append)

    take(jobs, delivery(redelivered=True))

    (job,) = jobs.active_jobs()
    assert job.message.path.exists() and {job.path, jobs.active} <= set(synced)
