"""An output by tus 1.0 (https://tus.io/protocols/resumable-upload): created, then sent from where its receiver says it is.

Seen: a wrong offset is answered 409, 403 or 460, after which the offset is asked for; one server answers HEAD with 400 where
an upload was created without filename and filetype.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urljoin

from ..errors import Transient
from ..job.facts import Sent
from .put import arrived
from .receiver import AskAgain, Receivers, Refused
from .upload import Parcel, address

_VERSION = {"Tus-Resumable": "1.0.0"}
_WRONG_OFFSET = (403, 409, 460)
_ROUNDS = 5


class Tus:
    def send(self, receivers: Receivers, parcel: Parcel, given: Mapping[str, Any], sent: Sent) -> Sent:
        if not sent.place:
            sent = replace(sent, place=_created(receivers, parcel, address(given["tus"])))
            parcel.note(sent)
            offset = 0
        else:
            offset = _offset(receivers, sent.place)
        for _ in range(_ROUNDS):
            if offset > parcel.output.size:
                raise AskAgain("it is another upload", forgotten=True)
            if offset > sent.taken:
                sent = replace(sent, taken=offset)
                parcel.note(sent)
            if offset == parcel.output.size:
                return arrived(receivers, parcel, sent, proven=True)
            offset = _sent(receivers, parcel, sent.place, offset)
        raise Transient("its receiver takes only a little of it each time")


def _created(receivers: Receivers, parcel: Parcel, at: str) -> str:
    words = {"filename": parcel.output.file, "filetype": parcel.output.type}
    metadata = ",".join(f"{name} {base64.b64encode(word.encode()).decode()}" for name, word in words.items())
    length = str(parcel.output.size)
    said = receivers.exchange("POST", at, {**_VERSION, "Upload-Length": length, "Upload-Metadata": metadata})
    if said.status != 201:
        said.raise_for()
    place = urljoin(at, said.headers.get("Location", ""))
    if place == at:
        raise Refused("its receiver did not say where the upload is")
    return address(place)


def _offset(receivers: Receivers, place: str) -> int:
    said = receivers.exchange("HEAD", place, _VERSION)
    if said.status not in (200, 204):
        said.raise_for()
    return _number(said.headers.get("Upload-Offset", ""))


def _sent(receivers: Receivers, parcel: Parcel, place: str, offset: int) -> int:
    """Sends the rest; returns where its receiver is then."""
    headers = {**_VERSION, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
    said = receivers.exchange("PATCH", place, headers, parcel.part(offset, parcel.output.size - offset))
    if said.status in _WRONG_OFFSET:
        return _offset(receivers, place)
    if not said.ok:
        said.raise_for()
    return _number(said.headers.get("Upload-Offset", ""))


def _number(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) < 19):
        raise Transient("its receiver does not say how much it has")
    return int(word)
