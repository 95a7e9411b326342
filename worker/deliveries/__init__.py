"""How results and answers reach their requester: what any way must offer, and how it says no."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from ..job.outcome import Reply


class Collected(Protocol):
    """One output of a job that succeeded. `size` in bytes, `type` a media type."""

    name: str
    size: int

    @property
    def file(self) -> str: ...

    @property
    def type(self) -> str: ...

    def pieces(self, most: int) -> Iterator[bytes]:
        """What is in it, `most` bytes at a time. Raises StepFailed and OSError."""


class Store(Protocol):
    """The first half of the way home, on the compute node: before anything is answered."""

    def store(self, outputs: Sequence[Collected], body: BinaryIO) -> None:
        """Writes the body of the answer, and reads each output once, to its end. Raises StepFailed where it can't go this
        way, and OSError."""


class Delivery(Protocol):
    """One reply at a time, confirmed."""

    def send(self, reply: Reply) -> None:
        """Returns when the other end has confirmed. It may be called again with an equal reply. Raises Unroutable, TooLarge,
        and Transient where the other end is away."""

    def close(self) -> None: ...


class Answers(Protocol):
    """Many answers, confirmed in any order: what a pilot sends through. No method waits for the other end."""

    def send(self, replies: list[Reply]) -> None: ...

    def confirmations(self) -> list[tuple[str, str]]:
        """(message_id, "") for each answer that was confirmed since the last call; else why it is not taken."""

    def away_for(self) -> float:
        """Seconds since the other end was reached, or 0."""

    def close(self) -> None: ...


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(name.startswith(p[:-1]) if p.endswith("*") else name == p for p in patterns)
