"""Sends many answers over one connection, each confirmed, without waiting for one confirm after the other.

A pilot's answers leave here: a thread of its own keeps up to `_WINDOW` of them on their way. What the broker says of each
comes back through `confirmations()`; what it says nothing of is sent again after a reconnect, equal to the byte.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Callable, Optional

import pika
from pika import exceptions

from ..amqp import OUR_FAULT, parameters
from .message import as_properties, is_direct

if TYPE_CHECKING:
    from ..job.outcome import Reply
    from ..settings import Credentials

log = logging.getLogger(__name__)

_WINDOW = 1000
_ONE_BY_ONE = 20
"""Confirms after which a window that was narrowed, to see which answer the broker refuses, is opened again."""
_LONGEST_WAIT = 15.0
"""Seconds between two tries to connect."""


class Window:
    """`changed` is called, in the thread, whenever there is a confirmation."""

    def __init__(self, credentials: Credentials, ca_file: Optional[str], changed: Callable[[], None]) -> None:
        self._parameters = parameters(credentials, ca_file)
        self._changed = changed
        self._waiting: deque[Reply] = deque()
        self._confirmations: deque[tuple[str, str]] = deque()
        self._on_their_way: OrderedDict[int, Reply] = OrderedDict()
        self._returned: set[str] = set()
        self._looked_for: dict[str, Reply] = {}
        self._there: set[str] = set()
        """Direct replies, by message_id: their requester is looked for, and was found."""
        self._most, self._confirmed_in_a_row, self._number = _WINDOW, 0, 0
        self._connection: Optional[pika.SelectConnection] = None
        self._channel: Any = None
        self._away_since: Optional[float] = time.monotonic()
        self._pumping = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._live, name="answers", daemon=True)
        self._thread.start()

    # --- for the pilot

    def send(self, replies: list[Reply]) -> None:
        self._waiting.extend(replies)
        if not self._pumping:
            self._pumping = True
            self._wake(self._pump)

    def confirmations(self) -> list[tuple[str, str]]:
        """(message_id, "") for each answer that was confirmed since the last call; else why the broker does not take it."""
        confirmed = []
        while self._confirmations:
            confirmed.append(self._confirmations.popleft())
        return confirmed

    def away_for(self) -> float:
        """Seconds since the connection was lost, or 0."""
        since = self._away_since
        return 0.0 if since is None else time.monotonic() - since

    def close(self) -> None:
        """What was not confirmed by now may have been sent, or not."""
        self._closing.set()
        self._wake(self._end)
        self._thread.join(10)

    def _wake(self, what: Callable[[], None]) -> None:
        connection = self._connection
        if connection is not None:
            connection.ioloop.add_callback_threadsafe(what)

    # --- in the thread

    def _live(self) -> None:
        wait = 1.0
        while not self._closing.is_set():
            begun = time.monotonic()
            try:
                self._pumping = False
                self._connection = pika.SelectConnection(
                    self._parameters, self._connected, self._not_connected, self._disconnected
                )
                self._connection.ioloop.start()
            except (exceptions.AMQPError, OSError) as error:
                log.warning("broker away, answers wait why=%r", str(error) or type(error).__name__)
            self._connection = self._channel = None
            self._again()
            wait = 1.0 if time.monotonic() - begun > _LONGEST_WAIT else min(2 * wait, _LONGEST_WAIT)
            self._closing.wait(wait * random.uniform(0.5, 1))  # noqa: S311  # not for secrets

    def _connected(self, connection: Any) -> None:
        if self._closing.is_set():
            self._end()
        else:
            connection.channel(on_open_callback=self._opened)

    def _not_connected(self, connection: Any, error: Any) -> None:
        log.warning("broker away, answers wait why=%r", str(error) or type(error).__name__)
        connection.ioloop.stop()

    def _disconnected(self, connection: Any, reason: Any) -> None:
        if isinstance(reason, exceptions.ConnectionClosedByBroker) and reason.reply_code >= OUR_FAULT:
            self._refused(reason.reply_text)
        if not self._closing.is_set():
            log.warning("broker away, answers wait why=%r", str(reason))
        connection.ioloop.stop()

    def _opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(self._came_back)
        channel.confirm_delivery(self._confirmed, callback=lambda _: self._ready(channel))

    def _ready(self, channel: Any) -> None:
        self._channel, self._number, self._away_since = channel, 0, None
        self._pump()

    def _channel_closed(self, channel: Any, reason: Any) -> None:
        self._channel = None
        if isinstance(reason, exceptions.ChannelClosedByBroker):
            self._refused(reason.reply_text)
            self._again()
            if channel.connection.is_open:
                channel.connection.channel(on_open_callback=self._opened)

    def _refused(self, words: str) -> None:
        """One of those on their way: if there was but one, it is known which; else they go one by one."""
        unsure = [*self._on_their_way.values(), *self._looked_for.values()]
        if len(unsure) == 1:
            self._on_their_way.clear()
            self._looked_for.clear()
            self._confirm(unsure[0].message_id, f"the broker refuses it: {words}")
        self._most, self._confirmed_in_a_row = 1, 0

    def _again(self) -> None:
        """Nobody knows whether these arrived."""
        if self._away_since is None:
            self._away_since = time.monotonic()
        self._waiting.extendleft(reversed([*self._on_their_way.values(), *self._looked_for.values()]))
        self._on_their_way.clear()
        self._looked_for.clear()
        self._there.clear()
        self._returned.clear()

    def _pump(self) -> None:
        self._pumping = False
        while self._channel is not None and self._waiting and self._unsure < self._most:
            reply = self._waiting.popleft()
            direct = is_direct(reply.routing_key)
            if direct and reply.message_id not in self._there:
                self._look_for(self._channel.connection, reply)
                continue
            self._there.discard(reply.message_id)
            self._number += 1
            self._on_their_way[self._number] = reply
            self._channel.basic_publish("", reply.routing_key, reply.body, as_properties(reply), mandatory=not direct)

    @property
    def _unsure(self) -> int:
        return len(self._on_their_way) + len(self._looked_for)

    def _look_for(self, connection: Any, reply: Reply) -> None:
        """Whether the requester of a direct reply is there: on a channel of its own, which the broker closes if not."""
        self._looked_for[reply.message_id] = reply

        def found(frame: Any) -> None:
            self._there.add(reply.message_id)
            channel.close()

        def closed(_: Any, reason: Any) -> None:
            gone = isinstance(reason, exceptions.ChannelClosedByBroker)
            if reply.message_id not in self._looked_for or not (gone or reply.message_id in self._there):
                return  # the connection was lost, and with it what was on its way
            del self._looked_for[reply.message_id]
            if gone:
                self._confirm(reply.message_id, f"the reply queue {reply.routing_key} does not exist")
            else:
                self._waiting.appendleft(reply)
                self._pump()

        channel = connection.channel(
            on_open_callback=lambda opened: opened.queue_declare(reply.routing_key, passive=True, callback=found)
        )
        channel.add_on_close_callback(closed)

    def _came_back(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._returned.add(properties.message_id)

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        taken = isinstance(method, pika.spec.Basic.Ack)
        while self._on_their_way:
            number = next(iter(self._on_their_way)) if method.multiple else method.delivery_tag
            if number > method.delivery_tag or number not in self._on_their_way:
                break
            self._one_confirmed(self._on_their_way.pop(number), taken)
            if not method.multiple:
                break
        self._changed()
        self._pump()

    def _one_confirmed(self, reply: Reply, taken: bool) -> None:
        if taken and reply.message_id not in self._returned:
            self._confirmations.append((reply.message_id, ""))
        else:
            self._returned.discard(reply.message_id)
            self._confirmations.append(
                (reply.message_id, f"the reply queue {reply.routing_key} does not exist, or is full")
            )
        self._confirmed_in_a_row += 1
        if self._confirmed_in_a_row > _ONE_BY_ONE:
            self._most = _WINDOW

    def _confirm(self, message_id: str, why: str) -> None:
        self._confirmations.append((message_id, why))
        self._changed()

    def _end(self) -> None:
        if self._connection is not None and self._connection.is_open:
            self._connection.close()
        elif self._connection is not None:
            self._connection.ioloop.stop()
