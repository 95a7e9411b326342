"""The job folder: what is written is there whole or not at all, comes back as it was, and of several writers one wins."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.damage import OF_A_FILE, OF_A_FOLDER
from tests.worker.examples import SPEC
from worker.errors import Damaged
from worker.folder import paths
from worker.folder.facts import JobFolder, read_reply, read_result, write_reply
from worker.folder.jobs import JobsFolder
from worker.folder.moves import move_job
from worker.folder.records import Exclusive, Fact
from worker.job import facts
from worker.job.facts import (
    Absent,
    Acked,
    Cancel,
    Delivered,
    Ended,
    Group,
    Intent,
    Message,
    NotTaken,
    SiteFault,
    Started,
    Stuck,
    Submission,
    Undeliverable,
)
from worker.job.names import JobId
from worker.job.outcome import Output, Reply, Result
from worker.job.spec import JobSpec, Resources

FACTS = [
    Message(1, "jobs", "body \u00e4 \U0001f600", 7, {"reply_to": "r", "timestamp": 2**63, "headers": b"\0\xff"}, 1.5),
    Message(1, "jobs", b"\xff\0", 10**9, {"correlation_id": b"\xff", "message_id": None}, 1),
    Acked(1.0), Submission("12_3", 1.0, True), Submission("12", 1.0),
    Intent("g", "bf-a-g", 3, Resources(2, 16000, 3600, "gpu:1"), 1.0),
    Started("12", 2, "n1", 1.0), Ended("failed", "FAILED", 1.0, "3:0", "n1", "mary"), Absent(1.0, 2),
    Stuck("BadConstraints", 1.0), Cancel("expired", "words", 1.0), facts.Outcome("lost", 2, "reply-1", "login", 1.0),
    Delivered("r", 1.0, "note"), Undeliverable("why", 1.0), NotTaken(1.0, "no queue", 2, 5.0),
    SiteFault("login", "words", 1.0), facts.Paused("anna@login1", 1.0, True, "why"),
    Group({"0": ("a", 1), "7": ("b", 2)}), Group({}), SPEC,
    JobSpec("w", {}, {}, {"base64": "eA==", "deep": {"base64": {"base64": "eA=="}}, "x": [None, 1.5, "\ud800"]},
            SPEC.resources),
    Result("succeeded", 1, outputs={"A": Output(3, "aa")}, body="reply-1", needs_verdict=True, exit_code=0),
    Result("failed", 3, "reason", "fetch", True, False, 3, 9, "n1", "12", 1.0, 2.0),
]  # fmt: skip


@dataclass(frozen=True)
class Nonce:
    value: str


class PowerFailure(Exception):
    pass


@pytest.fixture
def failing_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The power fails at the steps named here."""
    steps: list[str] = []

    def passing(step: str) -> None:
        if step in steps:
            raise PowerFailure(step)

    monkeypatch.setattr(paths, "crash_point", passing)
    yield steps


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
def test_every_fact_comes_back_as_it_was(tmp_path: Path, fact: object) -> None:
    Fact(tmp_path / "fact.json", type(fact)).write(fact)

    assert Fact(tmp_path / "fact.json", type(fact)).read() == fact


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
def test_an_exclusive_fact_comes_back_as_it_was(tmp_path: Path, fact: object) -> None:
    assert Exclusive(tmp_path / "fact.json", type(fact)).claim(fact)

    assert Fact(tmp_path / "fact.json", type(fact)).read() == fact


def in_memory() -> tempfile.TemporaryDirectory[str]:
    """Where writing durably costs nothing: for tests that do it a hundred times."""
    return tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)


VALUES = st.text() | st.binary() | st.integers(-(2**63), 2**64 - 1) | st.none()
TIMES = st.floats(-1e11, 2e11)


@given(st.text() | st.binary(), st.dictionaries(st.text(), VALUES), st.integers(0, 2**63), TIMES)
def test_any_message_comes_back_as_it_was(body: Any, properties: dict[str, Any], size: int, at: float) -> None:
    message = Message(1, "jobs", body, size, properties, at)

    with in_memory() as place:
        Fact(Path(place, "message.json"), Message).write(message)
        assert Fact(Path(place, "message.json"), Message).read() == message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("base64"), inner), max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text(), JSON))
def test_any_settings_come_back_as_they_were(settings: dict[str, Any]) -> None:
    spec = JobSpec("w", SPEC.inputs, SPEC.outputs, settings, SPEC.resources)

    with in_memory() as place:
        Fact(Path(place, "spec.json"), JobSpec).write(spec)
        assert Fact(Path(place, "spec.json"), JobSpec).read() == spec


@pytest.mark.parametrize("correlation_id", ["c", b"\xff", None, ""])
def test_a_reply_comes_back_to_the_byte(tmp_path: Path, correlation_id: Any) -> None:
    attempt = JobFolder(tmp_path).attempt(1)
    paths.make_folder(attempt.path)
    headers = {"job_id": "a", "outputs": {"base64": {"size": 1, "sha256": "aa"}}, "exit_code": 0}
    reply = Reply("r", correlation_id, b'{"A": "eA=="}\0\xff', "result", "a", 7, 1000, headers)

    paths.write_bytes(attempt.reply_body("reply-1"), reply.body)
    write_reply(attempt, "reply-1", reply)

    assert read_reply(attempt, "reply-1") == reply


def test_a_reply_that_is_missing_is_damage(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="reply-1 is missing"):
        read_reply(JobFolder(tmp_path).attempt(1), "reply-1")


def test_no_file_is_no_fact(tmp_path: Path) -> None:
    assert Fact(tmp_path / "nothing.json", Nonce).read() is None
    assert Fact(tmp_path / "no folder" / "nothing.json", Nonce).read() is None


def test_a_file_in_the_place_of_its_folder_is_damage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(Damaged, match="file/nothing.json can't be read"):
        Fact(tmp_path / "file" / "nothing.json", Nonce).read()


def test_keys_of_a_newer_version_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "absent.json").write_text('{"since": 1.0, "answers": 2, "newer": {"x": 1}}')

    assert Fact(tmp_path / "absent.json", Absent).read() == Absent(1.0, 2)


def test_a_fact_of_an_older_version_gets_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "submission.json").write_text('{"slurm_id": "7", "at": 1}')

    assert Fact(tmp_path / "submission.json", Submission).read() == Submission("7", 1.0, adopted=False)


@pytest.mark.parametrize("content", [
    b"", b"{", b"null", b"[]", b"7", b'"text"', b"{}", b'{"since": 1.0}', b'{"since": "x", "answers": 2}',
    b'{"since": 1.0, "answers": 2.5}', b'{"since": 1.0, "answers": null}', b'{"since": [], "answers": 1}', b"\xff\xfe",
    b"\0" * 100, b'{"since": {"base64": "!"}, "answers": 1}', b"[" * 100_000,
])  # fmt: skip
def test_a_file_that_is_not_what_was_written_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "absent.json").write_bytes(content)

    with pytest.raises(Damaged, match=r"absent\.json is not what was written there"):
        Fact(tmp_path / "absent.json", Absent).read()


@pytest.mark.parametrize(("kind", "content"), [
    (Message, '{"format": 1, "queue": "q", "body": {"base64": "!"}, "body_size": 1, "properties": {}, "claimed_at": 1}'),
    (Message, '{"format": 1, "queue": "q", "body": 7, "body_size": 1, "properties": {}, "claimed_at": 1}'),
    (Message, '{"format": 1, "queue": "q", "body": "", "body_size": 1, "properties": [], "claimed_at": 1}'),
    (Message, '{"format": 1, "queue": "q", "body": "", "body_size": 1, "properties": {"x": [1]}, "claimed_at": 1}'),
    (Group, '{"members": [["a"]]}'),
    (Group, '{"members": [["a", 1, 2]]}'),
    (Group, '{"members": "ab"}'),
    (Result, '{"outcome": {"base64": "eA=="}, "attempt": 1}'),
    (Result, '{"outcome": "lost", "attempt": 1, "outputs": {"A": 1}}'),
])  # fmt: skip
def test_a_fact_of_the_wrong_shape_is_damaged(tmp_path: Path, kind: type[Any], content: str) -> None:
    (tmp_path / "fact.json").write_text(content)

    with pytest.raises(Damaged):
        Fact(tmp_path / "fact.json", kind).read()


@pytest.mark.parametrize("damage", OF_A_FILE)
def test_whatever_stands_in_a_file_s_place_is_damage_and_nobody_waits_for_it(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "absent.json"
    Fact(path, Absent).write(Absent(1.0, 2))

    OF_A_FILE[damage](path)

    with pytest.raises(Damaged, match=re.escape(str(path))):
        Fact(path, Absent).read()


@pytest.mark.parametrize("damage", OF_A_FOLDER)
def test_whatever_stands_in_a_folder_s_place_is_damage(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "attempts"
    path.mkdir()

    OF_A_FOLDER[damage](path)

    with pytest.raises(Damaged, match=re.escape(str(path))):
        paths.names_in(path)


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT])
def test_a_disk_that_is_away_is_neither_damage_nor_absence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def fails(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "open", fails)
    monkeypatch.setattr(os, "listdir", fails)

    for read in (lambda: Fact(tmp_path / "absent.json", Absent).read(), lambda: paths.names_in(tmp_path)):
        with pytest.raises(OSError, match=re.escape(os.strerror(error))):
            read()


@pytest.mark.parametrize("place", ["active", "done"])
def test_a_disk_that_is_away_is_not_taken_for_a_job_that_was_never_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A redelivery would become a second job."""
    jobs = JobsFolder(tmp_path)
    jobs.prepare()
    day = jobs.active if place == "active" else jobs.done / "2026-01-01"
    paths.make_folder(day / "job")
    Fact(day / "job" / "message.json", type(FACTS[0])).write(FACTS[0])

    def away(right: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def look(path: Any, *more: Any, **options: Any) -> os.stat_result:
            if str(path) in (str(day / "job" / "message.json"), str(jobs.done)):
                raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
            return right(path, *more, **options)

        return look

    with monkeypatch.context() as patch:
        for name in ("stat", "lstat"):
            patch.setattr(os, name, away(getattr(os, name)))
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            jobs.find(JobId("job"))
    found = jobs.find(JobId("job"))
    assert found is not None and found.path == day / "job"


def test_a_link_that_leads_nowhere_is_there_and_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()

    there = [paths.is_there(tmp_path / name) for name in ("link", "loop", "file", "file/below", "none")]

    assert there == [True, True, True, False, False]
    assert [paths.is_folder(tmp_path / name) for name in ("link", "loop", "file", "none", ".")] == [False] * 4 + [True]


def test_a_fact_that_is_replaced_while_it_is_read_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS 3 and GlusterFS say ESTALE of a file that another host has just put another one in place of."""
    path = tmp_path / "fact.json"
    Fact(path, Acked).write(Acked(1.0))
    replaced: list[Path] = []

    def stale_where_replaced(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and len(replaced) < 3:
            replaced.append(path)
            Fact(path, Acked).write(Acked(1.0 + len(replaced)))
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return found

    fstat = os.fstat
    monkeypatch.setattr(os, "fstat", stale_where_replaced)

    assert Fact(path, Acked).read() == Acked(4.0)


def test_of_many_writers_exactly_one_wins_and_all_read_the_same(tmp_path: Path) -> None:
    for turn in range(20):
        won = race_for(tmp_path / f"{turn}.json", writers=8)

        assert len(won) == 1
        assert Fact(tmp_path / f"{turn}.json", Nonce).read() == Nonce(won[0])


def race_for(path: Path, writers: int) -> list[str]:
    start, won = threading.Barrier(writers), list[str]()

    def write(value: str) -> None:
        start.wait()
        if Exclusive(path, Nonce).claim(Nonce(value)):
            won.append(value)

    threads = [threading.Thread(target=write, args=(str(n),)) for n in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won


def test_the_one_who_comes_second_changes_nothing(tmp_path: Path) -> None:
    Exclusive(tmp_path / "outcome.json", Nonce).claim(Nonce("first"))

    assert not Exclusive(tmp_path / "outcome.json", Nonce).claim(Nonce("first"))
    assert not Exclusive(tmp_path / "outcome.json", Nonce).claim(Nonce("second"))
    assert Fact(tmp_path / "outcome.json", Nonce).read() == Nonce("first")


def test_a_link_that_worked_but_was_answered_with_eexist_is_won(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_and_lose_the_answer(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(os, "link", link_and_lose_the_answer)

    assert Exclusive(tmp_path / "outcome.json", Nonce).claim(Nonce("mine"))


def test_nothing_but_the_fact_stays_behind(tmp_path: Path) -> None:
    Fact(tmp_path / "a.json", Nonce).write(Nonce("1"))
    paths.write_bytes(tmp_path / "b.bin", b"1")
    Exclusive(tmp_path / "c.json", Nonce).claim(Nonce("1"))
    Exclusive(tmp_path / "c.json", Nonce).claim(Nonce("2"))

    assert sorted(os.listdir(tmp_path)) == ["a.json", "b.bin", "c.json"]


WRITERS: dict[str, Callable[[Path], object]] = {
    "write": lambda path: Fact(path, Nonce).write(Nonce("new")),
    "write_bytes": lambda path: paths.write_bytes(path, b'{"value": "new"}'),
    "claim_name": lambda path: Exclusive(path, Nonce).claim(Nonce("new")),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_crash_before_the_last_step_leaves_nothing(tmp_path: Path, failing_at: list[str], writer: str) -> None:
    failing_at.append("before fact.json")

    with pytest.raises(PowerFailure):
        WRITERS[writer](tmp_path / "fact.json")

    assert Fact(tmp_path / "fact.json", Nonce).read() is None


@pytest.mark.parametrize("writer", WRITERS)
def test_a_crash_after_the_last_step_leaves_the_whole(tmp_path: Path, failing_at: list[str], writer: str) -> None:
    failing_at.append("after fact.json")

    with pytest.raises(PowerFailure):
        WRITERS[writer](tmp_path / "fact.json")

    assert Fact(tmp_path / "fact.json", Nonce).read() == Nonce("new")


@pytest.mark.parametrize("writer", ["write", "write_bytes"])
def test_a_crash_while_a_fact_is_replaced_leaves_the_old_one(
    tmp_path: Path, failing_at: list[str], writer: str
) -> None:
    Fact(tmp_path / "fact.json", Nonce).write(Nonce("old"))
    failing_at.append("before fact.json")

    with pytest.raises(PowerFailure):
        WRITERS[writer](tmp_path / "fact.json")

    assert Fact(tmp_path / "fact.json", Nonce).read() == Nonce("old")


@pytest.mark.parametrize("writer", WRITERS)
def test_content_is_on_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    steps: list[str] = []
    for name in ("fsync", "rename", "link"):
        monkeypatch.setattr(os, name, noting(steps, getattr(os, name)))

    WRITERS[writer](tmp_path / "fact.json")

    assert steps == ["sync file", "name", "sync folder"]


def noting(steps: list[str], call: Callable[..., None]) -> Callable[..., None]:
    def note(*arguments: Any) -> None:
        is_folder = os.path.isdir(f"/proc/self/fd/{arguments[0]}")
        steps.append("name" if len(arguments) == 2 else "sync folder" if is_folder else "sync file")
        call(*arguments)

    return note


def test_what_is_written_is_for_our_eyes_only(tmp_path: Path) -> None:
    jobs = JobsFolder(tmp_path / "jobs")
    jobs.prepare()
    attempt = jobs.job(JobId("a")).attempt(1)
    paths.make_folder(attempt.path)
    attempt.stuck.write(Stuck("x", 1.0))
    paths.write_bytes(attempt.token, b"secret")
    attempt.result.claim(Result("succeeded", 1))

    modes = {path.relative_to(tmp_path): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert {modes[path] for path in modes if (tmp_path / path).is_dir()} == {0o700}
    assert {modes[path] for path in modes if not (tmp_path / path).is_dir()} == {0o600}


def test_the_umask_can_not_open_a_file(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Fact(tmp_path / "a.json", Nonce).write(Nonce("x"))
        paths.make_folder(tmp_path / "b" / "c")
    finally:
        os.umask(before)

    assert (tmp_path / "a.json").stat().st_mode & 0o077 == 0
    assert (tmp_path / "b").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("place", ["active", "rejected", "undelivered", "done/2024-01-01", "done/2024-12-31"])
def test_a_job_is_found_wherever_it_is(tmp_path: Path, place: str) -> None:
    jobs = JobsFolder(tmp_path)
    jobs.prepare()
    (tmp_path / "done" / "2024-06-01").mkdir()
    path = tmp_path / place / "abc"
    path.mkdir(parents=True)
    (path / "message.json").touch()

    found = jobs.find(JobId("abc"))

    assert found is not None and found.path == path
    assert jobs.find(JobId("abd")) is None


def test_a_folder_without_a_message_is_no_job(tmp_path: Path) -> None:
    jobs = JobsFolder(tmp_path)
    jobs.prepare()
    jobs.job(JobId("abc")).path.mkdir()

    assert jobs.find(JobId("abc")) is None


def test_jobs_are_sought_before_there_are_any(tmp_path: Path) -> None:
    assert JobsFolder(tmp_path / "jobs").find(JobId("abc")) is None


def test_attempts_are_counted_as_numbers_and_leftovers_are_passed_over(tmp_path: Path) -> None:
    job = JobFolder(tmp_path)
    assert job.attempt_numbers() == []

    for name in ("10", "2", "1", ".1.json.abcd", "x"):
        (job.attempts / name).mkdir(parents=True)

    assert job.attempt_numbers() == [1, 2, 10]


def test_a_job_moves_whole_and_moving_it_again_is_harmless(tmp_path: Path) -> None:
    jobs = JobsFolder(tmp_path)
    jobs.prepare()
    job = jobs.job(JobId("abc"))
    paths.make_folder(job.attempt(1).path)
    Fact(job.message.path, Nonce).write(Nonce("x"))

    move_job(job, jobs.done / "2024-01-01")
    move_job(job, jobs.done / "2024-01-01")

    assert not job.path.exists()
    assert Fact(jobs.done / "2024-01-01" / "abc" / "message.json", Nonce).read() == Nonce("x")
    assert (jobs.done / "2024-01-01" / "abc" / "attempts" / "1").is_dir()


@pytest.mark.parametrize(("step", "moved"), [("before move to rejected", False), ("after move to rejected", True)])
def test_a_crash_leaves_a_job_in_one_place(tmp_path: Path, failing_at: list[str], step: str, moved: bool) -> None:
    jobs = JobsFolder(tmp_path)
    jobs.prepare()
    job = jobs.job(JobId("abc"))
    paths.make_folder(job.path)
    failing_at.append(step)

    with pytest.raises(PowerFailure):
        move_job(job, jobs.rejected)

    assert (job.path.exists(), (jobs.rejected / "abc").exists()) == (not moved, moved)


def test_facts_are_json_that_people_can_read(tmp_path: Path) -> None:
    Fact(tmp_path / "group.json", Group).write(Group({"0": ("abc", 1)}))

    assert json.loads((tmp_path / "group.json").read_text()) == {"members": {"0": ["abc", 1]}, "site": ""}
    assert (tmp_path / "group.json").read_text().endswith("}\n")


def test_the_login_side_s_verdict_goes_before_what_the_worker_thought(tmp_path: Path) -> None:
    attempt = JobFolder(tmp_path).attempt(1)
    paths.make_folder(attempt.path)
    attempt.result.claim(Result("succeeded", 1, needs_verdict=True))
    assert read_result(attempt) == Result("succeeded", 1, needs_verdict=True)

    attempt.verdict.write(Result("out_of_memory", 1))

    assert read_result(attempt) == Result("out_of_memory", 1)


def test_a_bell_is_heard_once_whatever_lies_there(tmp_path: Path) -> None:
    jobs = JobsFolder(tmp_path)
    jobs.ring(JobId("a"))
    assert jobs.rung() == [] and jobs.hear() == frozenset(), "without its folder it is lost, and nothing else"
    jobs.prepare()
    jobs.ring(JobId("a"))
    jobs.ring(JobId("a"))
    (jobs.news / "no bell").mkdir()
    (jobs.news / "no bell" / "file").touch()

    assert jobs.hear() == {"a", "no bell"}
    assert jobs.hear() == frozenset()


# --- what people may want to look at


def test_of_very_many_files_the_declared_ones_and_the_smallest_are_kept(tmp_path: Path) -> None:
    source, target = tmp_path / "outputs", tmp_path / "kept"
    source.mkdir()
    (source / "00_Model").write_bytes(b"x" * 5000)
    for number in range(1500):
        (source / f"{number}").write_bytes(b"x" * (1 + number // 2))

    paths.keep_files(source, target, 10**9, {"00_Model", "01_never_made"})

    kept = {file.name for file in target.iterdir()}
    assert len(kept) == 1000 and kept >= {"00_Model", *map(str, range(998))}


def test_what_is_kept_fits_into_the_bytes_that_it_may_have(tmp_path: Path) -> None:
    source, target = tmp_path / "outputs", tmp_path / "kept"
    source.mkdir()
    for name, size in (("large", 60), ("small", 10), ("declared", 50), ("too large", 61)):
        (source / name).write_bytes(b"x" * size)

    paths.keep_files(source, target, 60, {"declared", "too large"})

    assert {file.name for file in target.iterdir()} == {"declared", "small"}


def test_what_is_no_folder_is_not_waited_for_where_a_folder_is_to_go(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    paths.remove_tree(tmp_path / "fifo")

    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


def test_a_folder_that_is_kept_open_is_opened_once_and_anew_where_it_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, synced = tmp_path / "attempt", []
    place.mkdir()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    opened, open_ = [], os.open

    def open_and_note(path: Path, flags: int, mode: int = 0o777) -> int:
        opened.append(path)
        return open_(path, flags, mode)

    monkeypatch.setattr(os, "open", open_and_note)
    with paths.kept_open(place):
        paths.sync_folder(place)
        paths.sync_folder(place)
        first = place.stat().st_ino
        assert opened == [place] and synced == [first, first]

        place.rename(tmp_path / "old")
        place.mkdir()
        (tmp_path / "old").rmdir()
        paths.sync_folder(place)

    assert opened == [place, place] and synced[2] == place.stat().st_ino
    paths.sync_folder(place)
    assert len(opened) == 3


@pytest.mark.parametrize("says", [errno.ENOENT, errno.ESTALE])
def test_a_folder_that_is_kept_open_and_that_its_file_system_knows_no_more_is_opened_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: int
) -> None:
    def forgotten(descriptor: int) -> os.stat_result:
        raise OSError(says, os.strerror(says))

    with paths.kept_open(tmp_path):
        paths.sync_folder(tmp_path)
        monkeypatch.setattr(os, "fstat", forgotten)
        paths.sync_folder(tmp_path)

        tmp_path.rmdir()
        with pytest.raises(FileNotFoundError):
            paths.sync_folder(tmp_path)
