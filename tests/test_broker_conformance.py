"""What every broker must do, asked of RabbitMQ and of the embedded one alike."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Callable, Union

import pika
import pytest

from tests.both import Both, OverRabbitMQ, one
from tests.services.broker import Broker as Service
from tests.services.daemon import poll
from tests.services.proxy import SERVER, Proxy
from tests.services.rabbitmq import RabbitMQ as PrivateRabbitMQ
from tests.services.rabbitmq import version
from worker.amqp import parameters
from worker.amqp.returns import MANY
from worker.amqp.trial import Trial
from worker.deliveries.window import Window
from worker.embedded import Embedded
from worker.errors import TooLarge, Transient, Unroutable
from worker.job.outcome import Reply
from worker.settings import Credentials, Pattern, Queue, Replies, Secret
from worker.sources import Properties, QueueFault

REPLY = Reply(
    routing_key="",
    correlation_id="a-1",
    body=b'{"Result": "eA=="}',
    type="result",
    message_id="m-1",
    timestamp=1_700_000_000,
    expiration_ms=60_000,
    headers={"outcome": "succeeded", "attempt": 1},
)


class Kind:
    """One kind of broker: opens connections to it, and speaks to it as a requester does."""

    def __init__(
        self, open_one: Callable[[Replies], Both], send_many: Callable[[str, list[bytes], dict[str, Any]], None]
    ) -> None:
        self._open_one = open_one
        self._opened: list[Both] = []
        self._send_many = send_many
        self.queue = Queue(name=f"conformance-{secrets.token_hex(4)}", workload="")

    def open(self, replies: Union[Replies, None] = None) -> Both:
        broker = self._open_one(replies or Replies())
        self._opened.append(broker)
        return broker

    def send(self, queue: str, body: bytes, properties: dict[str, Any]) -> None:
        self._send_many(queue, [body], properties)

    def send_all(self, count: int) -> None:
        self._send_many(self.queue.name, [b"%d" % number for number in range(count)], {})

    def close(self) -> None:
        for broker in self._opened:
            broker.close()


@pytest.fixture
def embedded(odd_folder: Path) -> Iterator[Kind]:
    file = odd_folder / "broker.sqlite"

    def send(queue: str, bodies: list[bytes], properties: dict[str, Any]) -> None:
        broker = Embedded(file, Replies())
        for body in bodies:
            broker.put(queue, body, Properties(**properties))
        broker.close()

    kind = Kind(lambda replies: Embedded(file, replies), send)
    yield kind
    kind.close()


def of(service: Service) -> Credentials:
    password = Secret(service.password)
    return Credentials(service.host, service.port, service.user, password, service.vhost, False, "", "", Secret(""))


@pytest.fixture
def over_amqp(rabbitmq: Service) -> Iterator[Kind]:
    credentials = of(rabbitmq)
    login = pika.PlainCredentials(rabbitmq.user, rabbitmq.password)
    parameters = pika.ConnectionParameters(rabbitmq.host, rabbitmq.port, rabbitmq.vhost, login)

    def send(queue: str, bodies: list[bytes], properties: dict[str, Any]) -> None:
        with pika.BlockingConnection(parameters) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish("", queue, body, pika.BasicProperties(**properties), mandatory=True)

    kind = Kind(lambda replies: OverRabbitMQ(credentials, replies), send)
    yield kind
    kind.close()


@pytest.fixture(params=["embedded", "rabbitmq"])
def kind(request: pytest.FixtureRequest) -> Kind:
    made: Kind = request.getfixturevalue("over_amqp" if request.param == "rabbitmq" else "embedded")
    made.open().waiting(made.queue)
    return made


def test_a_missing_queue_is_made_and_is_empty(kind: Kind) -> None:
    broker = kind.open()

    assert broker.waiting(replace(kind.queue, name=f"{kind.queue.name}-new")) == 0
    assert one(broker, f"{kind.queue.name}-new") is None


def test_a_missing_queue_that_is_only_looked_at_is_not_made(kind: Kind) -> None:
    name = f"{kind.queue.name}-new"

    assert kind.open().waiting(replace(kind.queue, name=name), make=False) == 0
    with pytest.raises(Unroutable):
        kind.open().send(replace(REPLY, routing_key=name))


def test_messages_come_in_order_with_their_properties(kind: Kind) -> None:
    kind.send(kind.queue.name, b"one", {"reply_to": "r", "correlation_id": "c"})
    kind.send(kind.queue.name, b"two", {})
    broker = kind.open()

    assert broker.waiting(kind.queue) == 2
    first, second = one(broker, kind.queue.name), one(broker, kind.queue.name)

    assert first and (first.body, first.properties.reply_to, first.properties.correlation_id) == (b"one", "r", "c")
    assert second and (second.body, second.redelivered) == (b"two", False)


def test_an_acked_message_is_gone(kind: Kind) -> None:
    kind.send(kind.queue.name, b"one", {})
    broker = kind.open()
    delivery = one(broker, kind.queue.name)
    assert delivery

    broker.ack([delivery])
    broker.ensure_acked()
    broker.close()

    assert one(kind.open(), kind.queue.name) is None


def test_a_message_that_is_held_is_nobody_else_s(kind: Kind) -> None:
    kind.send(kind.queue.name, b"one", {})
    holder = kind.open()
    assert one(holder, kind.queue.name)

    assert one(kind.open(), kind.queue.name) is None


@pytest.mark.parametrize("how", ["give_back", "close"])
def test_a_message_that_was_not_acked_comes_again_and_says_so(kind: Kind, how: str) -> None:
    kind.send(kind.queue.name, b"one", {})
    kind.send(kind.queue.name, b"two", {})
    holder = kind.open()
    delivery = one(holder, kind.queue.name)
    assert delivery

    if how == "give_back":
        holder.give_back(delivery)
        holder.ensure_acked()
    else:
        holder.close()

    again = one(kind.open(), kind.queue.name)
    assert again and (again.body, again.redelivered) == (b"one", True)


@pytest.mark.parametrize(("sent", "most"), [(1, 1), (1, 5), (5, 5), (7, 5), (300, 1000)])
def test_many_messages_come_at_once_and_in_order(kind: Kind, sent: int, most: int) -> None:
    kind.send_all(sent)
    broker = kind.open()

    got = broker.take(kind.queue.name, most, wait=0)

    assert [delivery.body for delivery in got] == [b"%d" % number for number in range(min(sent, most))]
    assert not any(delivery.redelivered for delivery in got)
    assert broker.waiting(kind.queue) == max(0, sent - most), "no more is taken than was asked for"


def test_what_was_left_is_not_marked_as_delivered_before(kind: Kind) -> None:
    """It would count against the delivery limit of a quorum queue."""
    kind.send_all(60)
    broker = kind.open()

    got = [broker.take(kind.queue.name, 7, wait=0) for _ in range(10)]

    assert [delivery.body for batch in got for delivery in batch] == [b"%d" % number for number in range(60)]
    assert not any(delivery.redelivered for batch in got for delivery in batch)


def test_many_acks_are_for_these_messages_alone(kind: Kind) -> None:
    kind.send_all(9)
    broker = kind.open()
    kept, batch, more = (
        one(broker, kind.queue.name),
        broker.take(kind.queue.name, 5, wait=0),
        broker.take(kind.queue.name, 3, wait=0),
    )
    assert kept and len(batch) == 5 and len(more) == 3

    broker.ack([*batch[:2], *batch[3:]])
    broker.ack([])
    broker.ack([kept])
    broker.ack(more)
    broker.ensure_acked()
    broker.close()

    left = kind.open().take(kind.queue.name, 9, wait=0)
    assert [(delivery.body, delivery.redelivered) for delivery in left] == [(b"3", True)]


def test_the_first_of_many_messages_is_waited_for(kind: Kind) -> None:
    broker = kind.open()
    sender = threading.Timer(0.7, kind.send, (kind.queue.name, b"late", {}))
    sender.start()
    begun = time.monotonic()

    got = broker.take(kind.queue.name, 5, wait=300)

    assert [delivery.body for delivery in got] == [b"late"]
    assert 0.5 < time.monotonic() - begun < 200, "it came as soon as there was one"
    sender.join()


def test_an_empty_queue_is_waited_for_no_longer_than_asked(kind: Kind) -> None:
    broker = kind.open()
    begun = time.monotonic()

    assert broker.take(kind.queue.name, 5, wait=0) == []
    assert broker.take(kind.queue.name, 5, wait=0.4) == []
    assert 0.3 < time.monotonic() - begun < 60


def test_an_ack_after_the_connection_was_lost_acks_no_other_message(over_amqp: Kind) -> None:
    """The new connection counts from 1 again."""
    broker, queue = over_amqp.open(), over_amqp.queue
    broker.waiting(queue)
    over_amqp.send_all(2)
    (first,) = broker.take(queue.name, 1, wait=0)
    broker.close()
    again = broker.take(queue.name, 2, wait=0)
    assert first.tag in [delivery.tag for delivery in again]

    with pytest.raises(Transient, match="come again"):
        broker.give_back(first)
    with pytest.raises(Transient, match="come again"):
        broker.ack([first])
    broker.close()

    left = over_amqp.open().take(queue.name, 5, wait=0)
    assert [delivery.body for delivery in left] == [b"0", b"1"]


def test_whoever_listens_hears_a_message_at_once_and_gets_it_first(kind: Kind) -> None:
    broker, other = kind.open(), replace(kind.queue, name=f"{kind.queue.name}-other")
    broker.waiting(other)
    assert not broker.listen([kind.queue.name, other.name], wait=0.2)
    sender = threading.Timer(0.5, kind.send_all, (3,))
    sender.start()
    begun = time.monotonic()

    while not broker.listen([kind.queue.name, other.name], wait=1):
        assert time.monotonic() - begun < 60
    sender.join()

    assert 0.4 < time.monotonic() - begun
    assert broker.listen([kind.queue.name, other.name], wait=0), "until it is got"
    assert one(broker, other.name) is None and broker.waiting(kind.queue) == 3
    got = broker.take(kind.queue.name, 5, wait=0)
    assert [(delivery.body, delivery.redelivered) for delivery in got] == [(b"0", False), (b"1", False), (b"2", False)]
    broker.ack(got)
    broker.ensure_acked()
    assert broker.waiting(kind.queue) == 0 and not broker.listen([kind.queue.name, other.name], wait=0.1)


@pytest.mark.parametrize("how", ["stop_listening", "close"])
def test_whoever_stops_listening_takes_nothing_along(kind: Kind, how: str) -> None:
    kind.send_all(3)
    broker = kind.open()
    assert broker.listen([kind.queue.name], wait=5)

    getattr(broker, how)()

    left = kind.open().take(kind.queue.name, 5, wait=1)
    assert [delivery.body for delivery in left] == [b"0", b"1", b"2"]
    assert not any(delivery.redelivered for delivery in left[1:]), "no more than one was held"


def test_a_queue_that_is_deleted_is_told_to_the_listener(over_amqp: Kind) -> None:
    broker, other = over_amqp.open(), over_amqp.open()
    broker.waiting(over_amqp.queue)
    assert not broker.listen([over_amqp.queue.name], wait=0.1)
    assert isinstance(other, OverRabbitMQ)
    other._jobs_channel().queue_delete(over_amqp.queue.name)

    with pytest.raises(Transient, match="deleted"):
        broker.listen([over_amqp.queue.name], wait=5)
    broker.waiting(over_amqp.queue)
    over_amqp.send_all(1)
    assert broker.listen([over_amqp.queue.name], wait=5)


def test_a_queue_that_gives_everything_to_one_reader_lets_the_second_one_go(over_amqp: Kind) -> None:
    queue = replace(over_amqp.queue, arguments={"x-single-active-consumer": True})
    broker, reader = over_amqp.open(), over_amqp.open()
    broker.waiting(queue)
    assert isinstance(reader, OverRabbitMQ)
    channel = reader._jobs_channel()
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue.name, lambda *_: None)
    over_amqp.send_all(9)

    assert len(broker.take(queue.name, 5, wait=0.1)) <= 1


# --- what goes back, and what does not: a quorum queue drops a message that goes back too often


@pytest.fixture
def quorum(over_amqp: Kind) -> Kind:
    over_amqp.queue = replace(over_amqp.queue, durable=True, arguments={"x-queue-type": "quorum"})
    over_amqp.open().waiting(over_amqp.queue)
    return over_amqp


def test_a_quorum_queue_says_how_often_a_message_went_back_and_we_warn_before_it_is_dropped(
    quorum: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    quorum.send(quorum.queue.name, b"one", {"headers": {"x-delivery-count": "mine", "made-up": {"a": 1}}})

    counts = []
    for _ in range(MANY + 2):
        broker = quorum.open()
        delivery = one(broker, quorum.queue.name)
        assert delivery
        counts.append(delivery.returns)
        broker.close()

    assert counts == list(range(MANY + 2))
    warned = [record for record in caplog.records if "went back to its queue many times" in record.message]
    assert [record.args[1] for record in warned if isinstance(record.args, tuple)] == [MANY, MANY + 1]


def test_what_came_before_the_connection_broke_is_here_to_be_claimed(
    quorum: Kind, rabbitmq: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Over a line that breaks each time, all of it would go back, and in the end be dropped unanswered."""
    quorum.send_all(60)
    direct = quorum.open()
    assert isinstance(direct, OverRabbitMQ)
    with Proxy(rabbitmq.port) as proxy:
        broker = OverRabbitMQ(replace(of(rabbitmq), rabbitmq_port=proxy.port), Replies())
        broker.waiting(quorum.queue)
        broken = proxy.halt_at(SERVER, "basic.deliver", skip=10)

        def break_it() -> None:
            broken.wait()
            proxy.reset()

        breaks = threading.Thread(target=break_it)
        breaks.start()

        got = broker.take(quorum.queue.name, 60, wait=0)
        breaks.join()

        assert 1 <= len(got) <= 11 and [each.body for each in got] == [b"%d" % number for number in range(len(got))]
        assert "those that are here are claimed" in caplog.text
        with pytest.raises(Transient, match="come again"):
            broker.ack(got)
        broker.close()
    again = direct.take(quorum.queue.name, 60, wait=5)
    assert {each.body for each in got} <= {each.body for each in again}


def test_neither_listening_nor_making_a_queue_costs_a_return_where_another_queue_is_refused(quorum: Kind) -> None:
    broker = quorum.open()
    stream = replace(quorum.queue, name=f"{quorum.queue.name}-stream", arguments={"x-queue-type": "stream"})
    broker.waiting(stream)
    quorum.send_all(1)
    quorum.send(stream.name, b"stays", {})

    with pytest.raises(QueueFault, match="is a stream"):
        broker.listen([stream.name, quorum.queue.name], wait=5)
    assert broker.listen([quorum.queue.name, stream.name], wait=5)
    for arguments in ({"x-expires": 10**30}, {"x-max-length": "many"}):
        with pytest.raises(QueueFault):
            broker.waiting(replace(quorum.queue, name=f"{quorum.queue.name}-bad", arguments=arguments))

    (delivery,) = broker.take(quorum.queue.name, 5, wait=0)
    assert (delivery.returns, delivery.redelivered) == (0, False)
    broker.ack([delivery])
    broker.ensure_acked()
    broker.close()
    assert quorum.open().waiting(quorum.queue) == 0


def _sent(broker: OverRabbitMQ, reply: Reply, through: str) -> bool:
    """Whether it counts as delivered."""
    if through == "one by one":
        try:
            broker.send(reply)
        except Unroutable:
            return False
        return True
    window = Window(broker.credentials, None, lambda: None)
    try:
        window.send([reply])
        assert poll(lambda: bool(window._confirmations))
        ((_, why),) = window.confirmations()
        return not why
    finally:
        window.close()


@pytest.mark.parametrize("through", ["one by one", "a window"])
def test_a_direct_reply_is_delivered_to_a_requester_that_is_there_and_to_no_other(
    over_amqp: Kind, through: str
) -> None:
    """Whatever this version of RabbitMQ makes of `mandatory` for them."""
    broker = over_amqp.open()
    assert isinstance(broker, OverRabbitMQ)
    broker.waiting(over_amqp.queue)
    answers: list[bytes] = []
    with pika.BlockingConnection(parameters(broker.credentials, None)) as requester:
        channel = requester.channel()
        channel.basic_consume("amq.rabbitmq.reply-to", lambda *parts: answers.append(parts[3]), auto_ack=True)
        properties = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to")
        channel.basic_publish("", over_amqp.queue.name, b"a question", properties)
        (asked,) = broker.take(over_amqp.queue.name, 1, wait=10)
        reply = replace(REPLY, routing_key=str(asked.properties.reply_to))

        to_one_that_is_there = _sent(broker, reply, through)
        until = time.monotonic() + 60
        while not answers and time.monotonic() < until:
            requester.process_data_events(1)
    to_one_that_is_gone = _sent(broker, reply, through)
    to_one_made_up = _sent(broker, replace(REPLY, routing_key="amq.rabbitmq.reply-to.made.up"), through)

    assert answers == [REPLY.body]
    assert (to_one_that_is_there, to_one_that_is_gone, to_one_made_up) == (True, False, False)


@pytest.mark.parametrize("kind_of_queue", ["quorum", "stream"])
def test_other_kinds_of_queues_are_read_or_refused(over_amqp: Kind, kind_of_queue: str) -> None:
    queue = replace(over_amqp.queue, durable=True, arguments={"x-queue-type": kind_of_queue})
    broker = over_amqp.open()
    broker.waiting(queue)
    over_amqp.send_all(20)

    if kind_of_queue == "stream":
        with pytest.raises(QueueFault, match="is a stream"):
            broker.take(queue.name, 20, wait=1)
        return
    got = broker.take(queue.name, 12, wait=5) + broker.take(queue.name, 12, wait=5)
    broker.ack(got)

    assert [delivery.body for delivery in got] == [b"%d" % number for number in range(20)]
    assert not any(delivery.redelivered for delivery in got)


@pytest.mark.skipif(version() < (3, 12), reason="RabbitMQ can be told to refuse them from 3.12 on")
@pytest.mark.services
def test_a_broker_that_refuses_queues_that_are_not_durable_says_so_of_one_queue_alone(tmp_path: Path) -> None:
    with PrivateRabbitMQ(tmp_path / "rabbitmq", transient=False) as service:
        broker = OverRabbitMQ(of(service), Replies(create=(Pattern("*"),), create_durable=False))
        jobs = Queue("jobs", "", durable=True, arguments={"x-queue-type": "quorum"})
        for _ in range(2):
            with pytest.raises(QueueFault, match="refuses queues that are not durable. Write durable = true"):
                broker.waiting(Queue("old", "", durable=False))
            assert broker.waiting(jobs) == 0
        with pytest.raises(Unroutable, match="Write create_durable = true"):
            broker.send(replace(REPLY, routing_key="answers"))
        broker.send(replace(REPLY, routing_key="jobs"))
        held = one(broker, "jobs")
        with pytest.raises(QueueFault):
            broker.waiting(Queue("old", "", durable=False))

        assert held is not None
        broker.ack([held])
        broker.ensure_acked()
        broker.close()
        trial = Trial(of(service), None)
        assert not trial.makes_transient() and trial.look(jobs).state == "there"
        trial.close()


def test_a_broker_that_takes_no_large_message_says_how_large_one_may_be(tmp_path: Path) -> None:
    service = PrivateRabbitMQ(tmp_path / "rabbitmq")
    file = service.folder / "rabbitmq.conf"
    others = [line for line in file.read_text().splitlines(keepends=True) if "max_message_size" not in line]
    file.write_text("".join([*others, "max_message_size = 65536\n"]))
    with service:
        broker = OverRabbitMQ(of(service), Replies())
        broker.waiting(Queue("answers", "", durable=True))

        with pytest.raises(TooLarge) as raised:
            broker.send(replace(REPLY, routing_key="answers", body=bytes(65537)))
        broker.send(replace(REPLY, routing_key="answers", body=bytes(65536)))

        assert raised.value.most == 65536
        broker.close()


@pytest.mark.parametrize("arguments", [
    {"x-queue-type": "no such"}, {"x-max-length": "many"}, {"x-expires": 10**30}, {"x-custom": date(2026, 1, 1)},
    {"x-message-ttl": -1},
])  # fmt: skip
def test_a_queue_that_can_not_be_made_as_it_is_written_is_its_own_trouble(
    over_amqp: Kind, arguments: dict[str, Any]
) -> None:
    broker = over_amqp.open()
    bad = replace(over_amqp.queue, name=f"{over_amqp.queue.name}-bad", arguments=arguments)
    assert broker.waiting(over_amqp.queue) == 0
    over_amqp.send_all(2)
    held = one(broker, over_amqp.queue.name)

    for _ in range(2):
        with pytest.raises(QueueFault, match=f"the queue {bad.name} "):
            broker.waiting(bad)

    assert broker.waiting(over_amqp.queue) + (held is not None) >= 2, "the others go on"


def test_a_queue_of_another_connection_alone_and_one_that_is_deleted_are_their_own_trouble(over_amqp: Kind) -> None:
    broker, other = over_amqp.open(), over_amqp.open()
    assert isinstance(other, OverRabbitMQ)
    alone, gone = (replace(over_amqp.queue, name=f"{over_amqp.queue.name}-{word}") for word in ("alone", "gone"))
    other._jobs_channel().queue_declare(alone.name, exclusive=True)
    broker.waiting(over_amqp.queue)
    over_amqp.send_all(1)
    held = one(broker, over_amqp.queue.name)

    with pytest.raises(QueueFault, match="another connection alone"):
        broker.waiting(alone)
    broker.ack([held] if held else [])
    with pytest.raises(QueueFault, match="does not exist"):
        one(broker, gone.name)
    with pytest.raises(QueueFault, match="does not exist"):
        broker.listen([over_amqp.queue.name, gone.name], wait=0.1)

    assert broker.waiting(over_amqp.queue) == 0, "to ask about another queue costs nothing that is held"


def test_a_published_reply_arrives_whole(kind: Kind) -> None:
    broker = kind.open()

    broker.send(replace(REPLY, routing_key=kind.queue.name))

    delivery = one(broker, kind.queue.name)
    assert delivery and delivery.body == REPLY.body
    p = delivery.properties
    assert (p.correlation_id, p.message_id, p.type, p.content_type, p.timestamp, p.expiration) == (
        "a-1", "m-1", "result", "application/json", 1_700_000_000, "60000",
    )  # fmt: skip


def test_a_correlation_id_of_any_bytes_comes_back_as_it_was(kind: Kind) -> None:
    broker = kind.open()

    broker.send(replace(REPLY, routing_key=kind.queue.name, correlation_id=b"\xff\xfe"))

    delivery = one(broker, kind.queue.name)
    assert delivery and delivery.properties.correlation_id == b"\xff\xfe"


def test_a_reply_to_a_queue_that_does_not_exist_is_told(kind: Kind) -> None:
    broker = kind.open()

    with pytest.raises(Unroutable, match=f"{kind.queue.name}-gone"):
        broker.send(replace(REPLY, routing_key=f"{kind.queue.name}-gone"))

    broker.send(replace(REPLY, routing_key=kind.queue.name))
    assert broker.waiting(kind.queue) == 1


def test_a_reply_queue_is_made_where_the_site_allows_it(kind: Kind) -> None:
    broker = kind.open(Replies(create=(Pattern("conformance-*"),)))

    broker.send(replace(REPLY, routing_key=f"{kind.queue.name}-made"))

    assert one(broker, f"{kind.queue.name}-made")


def test_an_expired_message_is_not_delivered(kind: Kind) -> None:
    kind.send(kind.queue.name, b"late", {"expiration": "1"})
    kind.send(kind.queue.name, b"in time", {"expiration": "60000"})

    broker = kind.open()
    wait_for_expiry()

    delivery = one(broker, kind.queue.name)
    assert delivery and delivery.body == b"in time"


def test_a_closed_connection_opens_again_by_itself(kind: Kind) -> None:
    broker = kind.open()
    broker.waiting(kind.queue)
    broker.close()

    broker.send(replace(REPLY, routing_key=kind.queue.name))

    assert broker.waiting(kind.queue) == 1


def wait_for_expiry() -> None:
    time.sleep(0.05)
