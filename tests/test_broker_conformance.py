"""What every broker must do, asked of RabbitMQ and of the embedded one alike."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Union

import pika
import pytest

from tests.services.broker import Broker as Service
from worker.broker import Broker, Properties, Unroutable
from worker.broker.embedded import Embedded
from worker.broker.rabbitmq import RabbitMQ
from worker.outcome import Reply
from worker.settings import Credentials, Pattern, Queue, Replies, Secret

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
        self, open_one: Callable[[Replies], Broker], send: Callable[[str, bytes, dict[str, Any]], None]
    ) -> None:
        self._open_one = open_one
        self._opened: list[Broker] = []
        self.send = send
        self.queue = Queue(name=f"conformance-{secrets.token_hex(4)}", workload="")

    def open(self, replies: Union[Replies, None] = None) -> Broker:
        broker = self._open_one(replies or Replies())
        self._opened.append(broker)
        return broker

    def close(self) -> None:
        for broker in self._opened:
            broker.close()


@pytest.fixture
def embedded(odd_folder: Path) -> Iterator[Kind]:
    file = odd_folder / "broker.sqlite"

    def send(queue: str, body: bytes, properties: dict[str, Any]) -> None:
        broker = Embedded(file, Replies())
        broker.send(queue, body, Properties(**properties))
        broker.close()

    kind = Kind(lambda replies: Embedded(file, replies), send)
    yield kind
    kind.close()


@pytest.fixture
def over_amqp(rabbitmq: Service) -> Iterator[Kind]:
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

    def send(queue: str, body: bytes, properties: dict[str, Any]) -> None:
        with pika.BlockingConnection(parameters) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish("", queue, body, pika.BasicProperties(**properties), mandatory=True)

    kind = Kind(lambda replies: RabbitMQ(credentials, replies, None), send)
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
    assert broker.get(f"{kind.queue.name}-new") is None


def test_messages_come_in_order_with_their_properties(kind: Kind) -> None:
    kind.send(kind.queue.name, b"one", {"reply_to": "r", "correlation_id": "c"})
    kind.send(kind.queue.name, b"two", {})
    broker = kind.open()

    assert broker.waiting(kind.queue) == 2
    first, second = broker.get(kind.queue.name), broker.get(kind.queue.name)

    assert first and (first.body, first.properties.reply_to, first.properties.correlation_id) == (b"one", "r", "c")
    assert second and (second.body, second.redelivered) == (b"two", False)


def test_an_acked_message_is_gone(kind: Kind) -> None:
    kind.send(kind.queue.name, b"one", {})
    broker = kind.open()
    delivery = broker.get(kind.queue.name)
    assert delivery

    broker.ack(delivery)
    broker.settle()
    broker.close()

    assert kind.open().get(kind.queue.name) is None


def test_a_message_that_is_held_is_nobody_else_s(kind: Kind) -> None:
    kind.send(kind.queue.name, b"one", {})
    holder = kind.open()
    assert holder.get(kind.queue.name)

    assert kind.open().get(kind.queue.name) is None


@pytest.mark.parametrize("how", ["give_back", "close"])
def test_a_message_that_was_not_acked_comes_again_and_says_so(kind: Kind, how: str) -> None:
    kind.send(kind.queue.name, b"one", {})
    kind.send(kind.queue.name, b"two", {})
    holder = kind.open()
    delivery = holder.get(kind.queue.name)
    assert delivery

    if how == "give_back":
        holder.give_back(delivery)
        holder.settle()
    else:
        holder.close()

    again = kind.open().get(kind.queue.name)
    assert again and (again.body, again.redelivered) == (b"one", True)


def test_a_published_reply_arrives_whole(kind: Kind) -> None:
    broker = kind.open()

    broker.publish(replace(REPLY, routing_key=kind.queue.name))

    delivery = broker.get(kind.queue.name)
    assert delivery and delivery.body == REPLY.body
    p = delivery.properties
    assert (p.correlation_id, p.message_id, p.type, p.content_type, p.timestamp, p.expiration) == (
        "a-1", "m-1", "result", "application/json", 1_700_000_000, "60000",
    )  # fmt: skip


def test_a_correlation_id_of_any_bytes_comes_back_as_it_was(kind: Kind) -> None:
    broker = kind.open()

    broker.publish(replace(REPLY, routing_key=kind.queue.name, correlation_id=b"\xff\xfe"))

    delivery = broker.get(kind.queue.name)
    assert delivery and delivery.properties.correlation_id == b"\xff\xfe"


def test_a_reply_to_a_queue_that_does_not_exist_is_told(kind: Kind) -> None:
    broker = kind.open()

    with pytest.raises(Unroutable, match=f"{kind.queue.name}-gone"):
        broker.publish(replace(REPLY, routing_key=f"{kind.queue.name}-gone"))

    broker.publish(replace(REPLY, routing_key=kind.queue.name))
    assert broker.waiting(kind.queue) == 1


def test_a_reply_queue_is_made_where_the_site_allows_it(kind: Kind) -> None:
    broker = kind.open(Replies(create=(Pattern("conformance-*"),)))

    broker.publish(replace(REPLY, routing_key=f"{kind.queue.name}-made"))

    assert broker.get(f"{kind.queue.name}-made")


def test_an_expired_message_is_not_delivered(kind: Kind) -> None:
    kind.send(kind.queue.name, b"late", {"expiration": "1"})
    kind.send(kind.queue.name, b"in time", {"expiration": "60000"})

    broker = kind.open()
    wait_for_expiry()

    delivery = broker.get(kind.queue.name)
    assert delivery and delivery.body == b"in time"


def test_a_closed_connection_opens_again_by_itself(kind: Kind) -> None:
    broker = kind.open()
    broker.waiting(kind.queue)
    broker.close()

    broker.publish(replace(REPLY, routing_key=kind.queue.name))

    assert broker.waiting(kind.queue) == 1


def wait_for_expiry() -> None:
    import time

    time.sleep(0.05)
