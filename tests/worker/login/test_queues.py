"""Several jobs queues: they take turns for the places, one may have precedence, and one that can't be read is its own
trouble."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional

import pytest

from tests.both import ends_of
from tests.worker.login import test_passes
from tests.worker.login.process import NO_LEASE, passes_of
from tests.worker.login.test_passes import GOOD, Login
from worker.folder.jobs import JobsFolder
from worker.login import watch
from worker.login.guard import guarded, without_work
from worker.login.lease import Lease
from worker.login.notices import Notices
from worker.settings import Queue
from worker.sources import Properties, QueueFault, Taken


class Broker(test_passes.Broker):
    """Some queues refuse to be counted, others only to be read."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: set[str] = set()
        self.streams: set[str] = set()
        self.heard: list[list[str]] = []

    def fill(self, queue: str, many: int) -> None:
        for _ in range(many):
            properties = Properties(reply_to="answers", correlation_id=f"{queue}-{len(self.queued)}-{time.time_ns()}")
            self.queued.append(Taken(queue, GOOD, properties, redelivered=False, tag=1))

    def waiting(self, queue: Queue, make: bool = True) -> int:
        if queue.name in self.bad:
            raise QueueFault(queue.name, "may not be read")
        super().waiting(queue, make)
        return sum(delivery.queue == queue.name for delivery in self.queued)

    def get(self, queue: str) -> Optional[Taken]:
        if queue in self.bad | self.streams:
            raise QueueFault(queue, "is a stream")
        for delivery in self.queued:
            if delivery.queue == queue:
                self.queued.remove(delivery)
                self.unacked.append(delivery)
                return delivery
        return None

    def listen(self, queues: Sequence[str], wait: float) -> bool:
        self.heard.append(list(queues))
        for queue in queues:
            if queue in self.bad | self.streams:
                raise QueueFault(queue, "is a stream")
        return any(delivery.queue in queues for delivery in self.queued)


class Site(Login):
    def __init__(self, place: Path, queues: Iterable[str], places: int, **priorities: int) -> None:
        super().__init__(place)
        (queue,) = self.config.site.queues
        named = tuple(replace(queue, name=name, priority=priorities.get(name, 0)) for name in queues)
        self.config = replace(self.config, site=replace(self.config.site, queues=named, max_in_flight=places))
        self.broker: Broker = Broker()

    def in_flight(self) -> Counter[str]:
        messages = [job.message.read() for job in self.active()]
        return Counter(message.queue for message in messages if message)

    def guarded_pass(self) -> int:
        """Through the door that sends a pass home where nothing is to be done."""

        def work(jobs: JobsFolder, held: Lease) -> int:
            ends = ends_of(self.config.site, self.broker)
            code = without_work(self.config, jobs, ends, held.server_now)
            return passes_of(self.config, jobs, ends, self.cluster, held).run(drain=True) if code is None else code

        return guarded(self.config, work)


# --- turns


def test_queues_share_the_places_however_much_waits_in_the_first(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", "abc", places=10)
    site.broker.fill("a", 100)
    site.broker.fill("b", 2)
    site.broker.fill("c", 100)

    site.one_pass()

    assert site.in_flight() == {"a": 4, "b": 2, "c": 4}, "what one queue does not need, the others get"


def test_the_next_pass_goes_on_with_the_queue_whose_turn_it_is(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", "abc", places=100)
    for queue in "abc":
        site.broker.fill(queue, 10)

    order = []
    for _ in range(7):
        before = site.in_flight()
        site.one_pass(drain=False)  # a new process each
        order += list((site.in_flight() - before).elements())

    assert order == list("abcabca")


def test_a_place_that_becomes_free_goes_to_the_queue_that_has_waited_longest(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", "ab", places=1)
    site.broker.fill("a", 5)
    site.broker.fill("b", 5)

    served = []
    for _ in range(6):
        site.one_pass()
        served += list(site.in_flight())
        site.run_jobs(test_passes.answers, "succeeded")
        left, site.broker.queued = site.broker.queued, []
        site.one_pass()  # puts away what has ended
        site.broker.queued = left

    assert served == list("ababab")


def test_a_queue_that_comes_or_goes_and_a_hint_that_is_lost_or_damaged_change_nothing_but_the_order(
    tmp_path: Path,
) -> None:
    for number, content in enumerate(("", "{", "[]", '{"had_their_turn": 5}', '{"had_their_turn": ["gone", 7, "a"]}')):
        site = Site(tmp_path / str(number), "ab", places=2)
        site.jobs.turns.write_text(content)
        site.broker.fill("a", 5)
        site.broker.fill("b", 5)

        assert site.one_pass() == 0 and site.in_flight() == {"a": 1, "b": 1}


def test_a_queue_of_higher_priority_is_emptied_first_and_equals_take_turns(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", "abc", places=10, b=5, c=5)
    for queue in "abc":
        site.broker.fill(queue, 4)

    site.one_pass()
    assert site.in_flight() == {"a": 2, "b": 4, "c": 4}

    site = Site(tmp_path / "full", "abc", places=4, b=5, c=5)
    for queue in "abc":
        site.broker.fill(queue, 4)
    site.one_pass()
    assert site.in_flight() == {"b": 2, "c": 2}


# --- one that can't be read


@pytest.mark.parametrize("where", ["bad", "streams"])
@pytest.mark.parametrize("which", "abc")
def test_a_queue_that_can_not_be_read_is_named_and_the_others_go_on(
    tmp_path: Path, where: str, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path / "site", "abc", places=20)
    for queue in "abc":
        site.broker.fill(queue, 5)
    getattr(site.broker, where).add(which)

    codes = [site.guarded_pass(), site.guarded_pass()]

    others = {queue for queue in "abc" if queue != which}
    assert codes == [os.EX_UNAVAILABLE] * 2 and site.in_flight() == {queue: 5 for queue in others}
    assert f"jobs queue can't be read, the others go on queue={which}" in caplog.text


def test_with_nothing_else_to_do_a_queue_that_can_not_be_read_is_reported_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path / "site", "ab", places=9)
    site.broker.bad.add("b")

    assert site.guarded_pass() == os.EX_UNAVAILABLE
    assert "may not be read" in caplog.text

    site.broker.bad.clear()
    assert site.guarded_pass() == os.EX_OK


def test_a_broker_that_is_away_is_away_for_all(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", "ab", places=9)
    site.broker.away = True

    assert site.guarded_pass() == os.EX_UNAVAILABLE


# --- a watch


class Watching(watch._Watch):
    def __init__(self, site: Site) -> None:
        ends = ends_of(site.config.site, site.broker)
        passes = passes_of(site.config, site.jobs, ends, site.cluster, watching=True)
        super().__init__(site.config.site, site.jobs, NO_LEASE, ends, passes)


@pytest.fixture(autouse=True)
def no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.alarm", lambda seconds: 0)


def test_a_watch_listens_to_the_others_says_it_once_and_tries_again_soon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    site = Site(tmp_path / "site", "abc", places=9)
    site.broker.bad.add("a")
    watching = Watching(site)

    for _ in range(3):
        watching._pass()
    assert not watching._heard(0)
    site.broker.fill("c", 1)

    assert watching._heard(0) and site.broker.heard[-1] == ["b", "c"]
    assert watching._pause() <= 60 and watching._back_off == 0
    assert caplog.text.count("can't be read") == 1


def test_a_queue_that_fails_only_when_it_is_listened_to_is_left_out_for_a_while(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", "ab", places=9)
    site.broker.streams.add("a")
    watching = Watching(site)
    watching._pass()

    assert watching._heard(0), "the next pass finds out"
    watching._pass()
    assert not watching._heard(0)

    assert site.broker.heard == [["a", "b"], ["b"]]


def test_with_one_place_left_a_message_in_any_queue_wakes_it(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", "ab", places=1)
    watching = Watching(site)
    watching._pass()
    assert not watching._heard(0)

    site.broker.fill("b", 1)

    assert watching._heard(0) and site.broker.heard == [["a"], ["a"]], "and only one message can be held"


def test_a_watch_forgets_what_it_has_said_of_jobs_that_are_gone(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", "a", places=9)
    notices = Notices(watching=True)
    (site.jobs.active / "kept").mkdir()
    for job in ("kept", "gone"):
        notices.is_new(job, 1)

    notices.forget_gone(site.jobs.active)

    assert [notices.is_new(job, 1) for job in ("kept", "gone")] == [False, True]
