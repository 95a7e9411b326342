"""Asks for one job over RabbitMQ, with direct reply-to: that needs no right to make a queue, and leaves none.

Facts: RabbitMQ's guide on direct reply-to. The consumer comes first, without acks, and on the channel that then publishes; the
broker puts an address of its own in the place of the name, and what is sent there later than the connection lives is dropped.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Optional

import pika
from pika import data, exceptions

from ..errors import Transient, Unroutable
from ..requester import Answered, Waiting
from ..settings import Credentials
from . import Connection, close, in_words, translated

_DIRECT = "amq.rabbitmq.reply-to"
_REFUSED, _NOT_FOUND, _LOCKED = 403, 404, 405
_SLICE = 0.2
_PERSISTENT = 2


class DirectRequester:
    """What waits for the answer is a thread of its own, so that the connection lives however long a pass takes."""

    reply_to = f"{_DIRECT}.of-check-py"
    pattern = f"{_DIRECT}.*"

    def __init__(self, credentials: Credentials, ca_file: Optional[str]) -> None:
        self._connection = Connection(credentials, ca_file)
        self._answer: Optional[Answered] = None
        self._lost = ""
        self._closing = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def look(self, queue: str) -> Optional[Waiting]:
        with translated():
            apart = self._connection.another()  # the other one is the thread's
            try:
                found = apart.channel().queue_declare(queue, passive=True).method
                return Waiting(int(found.message_count), int(found.consumer_count))
            except exceptions.ChannelClosedByBroker as error:
                if error.reply_code not in (_REFUSED, _NOT_FOUND, _LOCKED):
                    raise
                return None
            finally:
                close(apart)

    def ask(self, queue: str, body: bytes, correlation_id: str, seconds: float) -> None:
        properties = pika.BasicProperties(
            reply_to=_DIRECT, correlation_id=correlation_id, message_id=correlation_id, expiration=str(int(seconds * 1000)),
            content_type="application/json", delivery_mode=_PERSISTENT, app_id="batchferry check.py test",
        )  # fmt: skip
        with translated():
            channel = self._connection.confirming()
            channel.basic_consume(_DIRECT, self._came, auto_ack=True)
            try:
                channel.basic_publish("", queue, body, properties, mandatory=True)
            except (exceptions.UnroutableError, exceptions.NackError):
                raise Unroutable(f"the queue {queue} does not exist, or is full") from None
            except exceptions.ChannelClosedByBroker as error:
                raise Unroutable(f"the broker refuses it: {error.reply_text}") from None
        self._thread = threading.Thread(target=self._listen, name="answer", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            connection = self._connection.open()
            while not self._closing.is_set():
                connection.process_data_events(time_limit=_SLICE)
        except (exceptions.AMQPError, OSError) as error:
            self._lost = in_words(error)

    def _came(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        table = properties.headers if isinstance(properties.headers, bytes) else b""
        job = ""
        with contextlib.suppress(Exception):  # whoever answers may write what he likes
            job = str(data.decode_table(table, 0)[0].get("job_id", ""))
        self._answer = Answered(body, job)

    def answer(self) -> Optional[Answered]:
        if self._answer is None and self._lost:
            raise Transient(f"the connection that the answer would have come over was lost: {self._lost}")
        return self._answer

    def close(self) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join(10)
        self._connection.close()
