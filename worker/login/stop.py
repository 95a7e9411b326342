"""Whether this process was told to end: then nothing new is begun."""

from __future__ import annotations


class Stop:
    def __init__(self) -> None:
        self.asked = False
