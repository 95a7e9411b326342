"""What any broker must offer, and what passes through it. The only words of AMQP that the rest of the code sees."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol, Union

from ..errors import Transient
from ..settings import Config, Queue

if TYPE_CHECKING:
    from ..job.outcome import Reply

Text = Union[str, bytes]
"""A short string of AMQP: bytes where the sender's bytes are not UTF-8."""


@dataclass(frozen=True)
class Properties:
    """A message's properties as they came. Nothing here is to be trusted."""

    reply_to: Optional[Text] = None
    correlation_id: Optional[Text] = None
    message_id: Optional[Text] = None
    expiration: Optional[Text] = None
    timestamp: Optional[int] = None
    content_type: Optional[Text] = None
    type: Optional[Text] = None
    app_id: Optional[Text] = None
    user_id: Optional[Text] = None
    headers: bytes = b""
    """The table of headers as it was on the wire; lossless, and nobody needs more of it yet."""


@dataclass(frozen=True)
class Delivery:
    queue: str
    body: bytes
    properties: Properties
    redelivered: bool
    tag: int
    returns: int = 0
    """How often it went back before, where the queue counts it; as little to be trusted as its properties."""


class Unroutable(Exception):
    """The broker works, but does not take this reply: no such queue, or one that is full or not ours. The text says why."""


class QueueFault(Transient):
    """The broker works, but this jobs queue can't be read: deleted, not ours to read, a stream, made with settings that the
    broker refuses. The others are not affected. The text says why, and what to do."""

    def __init__(self, queue: str, words: str) -> None:
        super().__init__(f"the queue {queue} {words}")
        self.queue = queue


class TooLarge(Exception):
    """The broker does not take a message of this size. `most`: what it takes, where it says so, or 0."""

    def __init__(self, words: str, most: int = 0) -> None:
        super().__init__(words)
        self.most = most


class Broker(Protocol):
    """Every method raises Transient when the broker is away; those that read a jobs queue raise QueueFault where only that
    queue is at fault."""

    def waiting(self, queue: Queue, make: bool = True) -> int:
        """How many messages wait there. Makes the queue, as the site file says, if it does not exist; without `make`
        none wait in it."""

    def get(self, queue: str) -> Optional[Delivery]:
        """One message, to be acked or given back; None from an empty queue."""

    def get_many(self, queue: str, most: int, wait: float) -> list[Delivery]:
        """Up to `most` messages, to be acked or given back, in the queue's order. Waits at most `wait` seconds for the
        first one, and returns when the queue is empty or `most` are there. Where the connection is lost in the middle, those
        that are here by then: they come again, and are known then."""

    def ack(self, delivery: Delivery) -> None:
        """Raises Transient, too, where the connection that it came over is gone: then the message comes again."""

    def ack_many(self, deliveries: Sequence[Delivery]) -> None:
        """Acks these and no others; of several, with as few words to the broker as it takes."""

    def listen(self, queues: Sequence[str], wait: float) -> bool:
        """Whether a message is there; waits at most `wait` seconds for one. Of each queue one message may be held from
        then on: the next get brings it first, and `hush` gives it back. While one is held, nothing that may be refused is
        asked, because it would go back."""

    def hush(self) -> None:
        """No message is brought before it is asked for, and none is held that was not got."""

    def settle(self) -> None:
        """Returns when the broker has taken note of every ack before."""

    def give_back(self, delivery: Delivery) -> None:
        """The message returns to its place in the queue."""

    def publish(self, reply: Reply) -> None:
        """Returns when the broker has confirmed. Raises Unroutable or TooLarge."""

    def close(self) -> None: ...


class Answers(Protocol):
    """Many answers, confirmed in any order: what a pilot sends through. No method waits for the broker."""

    def send(self, replies: list[Reply]) -> None: ...

    def told(self) -> list[tuple[str, str]]:
        """(message_id, "") for each answer that was confirmed since the last call; else why the broker does not take it."""

    def away_for(self) -> float:
        """Seconds since the broker was reached, or 0."""

    def close(self) -> None: ...


def open_answers(config: Config, ring: Callable[[], None]) -> Answers:
    """`ring` is called, from any thread, whenever there is something to be told."""
    if config.site.broker == "embedded":
        from .embedded import EmbeddedAnswers

        return EmbeddedAnswers(config.site.broker_file, config.site.replies)
    from .window import Window

    return Window(config.credentials, config.ca_file, ring)


def open_broker(config: Config) -> Broker:
    """The broker that the site file names; connected when it is first used."""
    if config.site.broker == "embedded":
        from .embedded import Embedded

        return Embedded(config.site.broker_file, config.site.replies)
    from .rabbitmq import RabbitMQ

    return RabbitMQ(config.credentials, config.site.replies, config.ca_file)


def as_bytes(text: Optional[Text]) -> Optional[bytes]:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def digest(delivery: Delivery) -> str:
    """The name of the job in a message: equal for a redelivery, safe as a file name (32 hexadecimal digits)."""
    p = delivery.properties
    parts = (delivery.queue, p.message_id, p.correlation_id, p.reply_to, delivery.body)
    total = hashlib.sha256()
    for part in map(as_bytes, parts):
        # The length goes first, so that no two different messages read alike.
        total.update(b"-" if part is None else b"%d:" % len(part))
        total.update(part or b"")
    return total.hexdigest()[:32]


def matches(name: str, patterns: Any) -> bool:
    return any(name.startswith(p[:-1]) if p.endswith("*") else name == p for p in patterns)
