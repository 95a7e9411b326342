"""Jobs from queues of RabbitMQ.

Facts: RabbitMQ's guide on queues; AMQP 0-9-1 for consumers and acks.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Optional

from pika import exceptions, spec
from pika.adapters.blocking_connection import BlockingChannel

from .. import amqp
from ..amqp import OUR_FAULT, Connection, translated
from ..errors import Advice, Transient
from ..settings import Queue
from . import Properties, QueueFault, Source, Taken

log = logging.getLogger(__name__)

_FIX_MAKING = "Correct its settings there, or make it by hand"
_MOST_PREFETCH = 65_535
"""A short unsigned integer of AMQP."""
_QUIET = 0.05
_SLICE = 1.0
"""Seconds: how long the next message may take to come, and how long a wait for the first one goes without a look."""


class RabbitMQ(Source):
    """All queues of one virtual host, over one channel of a connection that others may share."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._jobs: Optional[BlockingChannel] = None
        self._held: dict[int, Taken] = {}
        """What this channel of jobs has delivered, and what is neither acked nor given back yet, by its tag."""
        self._consumers: dict[str, str] = {}
        """Queue -> consumer, while we listen."""
        self._ahead: list[Taken] = []
        """What came in this way, and was not got yet."""

    def waiting(self, queue: Queue, make: bool = True) -> int:
        with self._reading(queue.name):
            # A refusal closes its channel, and all that is held on it would come again.
            channel = self._connection.open().channel() if self._held else self._jobs_channel()
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
            ahead = sum(taken.queue == queue.name for taken in self._ahead)
            return int(answer.method.message_count) + ahead

    def _make(self, queue: Queue) -> Any:
        from ..amqp.making import UNSAID, how_to_make, instead_of_transient, refused_because_transient

        how = how_to_make(queue)
        if isinstance(how, Advice):
            raise QueueFault(queue.name, how.found, how.fix)
        log.info("queue missing, making it queue=%s durable=%s", queue.name, str(how.durable).lower())
        if how.unsaid:
            log.warning("queue made without a word in site.toml queue=%s why=%r", queue.name, str(UNSAID))
        # What a broker refuses roughly (541) ends the connection, and all that is held on it would go back.
        apart = self._connection.another() if self._held else None
        channel = (apart or self._connection.open()).channel()
        try:
            return channel.queue_declare(queue.name, durable=how.durable, arguments=dict(how.arguments))
        except (exceptions.ChannelClosedByBroker, exceptions.ConnectionClosedByBroker) as error:
            if error.reply_code < OUR_FAULT:
                raise
            found, fix = f"can't be made as site.toml says ({error.reply_text})", _FIX_MAKING
            if not how.durable and refused_because_transient(error.reply_code, error.reply_text):
                instead = instead_of_transient("durable")
                found, fix = f"does not exist, and {instead.found}", instead.fix
            raise QueueFault(queue.name, found, fix) from None
        except (exceptions.UnsupportedAMQPFieldException, struct.error, TypeError, ValueError, OverflowError) as error:
            amqp.close(apart or self._connection.open())  # half of it may be sent
            why = f"has arguments in site.toml that can't be sent to a broker ({amqp.in_words(error)})"
            raise QueueFault(queue.name, why) from None
        finally:
            if channel.is_open:
                channel.close()
            amqp.close(apart)

    def _get(self, queue: str) -> Optional[Taken]:
        with self._reading(queue):
            self._jobs_channel()  # what came over another one comes again
            for taken in self._ahead:
                if taken.queue == queue:
                    self._ahead.remove(taken)
                    return taken
            method, properties, body = self._jobs_channel().basic_get(queue)
        if method is None or properties is None:
            return None
        return self._hold(queue, method, properties, body)

    def take(self, queue: str, most: int, wait: float) -> list[Taken]:
        from ..amqp.returns import MANY

        messages = self._take(queue, most, wait)
        for taken in messages:
            if taken.returns >= MANY:
                log.warning("went back to its queue many times, a quorum queue drops it at its 21st return unless it was "
                            "told otherwise; claimed now queue=%s returns=%d correlation_id=%r",
                            queue, taken.returns, taken.properties.correlation_id)  # fmt: skip
        return messages

    def _take(self, queue: str, most: int, wait: float) -> list[Taken]:
        first = self._get(queue)  # a stream refuses this, and would let itself be consumed without ever getting emptier
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

    def _collect(self, channel: BlockingChannel, queue: str, found: list[Taken], most: int, wait: float) -> None:
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
        with translated():
            channel = self._jobs_channel()
            if set(self._consumers) != set(queues):
                self._stop_consuming()
                # A stream refuses a get, and the channel goes with it: the first message ends the round.
                first = next((taken for queue in queues if (taken := self._get(queue))), None)
                self._ahead += [first] if first else []
                if not self._ahead:
                    self._start_consuming(channel, queues)
            if not self._ahead:
                channel.connection.process_data_events(time_limit=wait)
                if len(self._consumers) < len(queues):
                    raise Transient("a jobs queue was deleted")
            if self._ahead:
                self._stop_consuming()
            return bool(self._ahead)

    def _start_consuming(self, channel: BlockingChannel, queues: Sequence[str]) -> None:
        """One message of each queue at a time: what is given back counts against the limit of a quorum queue."""
        channel.basic_qos(prefetch_count=1)
        for queue in queues:
            with self._reading(queue):
                self._consumers[queue] = channel.basic_consume(queue, partial(self._on_message, queue))

    def _on_message(self, queue: str, _: BlockingChannel, *delivered: Any) -> None:
        self._ahead.append(self._hold(queue, *delivered))

    def _stop_consuming(self) -> None:
        consumers, self._consumers = self._consumers, {}
        if consumers and self._jobs is not None and self._jobs.is_open:
            self._jobs.connection.process_data_events(time_limit=0)
            for consumer in consumers.values():
                self._jobs.basic_cancel(consumer)

    def stop_listening(self) -> None:
        with translated():
            self._stop_consuming()
            ahead, self._ahead = self._ahead, []
            self._say_what_goes_back(len(ahead))
            for taken in ahead:
                self.give_back(taken)

    def _say_what_goes_back(self, messages: int) -> None:
        if messages:
            log.warning("messages go back to their queue, and a quorum queue counts it messages=%d", messages)

    def _hold(self, queue: str, method: Any, properties: Any, body: Optional[bytes]) -> Taken:
        from ..amqp.returns import returns_of

        taken = Taken(
            queue=queue,
            body=body or b"",
            properties=_plain(properties),
            redelivered=bool(method.redelivered),
            tag=int(method.delivery_tag),
            returns=returns_of(_as_bytes(properties.headers)),
        )
        self._held[taken.tag] = taken
        return taken

    def ack(self, messages: Sequence[Taken]) -> None:
        with translated():
            channel = self._channel_of(messages)
            last = max((taken.tag for taken in messages), default=0)
            all_before = sum(tag <= last for tag in self._held) == len(messages)
            for taken in messages:
                if taken.tag == last or not all_before:
                    channel.basic_ack(taken.tag, multiple=all_before)
                del self._held[taken.tag]

    def _channel_of(self, messages: Sequence[Taken]) -> BlockingChannel:
        """Tags are counted anew on each channel: on another one they would be those of other messages."""
        channel = self._jobs_channel()
        if not all(self._held.get(taken.tag) is taken for taken in messages):
            raise Transient(f"the connection was lost, its messages come again ({len(messages)})")
        return channel

    def ensure_acked(self) -> None:
        with translated():
            # A channel is in order: when this is answered, the acks before it have been taken.
            self._jobs_channel().basic_qos(prefetch_count=0)

    def give_back(self, taken: Taken) -> None:
        with translated():
            self._channel_of([taken]).basic_nack(taken.tag, requeue=True)
            del self._held[taken.tag]

    def close(self) -> None:
        self._say_what_goes_back(len(self._held))
        self._held, self._consumers, self._ahead = {}, {}, []
        self._connection.close()

    def _jobs_channel(self) -> BlockingChannel:
        if self._jobs is None or not self._jobs.is_open:
            self._jobs = self._connection.open().channel()
            self._jobs.add_on_cancel_callback(lambda frame: self._consumers.clear())  # its queue is gone
            self._held, self._consumers, self._ahead = {}, {}, []
        return self._jobs

    @contextlib.contextmanager
    def _reading(self, queue: str) -> Iterator[None]:
        """For what is asked about one queue: a refusal is that queue's trouble alone."""
        with translated():
            try:
                yield
            except (exceptions.ChannelClosedByBroker, exceptions.ConnectionClosedByBroker) as error:
                if error.reply_code < OUR_FAULT:
                    raise
                from ..amqp.causes import queue_cause

                cause = queue_cause(error.reply_code)
                raise QueueFault(queue, f"{cause.found} ({error.reply_text})", cause.fix) from None


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
