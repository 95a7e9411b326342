"""What all promises rest on, on file systems that two hosts see differently for a while: the two durable writes, an attempt's
fence, and a batch that is taken away from its pilot. What each file system does with names: hosts.py.

A test gets all it needs from `hosts`, and nothing from other fixtures, because it may run in another kernel (conftest.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from tests.network.hosts import Hosts
from tests.services.daemon import poll
from tests.worker.leased import claimed, flush
from worker.folder import batches, fence, paths
from worker.folder.batches import Batch, Pool
from worker.folder.facts import JobFolder
from worker.folder.jobs import JobsFolder
from worker.folder.journal import Journal, TakenAway, close_last_lease, read_progress
from worker.folder.paths import GONE
from worker.folder.records import Exclusive, Fact
from worker.in_job import run
from worker.in_job.steps import Placement
from worker.job.names import JobId

PATIENCE = 120.0
"""Seconds; only what is broken takes so long."""
LARGE = b"x" * (1 << 20)
PLACE = Placement("7", 0, "n1", True)


@dataclass(frozen=True)
class Note:
    number: int
    filling: str = ""


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What each of them says, begun at the same moment."""
    start = threading.Barrier(len(calls))

    def begin(call: Callable[[], Any]) -> Any:
        start.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(begin, calls))


# --- the two durable writes


def test_of_writers_on_both_hosts_one_wins_and_each_reads_what_that_one_wrote(hosts: Hosts) -> None:
    for turn in range(10):
        places = [host / f"{turn}.json" for host in (hosts.node, hosts.login) for _ in range(4)]

        came = at_once(*[partial(claims, path, Note(number)) for number, path in enumerate(places)])

        (winner,) = [number for number, (won, _) in enumerate(came) if won]
        assert [read for _, read in came] == [Note(winner)] * len(places)


def claims(path: Path, note: Note) -> tuple[bool, Optional[Note]]:
    """Whether this one has won, and what it reads then."""
    return Exclusive(path, Note).claim(note), Exclusive(path, Note).read()


def test_who_comes_second_learns_it_though_the_first_ones_name_is_hidden(hosts: Hosts) -> None:
    for number in range(10):
        name = f"{number}.json"
        assert Exclusive(hosts.login / name, Note).read() is None
        assert Exclusive(hosts.node / name, Note).claim(Note(1))

        won = Exclusive(hosts.login / name, Note).claim(Note(2))

        assert not won and Exclusive(hosts.login / name, Note).read() == Note(1)


def test_a_fact_that_is_replaced_is_read_whole_and_never_missing_and_never_goes_back(hosts: Hosts) -> None:
    last = 60
    Fact(hosts.node / "fact.json", Note).write(Note(0))
    paths.look_anew(hosts.login)
    read = [Fact(hosts.login / "fact.json", Note).read()]

    def replaces() -> None:
        for number in range(1, last + 1):
            Fact(hosts.node / "fact.json", Note).write(Note(number, "x" * 1000 * (number % 7)))

    def reads() -> None:
        until = time.monotonic() + PATIENCE
        while read[-1] is not None and read[-1].number < last and time.monotonic() < until:
            with says_nothing_where_stale():
                read.append(Fact(hosts.login / "fact.json", Note).read())

    at_once(replaces, reads)

    notes = [note for note in read if note is not None]
    numbers = [note.number for note in notes]
    assert len(notes) == len(read) and numbers == sorted(numbers) and (numbers[0], numbers[-1]) == (0, last)
    assert all(len(note.filling) == 1000 * (note.number % 7) for note in notes)


@contextlib.contextmanager
def says_nothing_where_stale() -> Iterator[None]:
    """Who replaces a fact as fast as it is opened anew makes NFS say ESTALE as often: an error, and no answer."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise


def test_nothing_but_the_facts_is_left_for_either_host_to_see(hosts: Hosts) -> None:
    Fact(hosts.node / "a.json", Note).write(Note(1))
    paths.write_bytes(hosts.node / "b.bin", b"1")
    at_once(*[partial(Exclusive(host / "c.json", Note).claim, Note(1)) for host in (hosts.node, hosts.login)])

    for host in (hosts.node, hosts.login):
        paths.look_anew(host)
        assert paths.names_in(host) == ["a.json", "b.bin", "c.json"]


@pytest.mark.fault(what="names that were looked for stay hidden", moment="while a pilot's batch is taken away")
def test_a_name_that_was_looked_for_in_vain_is_found_and_listed_by_who_looks_anew(hosts: Hosts) -> None:
    """Made in the same tick of the server's clock as the look, as often as that can be had."""
    hidden = 0
    for trial in range(50):
        there, here = hosts.node / f"trial-{trial}", hosts.login / f"trial-{trial}"
        there.mkdir()
        os.listdir(here)
        (there / "before").touch()
        assert not (here / "name").exists()
        os.listdir(here)
        (there / "name").touch()
        hidden += not (here / "name").exists()

        paths.look_anew(here)

        assert (here / "name").exists() and "name" in os.listdir(here)
    assert hidden or not hosts.traits.hides_new_names


# --- an attempt's fence


def attempts_of(hosts: Hosts, count: int) -> tuple[JobFolder, JobFolder]:
    """One job with so many, as the node and as the login side has it."""
    there, here = [JobsFolder(host / "jobs").job(JobId("job")) for host in (hosts.node, hosts.login)]
    for number in range(1, count + 1):
        paths.make_folder(here.attempt(number).path)
    paths.look_anew(there.attempts)
    return there, here


def test_an_attempt_that_was_closed_does_not_begin_though_the_node_sees_nothing_of_it(hosts: Hosts) -> None:
    there, here = attempts_of(hosts, 5)
    for number in range(1, 6):
        assert there.attempt(number).started.read() is None
        assert fence.close(here.attempt(number), None, 1.0)

        began = run._start(there, there.attempt(number), PLACE)

        assert began is None


def test_an_attempt_that_has_begun_is_not_closed_though_the_login_side_sees_nothing_of_it(hosts: Hosts) -> None:
    there, here = attempts_of(hosts, 5)
    for number in range(1, 6):
        assert here.attempt(number).started.read() is None
        assert run._start(there, there.attempt(number), PLACE) is not None

        closed = fence.close(here.attempt(number), None, 1.0)

        assert not closed


def test_an_attempt_is_begun_or_closed_whoever_is_quicker(hosts: Hosts) -> None:
    there, here = attempts_of(hosts, 20)
    for number in range(1, 21):
        begun, closed = at_once(
            partial(run._start, there, there.attempt(number), PLACE),
            partial(fence.close, here.attempt(number), None, 1.0),
        )

        assert (begun is not None) != closed


# --- a batch that is taken away from its pilot


def taken_by_a_pilot(hosts: Hosts) -> Batch:
    pool = Pool(JobsFolder(hosts.node / "jobs"), "jobs")
    pool.prepare()
    batch = batches.add(pool, [claimed(number) for number in range(4)], 0)
    return batches.move(batch, pool.locked / f"{batch.path.name}~pilot-1")


def login_side(hosts: Hosts) -> Pool:
    return Pool(JobsFolder(hosts.login / "jobs"), "jobs")


def take_away(hosts: Hosts) -> Batch:
    here = login_side(hosts)
    paths.look_anew(here.locked)
    (seen,) = here.batches(here.locked)
    return batches.move(seen, here.ended / seen.path.name)


def close(hosts: Hosts, batch: Batch) -> set[str]:
    """The jobs that have come to something, once they can be read."""
    poll(lambda: close_last_lease(batch, hosts.server_now(), hosts.traits.visible_after), PATIENCE)
    return set(read_progress(batch).came)


def ids(*numbers: int) -> set[str]:
    return {claimed(number).id for number in numbers}


@pytest.mark.fault(
    what="a pilot is frozen and its batch goes on under its old name", moment="between a sync and a link"
)
def test_a_pilot_that_is_cut_off_says_nothing_more_and_all_that_it_synced_is_read(hosts: Hosts) -> None:
    taken = taken_by_a_pilot(hosts)
    journal = Journal(taken)
    flush(journal, 0)
    journal.say()
    flush(journal, 1)

    moved = take_away(hosts)
    read_at_once = close_last_lease(moved, hosts.server_now(), hosts.traits.visible_after)
    with pytest.raises(TakenAway):
        journal.say()

    assert not read_at_once
    assert close(hosts, moved) == ids(0, 1)
    with pytest.raises((TakenAway, OSError)):
        journal.close()


def test_all_that_a_pilot_may_have_sent_is_read_by_who_takes_its_batch_away_while_it_works(hosts: Hosts) -> None:
    taken, said, closed = taken_by_a_pilot(hosts), list[str](), threading.Event()

    def works_on() -> None:
        journal = Journal(taken)
        for number in range(40):
            flush(journal, number)
            journal.say()
            said.append(claimed(number).id)
        closed.wait()
        journal.say()

    with ThreadPoolExecutor(1) as threads:
        pilot = threads.submit(works_on)
        try:
            poll(lambda: len(said) >= 3 or pilot.done(), PATIENCE)
            came = close(hosts, take_away(hosts))
        finally:
            closed.set()

    with pytest.raises(TakenAway):
        pilot.result()
    assert set(said) <= came and len(came) <= len(said) + 1


def test_what_a_pilot_writes_after_its_batch_was_read_counts_for_nobody(hosts: Hosts) -> None:
    taken = taken_by_a_pilot(hosts)
    journal = Journal(taken)
    journal.started(claimed(0).id, 1.0)
    moved = take_away(hosts)
    before = close(hosts, moved)

    flush(journal, 0)

    assert (before, set(read_progress(moved).came)) == (set(), set())
    with pytest.raises(TakenAway):
        journal.say()


def test_what_a_pilot_gives_back_is_read_by_who_has_looked_for_it_in_vain(hosts: Hosts) -> None:
    taken, here = taken_by_a_pilot(hosts), login_side(hosts)
    (locked,) = here.batches(here.locked)
    assert not read_progress(locked).came
    journal = Journal(taken)
    flush(journal, 0)
    journal.say()
    journal.close()
    batches.move(taken, taken.path.parent.parent / "ended" / taken.path.name)

    paths.look_anew(here.ended)
    (ended,) = here.batches(here.ended)

    assert close(hosts, ended) == ids(0)


def test_a_pilot_that_works_on_under_the_old_name_leaves_its_successors_answers_alone(hosts: Hosts) -> None:
    taken, here = taken_by_a_pilot(hosts), login_side(hosts)
    journal = Journal(taken)
    flush(journal, 0)
    journal.say()
    moved = take_away(hosts)
    close(hosts, moved)
    free = batches.move(moved, here.todo / f"{moved.id}.3")
    again = batches.move(free, here.locked / f"{free.path.name}~pilot-2")
    second = Journal(again)
    flush(second, 1, LARGE + b"second")
    second.say()

    flush(journal, 1)
    with contextlib.suppress(OSError):  # where the old name lasts for a moment only
        flush(journal, 1, LARGE + b"first")
    with pytest.raises(TakenAway):
        journal.say()
    second.close()

    answer = read_progress(again).came[claimed(1).id]
    assert (again.path / answer.body_file).read_bytes() == LARGE + b"second"


def test_what_is_made_under_a_batchs_old_name_is_in_the_batch_or_nowhere(hosts: Hosts) -> None:
    taken = taken_by_a_pilot(hosts)
    moved = take_away(hosts)

    made = makes(taken.path / "file")

    assert made or not hosts.traits.keeps_old_names
    paths.look_anew(moved.path)
    assert paths.is_there(moved.path / "file") == made
    paths.look_anew(login_side(hosts).locked)
    assert not paths.names_in(login_side(hosts).locked)


def test_a_batch_that_was_taken_away_can_not_be_moved_by_its_old_name(hosts: Hosts) -> None:
    taken = taken_by_a_pilot(hosts)
    moved = take_away(hosts)

    with pytest.raises(OSError) as failed:
        batches.move(taken, taken.path.parent.parent / "todo" / "again.4")

    assert failed.value.errno in GONE
    paths.look_anew(login_side(hosts).todo)
    assert paths.is_there(moved.jobs) and not paths.names_in(login_side(hosts).todo)


def makes(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        if error.errno not in GONE:
            raise
        return False
    return True
