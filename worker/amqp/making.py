"""Whether a queue that does not exist may be made, and how; what to write in site.toml where that is not said. Pure.

The service may declare the same queue. Whoever comes second and declares it differently gets 406 (AMQP 0-9-1), so it has to
be said who makes it, and how.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from ..errors import Advice
from ..settings import Queue, Replies

_TRANSIENT_REFUSED = 541
"""INTERNAL_ERROR: how RabbitMQ 4.3 and later refuse queues that are not durable, unless they are told to permit them."""
UNSAID = Advice(
    "it is not durable, so what waits in it is gone when the broker restarts",
    "Write make = false under its name in site.toml if the service declares it itself, or else durable = true",
)
UNSAID_FOR_REPLY = Advice(
    "it is not durable, so answers in it are gone when the broker restarts", "Write create_durable under [replies]"
)


@dataclass(frozen=True)
class Make:
    durable: bool
    arguments: Mapping[str, Any] = field(default_factory=dict)
    unsaid: bool = False
    """The site file is of the time when queues were made in this way without a word."""


def how_to_make(queue: Queue) -> Union[Make, Advice]:
    """Advice where it is not to be made by us."""
    if queue.make is False:
        found = "does not exist yet, and the service makes it (make = false)"
        return Advice(found, "Check its name in site.toml")
    if queue.durable is not None:
        return Make(queue.durable, queue.arguments)
    if queue.make:
        found = "does not exist, and site.toml does not say how to make it"
        return Advice(found, "Write durable = true under its name there")
    return Make(False, queue.arguments, unsaid=True)


def how_to_make_for_reply(replies: Replies) -> Make:
    return Make(bool(replies.create_durable), unsaid=replies.create_durable is None)


def refused_because_transient(code: int, words: str) -> bool:
    return code == _TRANSIENT_REFUSED or "transient_nonexcl_queues" in words


def instead_of_transient(setting: str) -> Advice:
    """Where the broker refuses queues that are not durable."""
    fix = f"Write {setting} = true in site.toml, or make it by hand"
    return Advice("this broker refuses queues that are not durable", fix)
