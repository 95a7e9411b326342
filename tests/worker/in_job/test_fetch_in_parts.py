"""A download that was cut goes on where it was, several run side by side, and what came is what the message described."""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import threading
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.services.upstream import Answer, Upstream
from tests.worker.in_job.test_fetch import PATIENCE, Clock, Job, clock
from worker.errors import StepFailed
from worker.in_job import fetch as fetching
from worker.in_job.interrupt import Interrupted, Interrupts
from worker.job.spec import Input
from worker.partial import Room
from worker.settings import Seconds

__all__ = ["clock"]
BODY = os.urandom(5000)
TAG = '"v1"'


@pytest.fixture
def job(tmp_path: Path, upstream: Upstream, clock: Clock) -> Job:
    upstream.add("/a", BODY)
    upstream.tags["/a"] = TAG
    return Job(tmp_path, upstream, fetch_patience=Seconds(10))


def fetched(job: Job, **said: Any) -> bytes:
    """What came of /a, of which the message said so much."""
    spec = job.spec({"Image": Input(job.url("/a"), "0", True, **said)})
    fetching.fetch(job.config, spec, job.token_file, job.folder)
    return (job.folder / "0").read_bytes()


def failure(job: Job, **said: Any) -> StepFailed:
    with pytest.raises(StepFailed) as failed:
        fetched(job, **said)
    return failed.value


def asked(job: Job) -> list[tuple[str, str]]:
    """Of each download: Range and If-Range."""
    return [
        (each.headers.get("Range", ""), each.headers.get("If-Range", ""))
        for each in job.upstream.requests
        if each.method == "GET"
    ]


def test_a_download_that_was_cut_goes_on_where_it_was(job: Job) -> None:
    job.upstream.script("/a", Answer(cut=2000), Answer(cut=1000))

    assert fetched(job) == BODY
    assert asked(job) == [("", ""), ("bytes=2000-", TAG), ("bytes=3000-", TAG)]


def test_a_file_that_has_changed_meanwhile_comes_from_the_start(job: Job) -> None:
    newer = b"x" * 6000
    real = job.upstream.next_answer

    def change_after_the_cut(path: str) -> Answer:
        if asked(job)[1:]:
            job.upstream.files["/a"], job.upstream.tags["/a"] = newer, '"v2"'
        return real(path)

    job.upstream.script("/a", Answer(cut=2000))
    job.upstream.next_answer = change_after_the_cut  # type: ignore[method-assign]

    assert fetched(job) == newer


@pytest.mark.parametrize("tag", ["", 'W/"v1"', "v1"])
def test_without_a_strong_validator_nothing_is_put_together(job: Job, tag: str) -> None:
    job.upstream.tags["/a"] = tag
    job.upstream.script("/a", Answer(cut=2000))

    assert fetched(job) == BODY
    assert asked(job) == [("", ""), ("", "")]


def test_a_server_that_gives_no_parts_begins_anew(job: Job) -> None:
    job.upstream.script("/a", Answer(cut=2000), Answer(whole=True))

    assert fetched(job) == BODY
    assert len(asked(job)) == 2


@pytest.mark.parametrize("says", ["bytes 0-4999/5000", "bytes 2000-4999/5001", "bytes */5000", "", "2000"])
def test_another_part_than_the_one_asked_for_is_not_taken(job: Job, says: str) -> None:
    part = Answer(status=206, headers={"Content-Range": says}, body=b"x" * 3000)
    job.upstream.script("/a", Answer(cut=2000), part)

    assert fetched(job) == BODY
    assert asked(job)[2] == ("", "")


def test_a_part_of_another_version_is_not_taken_from_a_server_that_does_not_heed_if_range(job: Job) -> None:
    part = Answer(status=206, headers={"Content-Range": "bytes 2000-4999/5000", "ETag": '"v2"'}, body=b"x" * 3000)
    job.upstream.script("/a", Answer(cut=2000), part)

    assert fetched(job) == BODY
    assert asked(job)[2] == ("", "")


def test_a_packed_answer_is_never_put_together(job: Job) -> None:
    packed = zlib.compress(BODY)
    job.upstream.files["/a"] = packed
    coded = Answer(headers={"Content-Encoding": "deflate"})
    job.upstream.script("/a", replace(coded, cut=100), coded)

    assert fetched(job) == BODY
    assert asked(job) == [("", ""), ("", "")]


def test_what_is_whole_already_is_no_fault_where_nothing_follows(job: Job) -> None:
    """Of an answer without a length, the last byte came, and then the connection was cut."""
    job.upstream.script("/a", Answer(status=200, headers={"ETag": TAG}, body=BODY, length=len(BODY) + 1))

    assert fetched(job) == BODY
    assert asked(job) == [("", ""), ("bytes=5000-", TAG)]


def test_our_patience_begins_anew_with_each_piece_that_comes(job: Job, clock: Clock) -> None:
    cuts = [Answer(cut=100)] * 30
    job.upstream.script("/a", *cuts)

    assert fetched(job) == BODY
    assert clock.monotonic() > 10


def test_a_download_that_never_gets_further_ends_with_our_patience(job: Job, clock: Clock) -> None:
    job.upstream.tags["/a"] = ""
    job.upstream.script("/a", *[Answer(cut=100)] * 99)

    assert "could not be downloaded within 10 s" in failure(job).reason
    assert clock.monotonic() == pytest.approx(10)


def test_a_token_that_expires_each_time_is_renewed_each_time_something_came(job: Job) -> None:
    job.upstream.script("/a", Answer(cut=1000), Answer(status=401), Answer(cut=1000), Answer(status=403), Answer())

    assert fetched(job) == BODY
    assert len(job.upstream.paths("POST")) == 2


# --- what the message says of it


def test_what_came_is_held_against_what_the_message_says(job: Job) -> None:
    assert fetched(job, size=5000, sha256=hashlib.sha256(BODY).hexdigest()) == BODY


def test_another_digest_is_named_and_final(job: Job) -> None:
    failed = failure(job, sha256="0" * 64)

    assert failed.reason == (
        'The input "Image" is not the file that the job message describes: its SHA-256 digest is another one.'
    )
    assert not failed.may_work_again and len(asked(job)) == 1


def test_parts_that_do_not_fit_together_come_once_more_from_the_start(job: Job) -> None:
    wrong = Answer(status=206, headers={"Content-Range": "bytes 2000-4999/5000"}, body=b"x" * 3000)
    job.upstream.script("/a", Answer(cut=2000), wrong)

    assert fetched(job, sha256=hashlib.sha256(BODY).hexdigest()) == BODY
    assert asked(job)[2] == ("", "")


def test_another_length_is_named_before_anything_is_read(job: Job) -> None:
    assert failure(job, size=4999).reason == (
        'The input "Image" has 5000 bytes, not the 4999 bytes that the job message says.'
    )


def test_a_body_without_a_length_ends_where_the_message_says(job: Job) -> None:
    job.config = replace(
        job.config, site=replace(job.config.site, api=replace(job.config.site.api, unknown_length=True))
    )
    job.upstream.script("/a", Answer(endless=True))

    assert failure(job, size=10**6).reason == (
        'The input "Image" has more than the 1000000 bytes that the job message says.'
    )


def test_a_bomb_ends_where_the_message_says(job: Job) -> None:
    job.upstream.files["/a"] = zlib.compress(b"\0" * 10**7)
    job.upstream.script("/a", Answer(headers={"Content-Encoding": "deflate"}))

    assert "more than the 5000 bytes" in failure(job, size=5000).reason
    assert (job.folder / "0").stat().st_size <= 5000


# --- the disk


def test_free_space_is_looked_at_before_the_first_byte(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    free = os.statvfs_result((4096, 4096, 10, 1, 1, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: free)

    failed = failure(job)

    assert failed.reason == 'The input "Image" could not be stored: 5000 bytes follow, and there is room for 4096.'
    assert failed.may_work_again and not (job.folder / "0").exists()


def test_inputs_that_come_at_the_same_time_share_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = os.statvfs_result((1, 1, 1000, 100, 100, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: free)
    room = Room(10**9, tmp_path)
    room.expect("one", 60)

    with pytest.raises(StepFailed, match="41 bytes follow, and there is room for 100"):
        room.expect("two", 41)
    room.expect("one", 59)
    room.expect("two", 41)


# --- several at the same time


def side_by_side(job: Job, names: str, at_once: int) -> int:
    """Fetches as many, each of which waits until `at_once` are under way; returns the most that ever were."""
    api = replace(job.config.site.api, fetch_at_once=at_once, fetch_patience=PATIENCE)
    job.config = replace(job.config, site=replace(job.config.site, api=api))
    together, lock, under_way, most = threading.Barrier(at_once, timeout=20), threading.Lock(), [0], [0]
    for name in names:
        job.upstream.add(f"/{name}", name.encode())
    real: Callable[[str], Answer] = job.upstream.next_answer

    def wait_for_the_others(path: str) -> Answer:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        together.wait()
        with lock:
            under_way[0] -= 1
        return real(path)

    job.upstream.next_answer = wait_for_the_others  # type: ignore[method-assign]
    assert job.fetch(*(f"/{name}" for name in names)) == [name.encode() for name in names]
    return most[0]


def test_as_many_inputs_come_at_the_same_time_as_the_site_says(tmp_path: Path, upstream: Upstream) -> None:
    assert side_by_side(Job(tmp_path, upstream), "bcdefg", 3) == 3


def test_an_input_that_fails_ends_the_others(tmp_path: Path, upstream: Upstream) -> None:
    job = Job(tmp_path, upstream)
    upstream.add("/b", b"b")
    upstream.script("/b", Answer(delay=60))

    assert job.failure("/gone", "/b").reason == 'The input "Input 0" does not exist.'


def test_one_login_is_enough_for_all_that_find_the_token_expired(tmp_path: Path, upstream: Upstream) -> None:
    job = Job(tmp_path, upstream)
    for name in "bcde":
        upstream.add(f"/{name}", b"x")
    upstream.expire_tokens()

    assert job.fetch("/b", "/c", "/d", "/e") == [b"x"] * 4
    assert len(upstream.paths("POST")) == 1


def test_without_threads_inputs_come_one_after_the_other(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path, upstream)
    upstream.add("/b", b"b")
    upstream.add("/c", b"c")

    start = threading.Thread.start

    def none_for_us(thread: threading.Thread) -> None:
        if thread.name == "fetch":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", none_for_us)

    assert job.fetch("/b", "/c") == [b"b", b"c"]


def test_the_time_limit_ends_a_fetch_and_nothing_is_written_afterwards(tmp_path: Path, upstream: Upstream) -> None:
    job = Job(tmp_path, upstream)
    upstream.add("/b", b"b")
    upstream.script("/b", Answer(delay=60))

    with Interrupts(0.5) as interrupts, pytest.raises(Interrupted), interrupts.allowed():
        job.fetch("/b")
    upstream.stopping.set()

    assert not (job.folder / "0").exists()


def test_every_ten_seconds_the_log_tells_how_far_it_is(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    class Ticks(queue.SimpleQueue):  # type: ignore[type-arg]
        left = 2

        def get(self, block: bool = True, timeout: Any = None) -> Any:
            self.left -= 1
            if self.left >= 0:
                assert timeout == 10
                room.take("Image", 10**7)
                raise queue.Empty
            return None

    room = Room(10**9, tmp_path)
    with caplog.at_level(logging.INFO):
        fetching._wait_for_all({"Image": Input("", "0", False)}, room, Ticks())

    assert caplog.messages == [
        f"fetching inputs=0/1 bytes={n}0000000 speed=1.0 MB/s" for n in (1, 2)
    ]  # fmt: skip
