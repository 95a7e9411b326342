"""Where the jobs of this site's queues come from, and where answers go: each kind is opened once, when it is first needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable

from .build import kind_of
from .settings import Queue, Site

if TYPE_CHECKING:
    from .build import End
    from .deliveries import Delivery
    from .sources import Source


class Ends:
    """`open_end`: makes one of this kind."""

    def __init__(self, site: Site, open_end: Callable[[str], End]) -> None:
        self._site = site
        self._open_end = open_end
        self._opened: dict[str, End] = {}
        self._deliveries: dict[str, Delivery] = {}

    def source(self, queue: Queue) -> Source:
        return self._end(kind_of(self._site, queue.source)).source

    def delivery(self, source: str) -> Delivery:
        """`source`: the message's own, as it was noted at its claim."""
        kind = kind_of(self._site, source)
        if kind not in self._deliveries:
            self._deliveries[kind] = self._end(kind).open_delivery()
        return self._deliveries[kind]

    def _end(self, kind: str) -> End:
        if kind not in self._opened:
            self._opened[kind] = self._open_end(kind)
        return self._opened[kind]

    def listen(self, queues: Sequence[Queue], wait: float) -> bool:
        """Whether a message is there in any of them; waits at most `wait` seconds. Raises QueueFault and Transient. To listen
        to no queue keeps connections alive."""
        names: dict[str, list[str]] = {kind: [] for kind in self._opened}
        for queue in queues or self._site.queues[:1]:
            names.setdefault(kind_of(self._site, queue.source), []).extend([queue.name] if queues else [])
        came = False
        for number, (kind, mine) in enumerate(names.items(), 1):
            # Only the last one may wait, and only where none has a message already.
            came = self._end(kind).source.listen(mine, wait if number == len(names) and not came else 0) or came
        return came

    def stop_listening(self) -> None:
        for end in self._opened.values():
            end.source.stop_listening()

    def close(self) -> None:
        for end in self._opened.values():
            end.source.close()
        for delivery in self._deliveries.values():
            delivery.close()
