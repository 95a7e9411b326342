"""Who may answer a job in a batch, whatever the file system shows: pilots that were cut off and work on, and the login side.

The file system of these tests keeps the old path of a folder alive after it was renamed away, as NFS does for up to a minute
(a symbolic link stands there), and what a pilot wrote shows on the login side only `VISIBLE` seconds after it was synced.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.worker.leased import came, claimed, flush
from worker.errors import Damaged
from worker.folder import batches, paths
from worker.folder.batches import Batch, Pool
from worker.folder.jobs import JobsFolder
from worker.folder.journal import Journal, Progress, TakenAway, close_last_lease, looks_ours, read_progress
from worker.folder.records import Fact
from worker.job.names import JobId
from worker.job.outcome import Reply

VISIBLE = 10.0
_contents, _write = paths.contents, Fact.write
JOBS = 3
_ONE = st.integers(0, 50)


@dataclass
class Pilot:
    """One that may be cut off at any moment, and works on."""

    name: str
    journal: Journal
    waiting: list[JobId]
    """Jobs to be begun, in order."""
    running: list[JobId] = field(default_factory=list)
    unsynced: list[Reply] = field(default_factory=list)
    synced: list[Reply] = field(default_factory=list)
    said: list[Reply] = field(default_factory=list)
    """These may be sent, at any time and as often as connections break."""


class Storage:
    """What the login side sees of journals: nothing younger than VISIBLE seconds by `now`."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.written: dict[int, list[tuple[float, int]]] = defaultdict(list)
        """By inode: when so many bytes were synced."""

    @property
    def now(self) -> float:
        return time.time() + self.ahead

    def note(self, path: Path) -> None:
        found = path.stat()
        self.written[found.st_ino].append((self.now, found.st_size))

    def write(self, fact: Fact[Any], said: object) -> None:
        """With the time of this world."""
        _write(fact, said)
        os.utime(fact.path, (self.now, self.now))

    @contextlib.contextmanager
    def on_the_login_side(self) -> Iterator[None]:
        with (
            mock.patch("worker.folder.paths.contents", self.contents),
            mock.patch.object(Fact, "write", lambda fact, said: self.write(fact, said)),
        ):
            yield

    def contents(self, path: Path, most: int = 1 << 32) -> Optional[bytes]:
        content = _contents(path, most)
        if content is None or not path.name.startswith("journal-"):
            return content
        shown = [size for at, size in self.written[path.stat().st_ino] if at <= self.now - VISIBLE]
        return content[: max(shown, default=0)]


class Hosts(RuleBasedStateMachine):
    """Pilots and a login side that believes what a careless Slurm says: that any of them is dead, at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="batchferry-fence-"))
        self.storage = Storage()
        self.pool = Pool(JobsFolder(self.path), "jobs")
        self.pool.prepare()
        self.jobs = [claimed(number) for number in range(JOBS)]
        batches.add(self.pool, self.jobs, 0)
        self.pilots: list[Pilot] = []
        self.names = 0
        self.sent: dict[JobId, set[bytes]] = defaultdict(set)
        """What the requester got."""

    def teardown(self) -> None:
        try:
            self._end()
        finally:
            shutil.rmtree(self.path)

    # --- pilots

    @precondition(lambda self: self.pool.batches(self.pool.todo))
    @rule()
    def one_takes_the_batch(self) -> None:
        self.names += 1
        (batch,) = self.pool.batches(self.pool.todo)
        taken = batches.move(batch, self.pool.locked / f"{batch.path.name}~pilot-{self.names}")
        progress = self._read(taken)
        left = [each.id for each in self.jobs if each.id not in {*progress.came, *progress.handed}]
        self.pilots.append(Pilot(f"pilot-{self.names}", Journal(taken), left))

    @precondition(lambda self: self.pilots)
    @rule(which=_ONE)
    def one_begins_a_job(self, which: int) -> None:
        pilot = self._one(which)
        if pilot.waiting:
            pilot.running.append(pilot.waiting.pop(0))
            pilot.journal.started(pilot.running[-1], 1.0)

    @precondition(lambda self: self.pilots)
    @rule(which=_ONE)
    def a_job_ends(self, which: int) -> None:
        pilot = self._one(which)
        if pilot.running:
            job_id = pilot.running.pop(0)
            ended = came(job_id, f"run by {pilot.name}".encode())
            pilot.journal.came(job_id, ended)
            assert ended.reply is not None
            pilot.unsynced.append(ended.reply)

    @precondition(lambda self: self.pilots)
    @rule(which=_ONE)
    def one_syncs(self, which: int) -> None:
        pilot = self._one(which)
        pilot.journal.sync()
        with contextlib.suppress(OSError):
            self.storage.note(pilot.journal.batch.journal(pilot.journal.number))
        pilot.synced, pilot.unsynced = [*pilot.synced, *pilot.unsynced], []

    @precondition(lambda self: self.pilots)
    @rule(which=_ONE)
    def one_asks_whether_it_may_send(self, which: int) -> None:
        pilot = self._one(which)
        if pilot.synced:
            try:
                pilot.journal.say()
            except TakenAway:
                self.pilots.remove(pilot)
            pilot.said, pilot.synced = [*pilot.said, *pilot.synced], []

    @precondition(lambda self: self.pilots)
    @rule(which=_ONE, confirmed=st.booleans())
    def one_sends(self, which: int, confirmed: bool) -> None:
        pilot = self._one(which)
        for reply in pilot.said:
            self.sent[JobId(reply.message_id)].add(reply.body)
        if confirmed:
            pilot.journal.sent([reply.message_id for reply in pilot.said])

    @precondition(lambda self: self.pilots)
    @rule(which=_ONE)
    def one_gives_the_batch_back(self, which: int) -> None:
        pilot = self._one(which)
        if pilot.running or pilot.unsynced or pilot.synced:
            return
        self.pilots.remove(pilot)
        try:
            pilot.journal.close()
            self.storage.note(pilot.journal.batch.journal(pilot.journal.number))
            os.utime(pilot.journal.batch.closed(pilot.journal.number).path, (self.storage.now, self.storage.now))
            os.rename(pilot.journal.batch.path, self.pool.ended / pilot.journal.batch.path.name)
        except (TakenAway, OSError):
            pass

    # --- the login side

    @precondition(lambda self: self._in(self.pool.locked))
    @rule()
    def the_login_side_takes_it_away(self) -> None:
        (batch,) = self._in(self.pool.locked)
        moved = self.pool.ended / batch.path.name
        os.rename(batch.path, moved)
        batch.path.symlink_to(moved)
        if self.names % 2:  # or it is killed here
            self._close(Batch(moved))

    @precondition(lambda self: self._in(self.pool.ended))
    @rule()
    def the_login_side_looks_at_it(self) -> None:
        (batch,) = self._in(self.pool.ended)
        if not self._close(batch):
            return
        progress = self._read(batch)
        left, handed = [], []
        for each in self.jobs:
            known = progress.came.get(each.id)
            if each.id in progress.handed or each.id in progress.sent:
                continue
            if known is not None and known.reply is not None:
                self.sent[each.id].add(known.reply.body)
                handed.append(each.id)
            elif each.id in progress.started:
                self.sent[each.id].add(b"run again")
                handed.append(each.id)
            else:
                left.append(each.id)
        if handed:
            batch.handed(batch.leases()).write(batches.Handed(tuple(handed)))
        if left:
            to = self.pool.todo / f"{batch.id}.{len(left)}"
        else:
            to = self.pool.done / batches.closed_name(batch, 0, 0, 0)
        os.rename(batch.path, to)
        old = self.pool.locked / batch.path.name
        if old.is_symlink():
            old.unlink()
            old.symlink_to(to)

    def _close(self, batch: Batch) -> bool:
        with self.storage.on_the_login_side():
            return close_last_lease(batch, self.storage.now, VISIBLE)

    # --- time

    @rule(seconds=st.sampled_from([1.0, VISIBLE]))
    def time_passes(self, seconds: float) -> None:
        self.storage.ahead += seconds

    @rule()
    def old_names_go_at_last(self) -> None:
        for each in self.pool.locked.iterdir():
            if each.is_symlink():
                each.unlink()

    @invariant()
    def each_job_has_one_answer(self) -> None:
        for job_id, bodies in self.sent.items():
            assert len(bodies) <= 1, (job_id, bodies)

    # ---

    def _one(self, which: int) -> Pilot:
        return self.pilots[which % len(self.pilots)]

    def _in(self, place: Path) -> list[Batch]:
        return [batch for batch in self.pool.batches(place) if not batch.path.is_symlink()]

    def _read(self, batch: Batch) -> Progress:
        with self.storage.on_the_login_side():
            return read_progress(batch)

    def _end(self) -> None:
        """Slurm is right at last, whoever works on is heard, and everything goes on until nothing is left to do."""
        for pilot in list(self.pilots):
            for step in (self.one_syncs, self.one_asks_whether_it_may_send):
                if pilot in self.pilots:
                    step(which=self.pilots.index(pilot))
            if pilot in self.pilots:
                self.one_sends(which=self.pilots.index(pilot), confirmed=False)
                self.pilots.remove(pilot)
        while not list(self.pool.done.iterdir()):
            if self._in(self.pool.todo):
                self.one_takes_the_batch()
                (pilot,) = self.pilots
                while pilot.waiting:
                    self.one_begins_a_job(which=0)
                    self.a_job_ends(which=0)
                self.one_syncs(which=0)
                self.one_asks_whether_it_may_send(which=0)
                self.one_sends(which=0, confirmed=True)
                self.one_gives_the_batch_back(which=0)
            if self._in(self.pool.locked):
                self.the_login_side_takes_it_away()
            self.time_passes(seconds=VISIBLE + 1)
            if self._in(self.pool.ended):
                self.the_login_side_looks_at_it()
        self.each_job_has_one_answer()
        assert set(self.sent) == {each.id for each in self.jobs}


@pytest.fixture(autouse=True)
def _power_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def test_each_job_has_one_answer_whoever_is_cut_off_and_works_on() -> None:
    run_state_machine_as_test(
        Hosts,
        settings=settings(
            max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


class _AsBefore(Hosts):
    """Believes that a batch that can be opened is still its own."""

    @precondition(lambda self: self.pilots)
    @rule(which=_ONE)
    def one_asks_whether_it_may_send(self, which: int) -> None:
        pilot = self._one(which)
        if not looks_ours(pilot.journal.batch):
            self.pilots.remove(pilot)
            return
        pilot.said, pilot.synced = [*pilot.said, *pilot.synced], []


class _ReadsAtOnce(Hosts):
    """Wins the fence, and reads before what was flushed shows."""

    def _close(self, batch: Batch) -> bool:
        with self.storage.on_the_login_side():
            return close_last_lease(batch, self.storage.now, 0)


def _ends_after_it_was_taken_away(hosts: Hosts) -> None:
    hosts.one_takes_the_batch()
    hosts.one_begins_a_job(which=0)
    hosts.a_job_ends(which=0)
    hosts.the_login_side_takes_it_away()
    hosts.time_passes(seconds=VISIBLE + 1)
    hosts.the_login_side_looks_at_it()


def _is_said_just_before_it_is_taken_away(hosts: Hosts) -> None:
    hosts.one_takes_the_batch()
    hosts.one_begins_a_job(which=0)
    hosts.a_job_ends(which=0)
    hosts.one_syncs(which=0)
    hosts.one_asks_whether_it_may_send(which=0)
    hosts.the_login_side_takes_it_away()
    hosts.the_login_side_looks_at_it()


@pytest.mark.parametrize(
    ("machine", "begin"),
    [(_AsBefore, _ends_after_it_was_taken_away), (_ReadsAtOnce, _is_said_just_before_it_is_taken_away)],
)
def test_without_the_fence_or_the_wait_two_answer(machine: type[Hosts], begin: Callable[[Hosts], None]) -> None:
    true, planted = Hosts(), machine()

    for hosts in (true, planted):
        begin(hosts)

    true.teardown()
    with pytest.raises(AssertionError, match="run"):
        planted.teardown()


# --- the same in single steps


@pytest.fixture
def taken(tmp_path: Path) -> Batch:
    pool = Pool(JobsFolder(tmp_path), "jobs")
    pool.prepare()
    batch = batches.add(pool, [claimed(number) for number in range(JOBS)], 0)
    return batches.move(batch, pool.locked / f"{batch.path.name}~pilot-1")


def take_away(batch: Batch) -> Batch:
    """Its old path goes on working."""
    moved = batches.move(batch, batch.path.parent.parent / "ended" / batch.path.name)
    batch.path.symlink_to(moved.path)
    return moved


def close(batch: Batch) -> bool:
    return close_last_lease(batch, time.time() + VISIBLE + 1, VISIBLE)


def test_a_pilot_that_still_finds_its_batch_under_the_old_name_may_not_send_once_it_was_taken_away(
    taken: Batch,
) -> None:
    journal = Journal(taken)
    flush(journal, 0)
    journal.say()
    flush(journal, 1)

    moved = take_away(taken)
    assert close(moved)

    assert looks_ours(taken)
    with pytest.raises(TakenAway, match="nothing more is sent"):
        journal.say()
    assert set(read_progress(moved).came) == {claimed(0).id, claimed(1).id}


def test_what_a_pilot_writes_after_its_batch_was_read_counts_for_nobody(taken: Batch) -> None:
    journal = Journal(taken)
    journal.started(claimed(0).id, 1.0)
    moved = take_away(taken)
    assert close(moved)

    flush(journal, 1)

    assert read_progress(moved).came == {}
    with pytest.raises(TakenAway):
        journal.close()


def test_a_batch_that_its_pilot_gave_back_is_read_at_once_and_one_that_was_taken_away_once_all_of_it_shows(
    taken: Batch,
) -> None:
    journal = Journal(taken)
    flush(journal, 0)

    assert not close_last_lease(taken, time.time(), VISIBLE)
    journal.close()

    assert close_last_lease(taken, time.time(), VISIBLE)


def test_a_journal_that_is_shorter_than_when_it_was_read_is_damaged(taken: Batch) -> None:
    journal = Journal(taken)
    flush(journal, 0)
    journal.close()

    os.truncate(taken.journal(1), 10)

    with pytest.raises(Damaged, match="was cut off"):
        read_progress(taken)


def test_two_pilots_that_ran_one_job_keep_a_large_answer_each(taken: Batch) -> None:
    first = Journal(taken)
    assert close(take_away(taken))
    taken.path.unlink()
    moved = Batch(taken.path.parent.parent / "ended" / taken.path.name)
    second = Journal(moved)
    flush(second, 0, b"2" * (1 << 20))

    first.batch = moved  # its old path goes on working
    flush(first, 0, b"1" * (1 << 20))

    body_file = read_progress(moved).came[claimed(0).id].body_file
    assert (moved.path / body_file).read_bytes() == b"2" * (1 << 20)


def test_a_link_that_succeeded_though_its_answer_was_lost_is_the_pilots(
    taken: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, link = Journal(taken), os.link
    flush(journal, 0)

    def link_twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", link_twice)

    journal.say()
