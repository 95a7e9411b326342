"""Results as the body of the answer itself, which every requester understands: `{"<output>": "<base64>", ...}`."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import BinaryIO, Callable

from ..errors import OutputsTooLarge
from ..job.sentences import outputs_too_large
from . import Collected

_PIECE = 3 * (1 << 18)
"""Bytes at a time; divisible by three, so that the pieces' base64 can be joined."""


class InMessage:
    def __init__(self, most_for: Callable[[int], int]) -> None:
        """`most_for`: of a body of so many bytes, how many a message may have."""
        self._most_for = most_for

    def store(self, outputs: Sequence[Collected], body: BinaryIO) -> None:
        for index, each in enumerate(outputs):
            body.write(b"{" if index == 0 else b", ")
            body.write(json.dumps(each.name).encode() + b': "')
            for piece in each.pieces(_PIECE):
                body.write(base64.b64encode(piece))
            body.write(b'"')
        body.write(b"}" if outputs else b"{}")
        size = body.tell()
        most = self._most_for(size)
        if size > most:
            raise OutputsTooLarge(outputs_too_large(most, size))
