"""What every source of jobs must do, asked of each kind alike. Who writes a new one adds it to `KINDS`."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Callable, Optional

import pika
import pytest

from tests.both import OverRabbitMQ, one
from tests.services.broker import Broker as Service
from tests.worker.sources.disputed import Disputed, Table
from worker.embedded import Embedded
from worker.job.names import JobId
from worker.login.claim import as_message
from worker.settings import Credentials, Queue, Replies, Secret
from worker.sources import Properties, QueueFault, Settled, Source, Taken, digest
from worker.sources.spool import Spool

KINDS = ("rabbitmq", "embedded", "spool", "disputed")


class Kind:
    """One kind of source: opens connections to it, and gives it jobs as a sender does."""

    def __init__(self, queue: Queue, open_one: Callable[[], Source], send: Callable[[bytes], None]) -> None:
        self.queue, self.send = queue, send
        self._open_one = open_one
        self._opened: list[Source] = []

    def open(self) -> Source:
        self._opened.append(self._open_one())
        return self._opened[-1]

    def close(self) -> None:
        for source in self._opened:
            source.close()


def name() -> str:
    return f"conformance-{secrets.token_hex(4)}"


@pytest.fixture
def embedded(odd_folder: Path) -> Kind:
    queue = Queue(name(), "w")

    def send(body: bytes) -> None:
        sender = Embedded(odd_folder / "broker.sqlite", Replies())
        sender.put(queue.name, body, Properties(message_id=secrets.token_hex(4)))
        sender.close()

    return Kind(queue, lambda: Embedded(odd_folder / "broker.sqlite", Replies()), send)


@pytest.fixture
def spool(odd_folder: Path) -> Kind:
    queue = Queue(name(), "w", source="spool", folder=str(odd_folder / "spool"))
    folder = Path(queue.folder)
    names = iter(f"{number:04}.json" for number in range(10_000))

    def send(body: bytes) -> None:
        (folder / ".half").write_bytes(body)
        os.rename(folder / ".half", folder / next(names))

    return Kind(queue, lambda: Spool({queue.name: folder}, 2**20), send)


@pytest.fixture
def disputed() -> Kind:
    table = Table()
    return Kind(Queue(name(), "w"), lambda: Disputed(table), lambda body: (table.put(body), None)[1])


@pytest.fixture
def over_amqp(rabbitmq: Service) -> Kind:
    queue = Queue(name(), "w", durable=True)
    credentials = Credentials(
        rabbitmq.host,
        rabbitmq.port,
        rabbitmq.user,
        Secret(rabbitmq.password),
        rabbitmq.vhost,
        False,
        "",
        "",
        Secret(""),
    )
    login = pika.PlainCredentials(rabbitmq.user, rabbitmq.password)
    parameters = pika.ConnectionParameters(rabbitmq.host, rabbitmq.port, rabbitmq.vhost, login)

    def send(body: bytes) -> None:
        with pika.BlockingConnection(parameters) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            properties = pika.BasicProperties(message_id=secrets.token_hex(4))
            channel.basic_publish("", queue.name, body, properties, mandatory=True)

    return Kind(queue, lambda: OverRabbitMQ(credentials, Replies()), send)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    made: Kind = request.getfixturevalue({"rabbitmq": "over_amqp"}.get(request.param, request.param))
    made.open().waiting(made.queue)
    yield made
    made.close()


def claimed(source: Source, messages: list[Taken]) -> list[Settled]:
    """They stand on disk."""
    source.ack(messages)
    source.ensure_acked()
    disputed = [each for each in messages if each.needs_settling]
    return source.settle([(JobId(digest(each)), as_message(each, 2**20, 1.0)) for each in disputed]) if disputed else []


def ids(messages: list[Taken]) -> list[str]:
    return [digest(each) for each in messages]


def test_what_is_missing_is_made_and_is_empty(kind: Kind) -> None:
    source = kind.open()

    assert source.waiting(kind.queue) == 0
    assert source.take(kind.queue.name, 5, wait=0) == [] and not source.listen([kind.queue.name], wait=0.1)


def test_jobs_come_in_the_order_in_which_they_were_sent_and_as_they_were_sent(kind: Kind) -> None:
    bodies = [b'{"number": %d}' % number for number in range(5)]
    for body in bodies:
        kind.send(body)
    source = kind.open()

    assert source.waiting(kind.queue) == 5

    first, rest = source.take(kind.queue.name, 2, wait=0), []
    claimed(source, first)
    rest = source.take(kind.queue.name, 9, wait=0)

    assert [each.body for each in [*first, *rest]] == bodies
    assert {each.queue for each in first} == {kind.queue.name}


def test_what_was_claimed_never_comes_again(kind: Kind) -> None:
    kind.send(b"one")
    source = kind.open()
    messages = source.take(kind.queue.name, 5, wait=0)
    claimed(source, messages)
    source.close()

    again = kind.open()

    assert again.waiting(kind.queue) == 0 and again.take(kind.queue.name, 5, wait=0) == []


def test_what_was_acked_is_not_brought_again_before_it_is_settled(kind: Kind) -> None:
    """Or whoever takes until nothing is left would take for ever."""
    kind.send(b"one")
    source = kind.open()
    source.ack(source.take(kind.queue.name, 5, wait=0))

    assert source.take(kind.queue.name, 5, wait=0) == []


def test_of_several_only_those_that_were_claimed_are_forgotten(kind: Kind) -> None:
    for number in range(5):
        kind.send(b"%d" % number)
    source = kind.open()
    messages = source.take(kind.queue.name, 5, wait=0)
    claimed(source, [])
    claimed(source, [messages[1], messages[3]])
    source.close()

    left = kind.open().take(kind.queue.name, 9, wait=0)

    assert [each.body for each in left] == [b"0", b"2", b"4"]


@pytest.mark.parametrize("how", ["a crash", "given back"])
def test_what_was_not_claimed_comes_again_under_the_same_id(kind: Kind, how: str) -> None:
    kind.send(b"one")
    kind.send(b"two")
    source = kind.open()
    messages = source.take(kind.queue.name, 2, wait=0)
    if how == "given back":
        for each in reversed(messages):
            source.give_back(each)
    source.close()

    again = kind.open().take(kind.queue.name, 9, wait=0)

    assert ids(again) == ids(messages) and [each.body for each in again] == [b"one", b"two"]


def test_equal_jobs_that_were_sent_twice_are_two_jobs(kind: Kind) -> None:
    kind.send(b"the same")
    kind.send(b"the same")

    assert len(set(ids(kind.open().take(kind.queue.name, 5, wait=0)))) == 2


def test_who_listens_is_told_and_gets_what_he_was_told_of(kind: Kind) -> None:
    source = kind.open()
    assert not source.listen([kind.queue.name], wait=0)
    kind.send(b"one")

    assert source.listen([kind.queue.name], wait=60)
    assert source.waiting(kind.queue) == 1
    assert [each.body for each in source.take(kind.queue.name, 5, wait=0)] == [b"one"]


def test_who_stops_listening_holds_nothing(kind: Kind) -> None:
    source = kind.open()
    kind.send(b"one")
    source.listen([kind.queue.name], wait=60)
    source.stop_listening()

    assert one(kind.open(), kind.queue.name)


def test_of_what_needs_settling_one_claim_is_ours_and_any_other_theirs(disputed: Kind) -> None:
    disputed.send(b"one")
    ours, others = disputed.open(), disputed.open()
    mine = ours.take(disputed.queue.name, 5, wait=0)
    theirs = [replace(each, queue="another one") for each in others.take(disputed.queue.name, 5, wait=0)]

    assert claimed(others, theirs) == [Settled.OURS]
    assert [claimed(ours, mine) for _ in range(2)] == [[Settled.THEIRS]] * 2


# --- a spool's own troubles


def folder_of(spool: Kind) -> Path:
    return Path(spool.queue.folder)


def test_a_file_that_is_written_anew_between_its_claim_and_its_end_is_another_job(spool: Kind) -> None:
    source = spool.open()
    source.waiting(spool.queue)
    (folder_of(spool) / "a.json").write_bytes(b"first")
    messages = source.take(spool.queue.name, 1, wait=0)
    (folder_of(spool) / ".a").write_bytes(b"second")
    os.rename(folder_of(spool) / ".a", folder_of(spool) / "a.json")

    source.ack(messages)

    (second,) = source.take(spool.queue.name, 5, wait=0)
    assert second.body == b"second" and digest(second) != digest(messages[0])
    assert not [each for each in os.listdir(folder_of(spool)) if each.startswith(".")]


@pytest.mark.parametrize("replaced", [True, False])
def test_a_removal_that_was_cut_off_is_ended_by_whoever_looks_next(spool: Kind, replaced: bool) -> None:
    source = spool.open()
    source.waiting(spool.queue)
    file = folder_of(spool) / "a.json"
    file.write_bytes(b"first")
    (taken,) = source.take(spool.queue.name, 1, wait=0)
    if replaced:
        time.sleep(0.01)
        file.unlink()
        file.write_bytes(b"second")
    os.rename(file, folder_of(spool) / f".acked-{taken.tag[1]}-a.json")

    left = spool.open().take(spool.queue.name, 5, wait=0)

    assert [each.body for each in left] == ([b"second"] if replaced else [])


@pytest.mark.parametrize("what", ["missing", "a file", "holds a folder", "holds a fifo", "holds a link"])
def test_a_spool_that_can_t_be_read_is_its_own_trouble_and_says_what_to_do(spool: Kind, what: str) -> None:
    folder = folder_of(spool)
    source = spool.open()
    if what == "a file":
        folder.write_text("")
    elif what != "missing":
        source.waiting(spool.queue)
    makers: dict[str, Callable[[Path], object]] = {
        "holds a folder": os.mkdir, "holds a fifo": os.mkfifo, "holds a link": lambda path: os.symlink("/etc/passwd", path),
    }  # fmt: skip
    if what in makers:
        makers[what](folder / "a.json")

    with pytest.raises(QueueFault, match="Make it, or correct its folder|Correct its mode, or remove it"):
        source.waiting(replace(spool.queue, make=False)) and source.take(spool.queue.name, 1, wait=0)


def test_a_file_whose_name_is_no_job_s_is_left_alone(spool: Kind) -> None:
    source = spool.open()
    source.waiting(spool.queue)
    for each in ("notes.txt", ".a.json", "a b.json", "-.json~", "é.json", f"{'x' * 190}.json"):
        (folder_of(spool) / each).write_text("{}")

    assert source.waiting(spool.queue) == 0 and source.take(spool.queue.name, 9, wait=0) == []


def test_a_file_of_any_size_is_read_only_as_far_as_needed(spool: Kind) -> None:
    source = spool.open()
    source.waiting(spool.queue)
    with (folder_of(spool) / "a.json").open("wb") as file:
        file.truncate(2**40)

    taken: Optional[Taken] = one(source, spool.queue.name)

    assert taken and len(taken.body) == 2**20
