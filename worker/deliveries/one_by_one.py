"""Many answers over what sends one at a time, and has each confirmed before it returns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Optional

from ..errors import TooLarge, Transient, Unroutable
from . import Delivery

if TYPE_CHECKING:
    from ..job.outcome import Reply


class OneByOne:
    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._waiting: list[Reply] = []
        self._away_since: Optional[float] = None

    def send(self, replies: list[Reply]) -> None:
        self._waiting += replies

    def confirmations(self) -> list[tuple[str, str]]:
        confirmed = []
        while self._waiting:
            reply, why = self._waiting[0], ""
            try:
                self._delivery.send(reply)
            except (Unroutable, TooLarge) as error:
                why = str(error)
            except Transient:
                self._away_since = self._away_since or time.monotonic()
                break
            self._away_since = None
            confirmed.append((self._waiting.pop(0).message_id, why))
        return confirmed

    def away_for(self) -> float:
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    def close(self) -> None:
        self._delivery.close()
