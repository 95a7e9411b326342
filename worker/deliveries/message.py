"""An answer as one message of RabbitMQ, confirmed.

Facts: RabbitMQ's guides on confirms and direct reply-to.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pika
from pika import exceptions, spec

from ..amqp import OUR_FAULT, Connection, is_too_large, largest_in, translated
from ..amqp.making import (
    UNSAID_FOR_REPLY,
    how_to_make_for_reply,
    instead_of_transient,
    refused_because_transient,
)
from ..errors import TooLarge, Unroutable
from ..settings import Replies
from . import matches

if TYPE_CHECKING:
    from ..job.outcome import Reply

log = logging.getLogger(__name__)

_DIRECT_REPLY_TO = "amq.rabbitmq.reply-to."
_PERSISTENT = 2
_ACCESS_REFUSED = 403


class Messages:
    """Over a channel of its own of a connection that others may share."""

    def __init__(self, connection: Connection, replies: Replies) -> None:
        self._connection = connection
        self._replies = replies

    def send(self, reply: Reply) -> None:
        with translated():
            self._connection.confirming()  # a connection that can't be had is no fault of this reply
            try:
                self._publish(reply)
            except (exceptions.UnroutableError, exceptions.NackError):
                raise Unroutable(f"the reply queue {reply.routing_key} does not exist, or is full") from None
            except exceptions.ChannelClosedByBroker as error:
                if is_too_large(error.reply_code, error.reply_text):
                    raise TooLarge(error.reply_text, largest_in(error.reply_text)) from None
                raise Unroutable(_refused(error)) from None
            except exceptions.ConnectionClosedByBroker as error:
                if error.reply_code < OUR_FAULT:
                    raise
                raise Unroutable(f"the broker refuses it: {error.reply_text}") from None

    def _publish(self, reply: Reply) -> None:
        direct = is_direct(reply.routing_key)
        if direct:
            _look_for(self._connection.open(), reply.routing_key)
        try:
            self._publish_once(reply, mandatory=not direct)
        except exceptions.UnroutableError:
            if not matches(reply.routing_key, self._replies.create):
                raise
            log.info("reply queue missing, making it queue=%s", reply.routing_key)
            self._make_for_reply(reply.routing_key)
            self._publish_once(reply, mandatory=True)

    def _make_for_reply(self, name: str) -> None:
        how = how_to_make_for_reply(self._replies)
        if how.unsaid:
            log.warning("queue made without a word in site.toml queue=%s why=%r", name, str(UNSAID_FOR_REPLY))
        try:
            self._connection.confirming().queue_declare(name, durable=how.durable)
        except (exceptions.ChannelClosedByBroker, exceptions.ConnectionClosedByBroker) as error:
            if how.durable or not refused_because_transient(error.reply_code, error.reply_text):
                raise
            raise Unroutable(f"the reply queue does not exist, and {instead_of_transient('create_durable')}") from None

    def close(self) -> None:
        self._connection.close()

    def _publish_once(self, reply: Reply, mandatory: bool) -> None:
        self._connection.confirming().basic_publish(
            "", reply.routing_key, reply.body, as_properties(reply), mandatory=mandatory
        )


def _refused(error: exceptions.ChannelClosedByBroker) -> str:
    if error.reply_code == _ACCESS_REFUSED:
        from ..amqp.causes import NO_RIGHT_TO_ANSWER

        return f"{NO_RIGHT_TO_ANSWER} ({error.reply_text})"
    return f"the broker refuses it: {error.reply_text}"


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
