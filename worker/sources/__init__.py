"""What any source of jobs must offer, and what comes from it. docs/sources.md says how one is written."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Protocol, Union

from ..errors import Transient
from ..settings import Queue

if TYPE_CHECKING:
    from ..job.facts import Message
    from ..job.names import JobId

Text = Union[str, bytes]
"""A short string as it came: bytes where the sender's bytes are not UTF-8."""


@dataclass(frozen=True)
class Properties:
    """What a message says about itself, as it came. Nothing here is to be trusted."""

    reply_to: Optional[Text] = None
    """Where its answer goes, in the words of the delivery; None where none is wanted."""
    correlation_id: Optional[Text] = None
    message_id: Optional[Text] = None
    expiration: Optional[Text] = None
    """Milliseconds that it may wait, counted from its timestamp or, without one, from its claim."""
    timestamp: Optional[int] = None
    """Seconds since 1970."""
    content_type: Optional[Text] = None
    type: Optional[Text] = None
    app_id: Optional[Text] = None
    user_id: Optional[Text] = None
    headers: bytes = b""
    """A table of headers as it was on the wire; lossless, and nobody needs more of it yet."""


@dataclass(frozen=True)
class Taken:
    """A message that was taken, and is neither acked nor given back."""

    queue: str
    body: bytes
    properties: Properties
    redelivered: bool
    """Whether it was taken before and not acked. It counts only for messages that have no id of their own."""
    tag: Any
    """What its source knows it by."""
    source: str = ""
    """The word in `[[queues]] source`; empty for the broker of the site file."""
    needs_settling: bool = False
    """Whether somebody else may have it too. Then nothing of it is read, submitted or answered before `settle` has said whose
    it is."""
    returns: int = 0
    """How often it went back before, where the queue counts it; as little to be trusted as its properties."""


class Settled(enum.Enum):
    """Whose a claimed message turned out to be. Only what is ours is run and answered."""

    OURS = "ours"
    THEIRS = "theirs"
    """Somebody else has it, and answers it."""
    GONE = "gone"
    """Its sender has taken it back, and waits for nothing."""


class QueueFault(Transient):
    """The source works, but this queue can't be read: deleted, not ours to read, made with settings that are refused. The
    others are not affected."""

    def __init__(self, queue: str, words: str, fix: str = "") -> None:
        super().__init__(f"the queue {queue} {words}", fix=fix)
        self.queue = queue


class Source(Protocol):
    """One kind of place that jobs come from, with all its queues. Every method raises Transient when it is away; those that
    read a queue raise QueueFault where only that queue is at fault."""

    def waiting(self, queue: Queue, make: bool = True) -> int:
        """How many messages wait there. Makes the queue, as the site file says, if it does not exist; without `make`
        none wait in it."""

    def take(self, queue: str, most: int, wait: float) -> list[Taken]:
        """Up to `most` messages, each to be acked or given back, in the queue's order. Waits at most `wait` seconds for the
        first one, and returns when the queue is empty or `most` are there. Where the connection is lost in the middle, those
        that are here by then: they come again, and are known then."""

    def ack(self, messages: Sequence[Taken]) -> None:
        """They stand on disk: the source may forget these, and no others; until it is closed it brings them no more. Raises
        Transient, too, where the connection that they came over is gone: then they come again."""

    def ensure_acked(self) -> None:
        """Returns when the source has surely taken note of every ack before."""

    def settle(self, claims: Sequence[tuple[JobId, Message]]) -> list[Settled]:
        """Whose each of these is, in the same order. Only asked of what needs settling, and asked again after a crash: then
        it says the same. Ours, where nobody else can have what was taken."""
        return [Settled.OURS] * len(claims)

    def give_back(self, taken: Taken) -> None:
        """The message returns to its place in the queue."""

    def listen(self, queues: Sequence[str], wait: float) -> bool:
        """Whether a message is there; waits at most `wait` seconds for one. Of each queue one message may be held from
        then on: the next take brings it first, and `stop_listening` gives it back. While one is held, nothing that may be
        refused is asked, because it would go back."""

    def stop_listening(self) -> None:
        """No message is brought before it is asked for, and none is held that was not taken."""

    def close(self) -> None: ...


def as_bytes(text: Optional[Text]) -> Optional[bytes]:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def digest(taken: Taken) -> str:
    """The name of the job in a message: equal for a redelivery, safe as a file name (32 hexadecimal digits)."""
    p = taken.properties
    parts = (taken.queue, p.message_id, p.correlation_id, p.reply_to, taken.body)
    total = hashlib.sha256()
    for part in map(as_bytes, parts):
        # The length goes first, so that no two different messages read alike.
        total.update(b"-" if part is None else b"%d:" % len(part))
        total.update(part or b"")
    return total.hexdigest()[:32]
