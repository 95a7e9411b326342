"""A source and a delivery as one object, for who tests both."""

from __future__ import annotations

from typing import Optional, Protocol

from worker.amqp import Connection
from worker.build import End, Ends
from worker.deliveries import Delivery
from worker.deliveries.message import Messages
from worker.job.outcome import Reply
from worker.settings import Credentials, Replies, Site
from worker.sources import Source, Taken
from worker.sources.amqp import RabbitMQ


class Both(Source, Delivery, Protocol):
    def close(self) -> None: ...


class OverRabbitMQ(RabbitMQ):
    """Over one connection, as in a pass."""

    def __init__(self, credentials: Credentials, replies: Replies) -> None:
        connection = Connection(credentials, None)
        super().__init__(connection)
        self.credentials = credentials
        self._messages = Messages(connection, replies)

    def send(self, reply: Reply) -> None:
        self._messages.send(reply)


def ends_of(site: Site, both: Both) -> Ends:
    """All queues are at this one, and it is open."""
    ends = Ends(site, lambda kind: End(both, lambda: both))
    ends.source(site.queues[0])
    return ends


def one(source: Source, queue: str) -> Optional[Taken]:
    return next(iter(source.take(queue, 1, wait=0)), None)
