"""How often a message has gone back to its queue: quorum queues count it, and drop the message beyond their limit. Pure.

Facts: RabbitMQ's guide on quorum queues, "Poison message handling": the count is in the header x-delivery-count, and without
a limit of its own a queue of RabbitMQ 4 drops a message at its 21st return. What counts: until 4.2 every return; from 4.3 on
a lost connection and a basic.reject, but no basic.nack (rabbitmq-server, pull requests 13885 and 15387).
"""

from __future__ import annotations

import re
import struct

MANY = 15
"""Returns after which people should know: a few more, and the broker drops the message unanswered."""
_COUNT = re.compile(rb"\x10x-delivery-count([bBsuIilL])(.{1,8})", re.DOTALL)
_NUMBERS = {b"b": ">b", b"B": ">B", b"s": ">h", b"u": ">H", b"I": ">i", b"i": ">I", b"l": ">q", b"L": ">q"}
"""How RabbitMQ and pika write integers in a table: by the letter before them."""


def returns_of(headers: bytes) -> int:
    """From the table as it was on the wire, which need not be decodable. A sender can write such a header too, and a classic
    queue leaves it as it is: good for a word in the log, and for no decision."""
    found = _COUNT.search(headers)
    if not found:
        return 0
    how = _NUMBERS[found.group(1)]
    if len(found.group(2)) < struct.calcsize(how):
        return 0
    return max(0, int(struct.unpack_from(how, found.group(2))[0]))
