"""An output by one PUT: whole, and from the start each time. Facts: RFC 9110, 9.3.4; Amazon's S3 API, PutObject (ETag,
Content-MD5; at most 5 GiB).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import Transient
from ..job.facts import Sent
from .receiver import Receivers, Refused
from .upload import Parcel, address


class Put:
    def send(self, receivers: Receivers, parcel: Parcel, given: Mapping[str, Any], sent: Sent) -> Sent:
        body = parcel.part(0, parcel.output.size)
        md5 = body.md5()
        wanted = given.get("headers", {})
        if not isinstance(wanted, dict) or not all(_fits(name, value) for name, value in wanted.items()):
            raise Refused("the answer to an ask for its address can't be used")
        headers = {"Content-MD5": base64.b64encode(md5).decode(), "Content-Type": parcel.output.type, **wanted}
        said = receivers.exchange("PUT", address(given["put"]), headers, body)
        if not said.ok:
            said.raise_for()
        return arrived(receivers, parcel, sent, said.headers.get("ETag", "").strip('"').lower() == md5.hex())


def _fits(name: object, value: object) -> bool:
    """What may stand in a head."""
    return all(isinstance(each, str) and each.isascii() and each.isprintable() for each in (name, value))


def arrived(receivers: Receivers, parcel: Parcel, sent: Sent, proven: bool) -> Sent:
    """A receiver may take half a body for whole, so its length is asked for, unless its answer has `proven` all of it. Raises
    Transient, and Refused."""
    there = None if proven or not sent.get else receivers.length_of(sent.get)
    if there is not None and there != parcel.output.size:
        raise Transient(f"its receiver has {there} of {parcel.output.size} bytes")
    sent = replace(sent, arrived=True, verified=proven or there is not None)
    parcel.note(sent)
    return sent
