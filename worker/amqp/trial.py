"""Tries out what a broker lets us do, without taking a message or leaving one. For the doctor and for init.

Facts: RabbitMQ's guides on queues (equivalence of arguments), access control and confirms. What a queue is like can't be
asked over AMQP; a declaration with other arguments is refused with 406, and the refusal tells one of those it has.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from time import time
from typing import Any, Optional

import pika
from pika import data, exceptions
from pika.adapters.blocking_connection import BlockingChannel

from ..settings import Credentials, Queue
from . import Connection, largest_in, translated
from .making import refused_because_transient

_REFUSED, _NOT_FOUND, _LOCKED, _OTHER_ARGUMENTS = 403, 404, 405, 406
_MOST_DIFFERENCES = 20
_DIFFERENCE = re.compile(r"inequivalent arg '([^']+)' .*: received (.+) but current is (.+)$")
_VALUE = re.compile(r"the value '(.*)' of type '(\w+)'")


@dataclass(frozen=True)
class Seen:
    """A queue. `state`: there, missing, locked (another connection's own) or refused."""

    state: str
    messages: int = 0
    consumers: int = 0
    known: bool = False
    """Whether the rest could be found out; that needs the right to configure it."""
    durable: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    differences: tuple[str, ...] = ()
    """From what the site file says, where we are to make it."""

    @property
    def kind(self) -> str:
        return str(self.arguments.get("x-queue-type", "classic")) if self.known else "unknown"


class Trial:
    """Every method raises Transient when the broker is away or lets us in no more."""

    def __init__(self, credentials: Credentials, ca_file: Optional[str]) -> None:
        self._connection = Connection(credentials, ca_file, blocked_timeout=10)
        self._jobs: Optional[BlockingChannel] = None

    def close(self) -> None:
        self._connection.close()

    def _jobs_channel(self) -> BlockingChannel:
        if self._jobs is None or not self._jobs.is_open:
            self._jobs = self._connection.open().channel()
        return self._jobs

    def server(self) -> tuple[str, str]:
        """Its product and version, as it says. Connects and logs in."""
        with translated():
            told: Mapping[str, Any] = self._connection.open()._impl.server_properties or {}  # pika keeps them to itself
            return _text(told.get("product", "")), _text(told.get("version", ""))

    def look(self, queue: Queue) -> Seen:
        with translated():
            try:
                answer = self._jobs_channel().queue_declare(queue.name, passive=True).method
            except exceptions.ChannelClosedByBroker as error:
                states = {_NOT_FOUND: "missing", _LOCKED: "locked", _REFUSED: "refused"}
                if error.reply_code not in states:
                    raise
                return Seen(states[error.reply_code])
            return self._learn(queue, int(answer.message_count), int(answer.consumer_count))

    def makes_transient(self) -> bool:
        """Whether it makes queues that are neither durable nor exclusive; False only where it says so. One is made, and
        removed at once."""
        with translated():
            try:
                channel = self._connection.open().channel()
                name = channel.queue_declare(_nobody(), auto_delete=True, arguments={"x-expires": 60_000}).method.queue
                channel.queue_delete(name)
                return True
            except (exceptions.ChannelClosedByBroker, exceptions.ConnectionClosedByBroker) as error:
                return not refused_because_transient(error.reply_code, error.reply_text)

    def has_exchange(self, name: str) -> bool:
        """False only where the broker says so. The one without a name is always there."""
        if not name:
            return True
        with translated():
            try:
                channel = self._connection.open().channel()
                channel.exchange_declare(name, passive=True)
                channel.close()
                return True
            except exceptions.ChannelClosedByBroker as error:
                return bool(error.reply_code != _NOT_FOUND)

    def _learn(self, queue: Queue, messages: int, consumers: int) -> Seen:
        durable, arguments = bool(queue.durable), dict(queue.arguments)
        differences: list[str] = []
        for _ in range(_MOST_DIFFERENCES):
            try:
                self._jobs_channel().queue_declare(queue.name, durable=durable, arguments=arguments)
                return Seen("there", messages, consumers, True, durable, arguments, tuple(differences))
            except exceptions.ConnectionClosedByBroker:
                break  # it does not make such queues any more, and says so in a rough way
            except exceptions.ChannelClosedByBroker as error:
                told = _DIFFERENCE.search(error.reply_text)
                if error.reply_code != _OTHER_ARGUMENTS or not told:
                    break
                name, value = told.group(1), _value(told.group(3))
                if name == "durable":
                    durable = not durable
                elif name not in ("exclusive", "auto_delete"):
                    arguments = {key: given for key, given in arguments.items() if key != name}
                    arguments.update({} if value is None else {name: value})
                else:
                    break
                if queue.make is not False and (name != "durable" or queue.durable is not None):
                    differences.append(f"{name} is {_words(durable if name == 'durable' else value)}")
        return Seen("there", messages, consumers)

    def may_read(self, queue: str) -> bool:
        """For an empty queue: a message that comes just then is given back, and is marked as redelivered."""
        with translated():
            try:
                method, _, _ = self._jobs_channel().basic_get(queue)
                if method is not None:
                    self._jobs_channel().basic_nack(method.delivery_tag, requeue=True)
                return True
            except exceptions.ChannelClosedByBroker as error:
                if error.reply_code != _REFUSED:
                    raise
                return False

    def may_answer(self) -> bool:
        """Whether we may publish to the default exchange; to a queue that nobody has."""
        with translated():
            try:
                self._connection.confirming().basic_publish("", _nobody(), b"", mandatory=True)
            except exceptions.UnroutableError:
                return True
            except exceptions.ChannelClosedByBroker as error:
                if error.reply_code != _REFUSED:
                    raise
                return False
            return True

    def largest(self, size: int) -> int:
        """`size` if the broker takes a message of so many bytes, else the most that it takes (0 if it does not say)."""
        with translated():
            try:
                self._connection.confirming().basic_publish(
                    "", _nobody(), bytes(size), pika.BasicProperties(expiration="0")
                )
            except exceptions.ChannelClosedByBroker as error:
                if error.reply_code != _OTHER_ARGUMENTS:
                    raise
                return largest_in(error.reply_text)
            return size

    def clock_ahead(self) -> Optional[float]:
        """By how many seconds the broker's clock is ahead of ours; None where it can't be found out.

        A message that expires at once is moved to a second queue, and the broker notes when. Both queues are this
        connection's own, and end with it.
        """
        with translated():
            try:
                channel = self._connection.confirming()
                late = channel.queue_declare("", exclusive=True).method.queue
                how = {"x-message-ttl": 0, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": late}
                soon = channel.queue_declare("", exclusive=True, arguments=how).method.queue
                before = time()
                channel.basic_publish("", soon, b"")
                for _ in range(20):
                    method, properties, _ = channel.basic_get(late, auto_ack=True)
                    if method is not None:
                        return _ahead(_death(properties.headers), before, time())
                    self._connection.open().sleep(0.05)
            except exceptions.ChannelClosedByBroker as error:
                if error.reply_code != _REFUSED:
                    raise
            return None


def _death(table: Any) -> Optional[float]:
    """When the broker moved it, in seconds since 1970."""
    headers = data.decode_table(table, 0)[0] if isinstance(table, bytes) else table
    deaths = (headers or {}).get("x-death") or [{}]
    noted = deaths[0].get("time")
    return noted.replace(tzinfo=timezone.utc).timestamp() if isinstance(noted, datetime) else None


def _ahead(theirs: Optional[float], before: float, after: float) -> Optional[float]:
    """It says whole seconds."""
    if theirs is None:
        return None
    return min(theirs + 1 - before, 0.0) or max(theirs - after, 0.0)


def _nobody() -> str:
    return f"batchferry-doctor-{secrets.token_hex(8)}"


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _value(words: str) -> Any:
    """As the refusal writes it: "none", "'false'" or "the value 'quorum' of type 'longstr'"."""
    found = _VALUE.match(words)
    if not found:
        return None if words == "none" else words.strip("'")
    text, kind = found.groups()
    if kind == "bool":
        return text == "true"
    return int(text) if re.fullmatch(r"-?\d+", text) and kind != "longstr" else text


def _words(value: Any) -> str:
    return {None: "not set", True: "true", False: "false"}.get(value) or repr(value)
