"""RabbitMQ over AMQP 0-9-1: the only importer of pika, whose errors all end here.

Facts: RabbitMQ's guides on confirms, direct reply-to and queues; AMQP 0-9-1 for reply codes (404 no such queue,
405 locked by another connection, 406 made with other arguments, or message too large).
"""

from __future__ import annotations

import contextlib
import logging
import re
import ssl
import struct
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Optional

import pika
from pika import data, exceptions, spec
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from ..errors import Transient
from ..settings import Credentials, Queue, Replies
from . import Delivery, Properties, QueueFault, TooLarge, Unroutable, matches
from .making import (
    LeaveIt,
    how_to_make,
    how_to_make_for_reply,
    instead_of_transient,
    refused_because_transient,
    unsaid_warning,
    unsaid_warning_for_reply,
)
from .returns import returns_of

if TYPE_CHECKING:
    from ..job.outcome import Reply

log = logging.getLogger(__name__)

_DIRECT_REPLY_TO = "amq.rabbitmq.reply-to."
_PERSISTENT = 2
_REFUSALS = {
    403: "may not be read by our user, or does not exist ({}). Give the user the right to read it, make the queue, or take "
    "it out of site.toml",
    404: "does not exist ({}). Make it, or take it out of site.toml",
    405: "belongs to another connection alone ({}). It has to be made anew, and not as an exclusive one",
    540: "is a stream; Batchferry needs a classic or quorum queue",
}
"""By reply code: why a jobs queue can't be read, and what to do. 540 is what a basic.get from a stream is told."""
_MOST_PREFETCH = 65_535
"""A short unsigned integer of AMQP."""
_QUIET = 0.05
_SLICE = 1.0
"""Seconds: how long the next message may take to come, and how long a wait for the first one goes without a look."""
OUR_FAULT = 400
"""Reply codes from here on blame what was sent; 320 is a broker that is being stopped."""


class TolerantProperties(spec.BasicProperties):  # type: ignore[misc]  # pika publishes no types
    """Properties that no sender can make undecodable.

    pika 1.4 loses its connection over a header it can't decode (a timestamp of 2^63-1, say), on every get: one such
    message would block the queue for ever. So the table of headers is stepped over and kept as bytes.
    """

    def decode(self, encoded: bytes, offset: int = 0) -> TolerantProperties:
        (flags,) = struct.unpack_from(">H", encoded, offset)
        offset += 2
        for flag, name, kind in _FIELDS:
            if not flags & flag:
                continue
            if kind == "text":
                value, offset = data.decode_short_string(encoded, offset)
            elif kind == "table":
                (size,) = struct.unpack_from(">I", encoded, offset)
                value, offset = encoded[offset : offset + 4 + size], offset + 4 + size
            else:
                (value,) = struct.unpack_from(kind, encoded, offset)
                offset += struct.calcsize(kind)
            setattr(self, name, value)
        return self


_FIELDS = tuple(
    (1 << bit, name, kind)
    for bit, name, kind in (
        (15, "content_type", "text"), (14, "content_encoding", "text"), (13, "headers", "table"),
        (12, "delivery_mode", ">B"), (11, "priority", ">B"), (10, "correlation_id", "text"), (9, "reply_to", "text"),
        (8, "expiration", "text"), (7, "message_id", "text"), (6, "timestamp", ">Q"), (5, "type", "text"),
        (4, "user_id", "text"), (3, "app_id", "text"), (2, "cluster_id", "text"),
    )
)  # fmt: skip

# Where pika looks up the class for a frame's properties; every connection of this process decodes tolerantly.
spec.props[spec.BasicProperties.INDEX] = TolerantProperties


class RabbitMQ:
    """One connection, opened when it is first needed; getting and publishing have a channel each."""

    def __init__(self, credentials: Credentials, replies: Replies, ca_file: Optional[str]) -> None:
        self._credentials = credentials
        self._replies = replies
        self._ca_file = ca_file
        self._blocked_timeout = 60
        self._connection: Optional[pika.BlockingConnection] = None
        self._jobs: Optional[BlockingChannel] = None
        self._answers: Optional[BlockingChannel] = None
        self._held: dict[int, Delivery] = {}
        """What this channel of jobs has delivered, and what is neither acked nor given back yet, by its tag."""
        self._ears: dict[str, str] = {}
        """Queue -> consumer, while we listen."""
        self._heard: list[Delivery] = []
        """What came in this way, and was not got yet."""

    def waiting(self, queue: Queue, make: bool = True) -> int:
        with self._reading(queue.name):
            # A refusal closes its channel, and all that is held on it would come again.
            channel = self._open().channel() if self._held else self._jobs_channel()
            try:
                answer = channel.queue_declare(queue.name, passive=True)
            except exceptions.ChannelClosedByBroker as error:
                if error.reply_code != 404:
                    raise
                if not make:
                    return 0
                answer = self._make(queue)
            if channel is not self._jobs and channel.is_open:
                channel.close()
            heard = sum(delivery.queue == queue.name for delivery in self._heard)
            return int(answer.method.message_count) + heard

    def _make(self, queue: Queue) -> Any:
        how = how_to_make(queue)
        if isinstance(how, LeaveIt):
            raise QueueFault(queue.name, how.why)
        log.info("queue missing, making it queue=%s durable=%s", queue.name, str(how.durable).lower())
        if how.unsaid:
            log.warning("queue made without a word in site.toml queue=%s why=%r", queue.name, unsaid_warning())
        # What a broker refuses roughly (541) ends the connection, and all that is held on it would go back.
        apart = self._connect() if self._held else None
        channel = (apart or self._open()).channel()
        try:
            return channel.queue_declare(queue.name, durable=how.durable, arguments=dict(how.arguments))
        except (exceptions.ChannelClosedByBroker, exceptions.ConnectionClosedByBroker) as error:
            if error.reply_code < OUR_FAULT:
                raise
            why = (
                f"can't be made as site.toml says ({error.reply_text}). Correct its settings there, or make it by hand"
            )
            if not how.durable and refused_because_transient(error.reply_code, error.reply_text):
                why = f"does not exist, and {instead_of_transient('durable')}"
            raise QueueFault(queue.name, why) from None
        except (exceptions.UnsupportedAMQPFieldException, struct.error, TypeError, ValueError, OverflowError) as error:
            _close(apart or self._connection)  # half of it may be sent
            why = f"has arguments in site.toml that can't be sent to a broker ({_words(error)})"
            raise QueueFault(queue.name, why) from None
        finally:
            if channel.is_open:
                channel.close()
            _close(apart)

    def get(self, queue: str) -> Optional[Delivery]:
        with self._reading(queue):
            self._jobs_channel()  # what was heard over another one comes again
            for delivery in self._heard:
                if delivery.queue == queue:
                    self._heard.remove(delivery)
                    return delivery
            method, properties, body = self._jobs_channel().basic_get(queue)
        if method is None or properties is None:
            return None
        return self._hold(queue, method, properties, body)

    def get_many(self, queue: str, most: int, wait: float) -> list[Delivery]:
        first = self.get(queue)  # a stream refuses this, and would let itself be consumed without ever getting emptier
        found = [first] if first else []
        if len(found) == most or not (found or wait > 0):
            return found
        try:
            with self._reading(queue):
                channel = self._jobs_channel()
                channel.basic_qos(prefetch_count=min(most - len(found), _MOST_PREFETCH))
                consumer = channel.basic_consume(
                    queue, lambda _, *delivered: found.append(self._hold(queue, *delivered))
                )
                self._collect(channel, queue, found, most, wait)
                if channel.is_open:
                    channel.basic_cancel(consumer)
        except Transient as error:
            if not found:
                raise
            # Over a connection that breaks each time, they would be returned until the broker drops them.
            log.warning("the connection was lost while messages came, those that are here are claimed queue=%s "
                        "messages=%d why=%r", queue, len(found), str(error))  # fmt: skip
        return found

    def _collect(self, channel: BlockingChannel, queue: str, found: list[Delivery], most: int, wait: float) -> None:
        """Until the queue is empty. Its count may overtake the messages that left it, so it is asked twice. Where it says
        that there are some, and none come, they go to somebody else."""
        end, empty = time.monotonic() + wait, 0
        while len(found) < most and channel.consumer_tags and empty < 2:
            before = len(found)
            count = channel.queue_declare(queue, passive=True).method.message_count
            left = min(end - time.monotonic(), _SLICE)
            channel.connection.process_data_events(time_limit=max(left, 0) if not found else _QUIET if count else 0)
            if len(found) > before or not (found or left <= 0):
                empty = 0
            else:
                empty += 1 if count == 0 else 2

    def listen(self, queues: Sequence[str], wait: float) -> bool:
        with self._translated():
            channel = self._jobs_channel()
            if set(self._ears) != set(queues):
                self._stop_listening()
                # A stream refuses a get, and the channel goes with it: the first message ends the round.
                first = next((delivery for queue in queues if (delivery := self.get(queue))), None)
                self._heard += [first] if first else []
                if not self._heard:
                    self._start_listening(channel, queues)
            if not self._heard:
                channel.connection.process_data_events(time_limit=wait)
                if len(self._ears) < len(queues):
                    raise Transient("a jobs queue was deleted")
            if self._heard:
                self._stop_listening()
            return bool(self._heard)

    def _start_listening(self, channel: BlockingChannel, queues: Sequence[str]) -> None:
        """One message of each queue at a time: what is given back counts against the limit of a quorum queue."""
        channel.basic_qos(prefetch_count=1)
        for queue in queues:
            with self._reading(queue):
                self._ears[queue] = channel.basic_consume(queue, partial(self._hear, queue))

    def _hear(self, queue: str, _: BlockingChannel, *delivered: Any) -> None:
        self._heard.append(self._hold(queue, *delivered))

    def _stop_listening(self) -> None:
        ears, self._ears = self._ears, {}
        if ears and self._jobs is not None and self._jobs.is_open:
            self._jobs.connection.process_data_events(time_limit=0)
            for consumer in ears.values():
                self._jobs.basic_cancel(consumer)

    def hush(self) -> None:
        with self._translated():
            self._stop_listening()
            heard, self._heard = self._heard, []
            self._say_what_goes_back(len(heard))
            for delivery in heard:
                self.give_back(delivery)

    def _say_what_goes_back(self, messages: int) -> None:
        if messages:
            log.warning("messages go back to their queue, and a quorum queue counts it messages=%d", messages)

    def _hold(self, queue: str, method: Any, properties: Any, body: Optional[bytes]) -> Delivery:
        delivery = Delivery(
            queue=queue,
            body=body or b"",
            properties=_plain(properties),
            redelivered=bool(method.redelivered),
            tag=int(method.delivery_tag),
            returns=returns_of(_as_bytes(properties.headers)),
        )
        self._held[delivery.tag] = delivery
        return delivery

    def ack(self, delivery: Delivery) -> None:
        self.ack_many([delivery])

    def ack_many(self, deliveries: Sequence[Delivery]) -> None:
        with self._translated():
            channel = self._channel_of(deliveries)
            last = max((delivery.tag for delivery in deliveries), default=0)
            all_before = sum(tag <= last for tag in self._held) == len(deliveries)
            for delivery in deliveries:
                if delivery.tag == last or not all_before:
                    channel.basic_ack(delivery.tag, multiple=all_before)
                del self._held[delivery.tag]

    def _channel_of(self, deliveries: Sequence[Delivery]) -> BlockingChannel:
        """Tags are counted anew on each channel: on another one they would be those of other messages."""
        channel = self._jobs_channel()
        if not all(self._held.get(delivery.tag) is delivery for delivery in deliveries):
            raise Transient(f"the connection was lost, its messages come again ({len(deliveries)})")
        return channel

    def settle(self) -> None:
        with self._translated():
            # A channel is in order: when this is answered, the acks before it have been taken.
            self._jobs_channel().basic_qos(prefetch_count=0)

    def give_back(self, delivery: Delivery) -> None:
        with self._translated():
            self._channel_of([delivery]).basic_nack(delivery.tag, requeue=True)
            del self._held[delivery.tag]

    def publish(self, reply: Reply) -> None:
        with self._translated():
            self._answers_channel()  # a connection that can't be had is no fault of this reply
            try:
                self._publish(reply)
            except (exceptions.UnroutableError, exceptions.NackError):
                raise Unroutable(f"the reply queue {reply.routing_key} does not exist, or is full") from None
            except exceptions.ChannelClosedByBroker as error:
                if error.reply_code == 406 and "larger than" in error.reply_text:
                    raise TooLarge(error.reply_text, largest_in(error.reply_text)) from None
                raise Unroutable(f"the broker refuses it: {error.reply_text}") from None
            except exceptions.ConnectionClosedByBroker as error:
                if error.reply_code < OUR_FAULT:
                    raise
                raise Unroutable(f"the broker refuses it: {error.reply_text}") from None

    def _publish(self, reply: Reply) -> None:
        direct = is_direct(reply.routing_key)
        if direct:
            _look_for(self._open(), reply.routing_key)
        try:
            self._send(reply, mandatory=not direct)
        except exceptions.UnroutableError:
            if not matches(reply.routing_key, self._replies.create):
                raise
            log.info("reply queue missing, making it queue=%s", reply.routing_key)
            self._make_for_reply(reply.routing_key)
            self._send(reply, mandatory=True)

    def _make_for_reply(self, name: str) -> None:
        how = how_to_make_for_reply(self._replies)
        if how.unsaid:
            log.warning("queue made without a word in site.toml queue=%s why=%r", name, unsaid_warning_for_reply())
        try:
            self._answers_channel().queue_declare(name, durable=how.durable)
        except (exceptions.ChannelClosedByBroker, exceptions.ConnectionClosedByBroker) as error:
            if how.durable or not refused_because_transient(error.reply_code, error.reply_text):
                raise
            raise Unroutable(f"the reply queue does not exist, and {instead_of_transient('create_durable')}") from None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self._say_what_goes_back(len(self._held))
        self._held, self._ears, self._heard = {}, {}, []
        _close(connection)

    def _send(self, reply: Reply, mandatory: bool) -> None:
        self._answers_channel().basic_publish(
            "", reply.routing_key, reply.body, as_properties(reply), mandatory=mandatory
        )

    def _jobs_channel(self) -> BlockingChannel:
        if self._jobs is None or not self._jobs.is_open:
            self._jobs = self._open().channel()
            self._jobs.add_on_cancel_callback(lambda frame: self._ears.clear())  # its queue is gone
            self._held, self._ears, self._heard = {}, {}, []
        return self._jobs

    def _answers_channel(self) -> BlockingChannel:
        if self._answers is None or not self._answers.is_open:
            self._answers = self._open().channel()
            self._answers.confirm_delivery()
        return self._answers

    def _open(self) -> pika.BlockingConnection:
        if self._connection is None or not self._connection.is_open:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> pika.BlockingConnection:
        try:
            return pika.BlockingConnection(parameters(self._credentials, self._ca_file, self._blocked_timeout))
        except ValueError as error:  # pika's word for a peer that was gone right after it was connected to
            raise Transient(f"the broker can't be reached: {_words(error)}") from None

    @contextlib.contextmanager
    def _reading(self, queue: str) -> Iterator[None]:
        """The same, for what is asked about one queue: a refusal is that queue's trouble alone."""
        with self._translated():
            try:
                yield
            except (exceptions.ChannelClosedByBroker, exceptions.ConnectionClosedByBroker) as error:
                if error.reply_code < OUR_FAULT:
                    raise
                words = _REFUSALS.get(error.reply_code, "can't be read: the broker refuses ({})")
                raise QueueFault(queue, words.format(error.reply_text)) from None

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Every error of pika or the network becomes Transient; a broken connection is opened anew on next use."""
        try:
            yield
        except (exceptions.ProbableAuthenticationError, exceptions.AuthenticationError):
            raise Transient("the broker refuses our user or password (RABBITMQ_USER, RABBITMQ_PASSWORD)") from None
        except (exceptions.ProbableAccessDeniedError, exceptions.ConnectionClosedByBroker) as error:
            raise Transient(f"the broker closed the connection: {_words(error)}") from None
        except (exceptions.AMQPError, exceptions.ChannelError, AMQPConnectorException, OSError) as error:
            raise Transient(f"the broker can't be reached or refused: {_words(error)}") from None


def _close(connection: Optional[pika.BlockingConnection]) -> None:
    if connection is not None and connection.is_open:
        with contextlib.suppress(exceptions.AMQPError, OSError):
            connection.close()


def largest_in(refusal: str) -> int:
    """What a broker takes that refuses a message for its size, or 0: "... larger than configured max size 16777216"."""
    told = re.search(r"max size (\d+)", refusal)
    return int(told.group(1)) if told else 0


def is_direct(routing_key: str) -> bool:
    """Whether the requester consumes from direct reply-to. `mandatory` tells nothing about such a one: RabbitMQ 3.10 returns
    what was delivered, 4.3 confirms what nobody is there for. So it is looked for first, as RabbitMQ's guide has it: its
    name is declared on a channel that may be lost."""
    return routing_key.startswith(_DIRECT_REPLY_TO)


def _look_for(connection: pika.BlockingConnection, requester: str) -> None:
    """Raises ChannelClosedByBroker where the requester is gone."""
    channel = connection.channel()
    channel.queue_declare(requester, passive=True)
    channel.close()


def parameters(
    credentials: Credentials, ca_file: Optional[str], blocked_timeout: float = 60
) -> pika.ConnectionParameters:
    tls = None
    if credentials.rabbitmq_tls:
        tls = pika.SSLOptions(ssl.create_default_context(cafile=ca_file), credentials.rabbitmq_host)
    return pika.ConnectionParameters(
        host=credentials.rabbitmq_host,
        port=credentials.rabbitmq_port,
        virtual_host=credentials.rabbitmq_vhost,
        credentials=pika.PlainCredentials(credentials.rabbitmq_user, credentials.rabbitmq_password.reveal()),
        ssl_options=tls,
        heartbeat=30,
        socket_timeout=10,
        stack_timeout=20,
        blocked_connection_timeout=blocked_timeout,
        client_properties={"connection_name": "batchferry"},
    )


def as_properties(reply: Reply) -> spec.BasicProperties:
    return pika.BasicProperties(
        correlation_id=reply.correlation_id,  # pika sends bytes as they are
        content_type=reply.content_type,
        type=reply.type,
        message_id=reply.message_id,
        timestamp=reply.timestamp,
        expiration=str(reply.expiration_ms),
        headers=dict(reply.headers),
        delivery_mode=_PERSISTENT,
    )


def _plain(p: spec.BasicProperties) -> Properties:
    return Properties(
        reply_to=p.reply_to,
        correlation_id=p.correlation_id,
        message_id=p.message_id,
        expiration=p.expiration,
        timestamp=p.timestamp,
        content_type=p.content_type,
        type=p.type,
        app_id=p.app_id,
        user_id=p.user_id,
        headers=_as_bytes(p.headers),
    )


def _as_bytes(table: Any) -> bytes:
    return table if isinstance(table, bytes) else b""


def _words(error: BaseException) -> str:
    """pika wraps causes in tuples of exceptions whose own text is empty; the class name then says more."""
    return " ".join(str(error).split()) or type(error).__name__
