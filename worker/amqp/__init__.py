"""All about RabbitMQ. Here: a connection over AMQP 0-9-1, for a source and a delivery to share; every error of pika ends here.

Fact: AMQP 0-9-1 for reply codes (404 no such queue, 405 locked by another connection, 406 made with other arguments, or
message too large).
"""

from __future__ import annotations

import contextlib
import re
import ssl
import struct
from collections.abc import Iterator
from functools import partial
from typing import Optional

import pika
from pika import data, exceptions, spec
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from ..errors import Advice, Transient
from ..settings import Credentials

OUR_FAULT = 400
"""Reply codes from here on blame what was sent; 320 is a broker that is being stopped."""
_PRECONDITION_FAILED = 406


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


class Connection:
    """Opened when it is first needed, and anew when it was lost."""

    def __init__(self, credentials: Credentials, ca_file: Optional[str], blocked_timeout: float = 60) -> None:
        self._credentials, self._ca_file = credentials, ca_file
        self._parameters = partial(parameters, credentials, ca_file, blocked_timeout)
        self._open: Optional[pika.BlockingConnection] = None
        self._confirming: Optional[BlockingChannel] = None

    def confirming(self) -> BlockingChannel:
        """The channel for what the broker has to confirm; a new one where it was lost."""
        if self._confirming is None or not self._confirming.is_open:
            self._confirming = self.open().channel()
            self._confirming.confirm_delivery()
        return self._confirming

    def open(self) -> pika.BlockingConnection:
        if self._open is None or not self._open.is_open:
            self._open = self.another()
        return self._open

    def another(self) -> pika.BlockingConnection:
        """For what may end its connection; the caller closes it. Raises Transient."""
        try:
            return pika.BlockingConnection(self._parameters())
        # ValueError is pika's word for a peer that was gone right after it was connected to.
        except (exceptions.AMQPError, AMQPConnectorException, OSError, ValueError) as error:
            from .causes import not_opened

            raise _transient(not_opened(self._credentials, self._ca_file, error)) from None

    def close(self) -> None:
        connection, self._open = self._open, None
        close(connection)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Every error of pika or the network becomes Transient; a broken connection is opened anew on next use."""
    try:
        yield
    except (exceptions.AMQPError, exceptions.ChannelError, AMQPConnectorException, OSError) as error:
        from .causes import lost

        raise _transient(lost(error)) from None


def _transient(cause: Advice) -> Transient:
    return Transient(cause.found, fix=cause.fix)


def close(connection: Optional[pika.BlockingConnection]) -> None:
    if connection is not None and connection.is_open:
        with contextlib.suppress(exceptions.AMQPError, OSError):
            connection.close()


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


def is_too_large(code: int, words: str) -> bool:
    """Whether a broker refuses a message for its size: "PRECONDITION_FAILED - message size 17 is larger than ..."."""
    return code == _PRECONDITION_FAILED and "larger than" in words


def largest_in(refusal: str) -> int:
    """What a broker takes that refuses a message for its size, or 0: "... larger than configured max size 16777216"."""
    told = re.search(r"max size (\d+)", refusal)
    return int(told.group(1)) if told else 0


def in_words(error: BaseException) -> str:
    """pika wraps causes in tuples of exceptions whose own text is empty; the class name then says more."""
    return " ".join(str(error).split()) or type(error).__name__
