"""What asks for one job and waits for its answer, as a web service does: for `check.py test`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Protocol


@dataclass(frozen=True)
class Answered:
    """`job`: the id in its header, empty where there is none."""

    body: bytes
    job: str


@dataclass(frozen=True)
class Waiting:
    """What a queue shows: messages that nobody has got yet, and how many listen; None where that can't be seen."""

    messages: int
    consumers: Optional[int] = None


class Requester(Protocol):
    """Its answers come to an address of its own, which is gone when it is closed: an answer that comes later is nobody's, and
    none goes to a queue that others read. Every method but `answer` raises Transient where the broker is away."""

    @property
    def reply_to(self) -> str:
        """An address like the one that the message has when it is taken."""

    @property
    def pattern(self) -> str:
        """What allows it in `replies.patterns`."""

    def look(self, queue: str) -> Optional[Waiting]:
        """None where there is no such queue, or we may not look at it."""

    def ask(self, queue: str, body: bytes, correlation_id: str, seconds: float) -> None:
        """Once. Returns when the broker has confirmed it. `seconds`: what nobody has taken then is gone, and a job that has
        not started so long after it was taken is answered `expired`. Raises Unroutable too."""

    def answer(self) -> Optional[Answered]:
        """The answer, if it has come. Raises Transient where the connection was lost, and the answer with it."""

    def close(self) -> None: ...
