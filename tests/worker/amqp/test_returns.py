"""How often a message went back, read from what came over the wire."""

from __future__ import annotations

import struct

import pytest
from pika import data

from worker.amqp.returns import MANY, returns_of


def on_the_wire(headers: dict[str, object]) -> bytes:
    pieces: list[bytes] = []
    data.encode_table(pieces, headers)
    return b"".join(pieces)


def test_the_count_of_a_quorum_queue_is_read() -> None:
    assert returns_of(on_the_wire({"a": "b", "x-delivery-count": 17, "c": {"d": 1}})) == 17
    assert returns_of(on_the_wire({"x-delivery-count": 2**40})) == 2**40 > MANY


@pytest.mark.parametrize("headers", [
    b"", on_the_wire({}), on_the_wire({"x-delivery-counts": 3}), on_the_wire({"x-delivery-count": "3"}),
    on_the_wire({"x-delivery-count": -3}), b"\x10x-delivery-countl\x00", b"\x10x-delivery-count",
    struct.pack(">I", 9) + b"\xff" * 9,
])  # fmt: skip
def test_whatever_else_a_sender_writes_there_is_no_count(headers: bytes) -> None:
    assert returns_of(headers) == 0


def test_a_header_that_nobody_can_decode_does_not_hide_the_count() -> None:
    """pika gives up over a time that no calendar has."""
    never = b"\x01tT" + struct.pack(">Q", 2**63 - 1)
    table = never + b"\x10x-delivery-countl" + struct.pack(">q", 16)

    assert returns_of(struct.pack(">I", len(table)) + table) == 16
