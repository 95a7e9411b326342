"""An output in parts, each to a presigned address of S3. Facts: Amazon's S3 API, UploadPart (5 MiB to 5 GiB each but the last,
10,000 at most), CompleteMultipartUpload (200 may come with an error in its body).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from xml.sax.saxutils import escape

from ..errors import Transient
from ..job.facts import Sent
from .put import arrived
from .receiver import AskAgain, InMemory, Receivers, Refused
from .upload import Parcel, address

_MOST_PARTS = 10_000


class S3:
    def send(self, receivers: Receivers, parcel: Parcel, given: Mapping[str, Any], sent: Sent) -> Sent:
        parts, part_bytes, complete = _read(given["s3"], parcel.output.size)
        for number, url in enumerate(parts, 1):
            if str(number) not in sent.parts:
                etag = _part(receivers, parcel, url, number, part_bytes)
                etags = {**sent.parts, str(number): etag}
                sent = replace(sent, parts=etags, taken=max(sent.taken, len(etags) * part_bytes))
                parcel.note(sent)
        _complete(receivers, parcel, complete, len(parts), sent)
        return arrived(receivers, parcel, sent, proven=False)


def _read(given: object, size: int) -> tuple[list[str], int, str]:
    wrong = Refused("the answer to an ask for its address can't be used")
    if not isinstance(given, dict):
        raise wrong
    parts, part_bytes = given.get("parts"), given.get("part_bytes")
    if not isinstance(parts, list) or type(part_bytes) is not int or part_bytes < 1:
        raise wrong
    if len(parts) != max(1, -(-size // part_bytes)) or len(parts) > _MOST_PARTS:
        raise wrong
    return [address(part) for part in parts], part_bytes, address(given.get("complete"))


def _part(receivers: Receivers, parcel: Parcel, url: str, number: int, part_bytes: int) -> str:
    start = (number - 1) * part_bytes
    body = parcel.part(start, min(part_bytes, parcel.output.size - start))
    md5 = body.md5()
    said = receivers.exchange("PUT", url, {"Content-MD5": base64.b64encode(md5).decode()}, body)
    if not said.ok:
        said.raise_for()
    etag = said.headers.get("ETag", "")
    if not etag or not etag.isprintable():
        raise Refused("its receiver gave no ETag for a part")
    return etag


def _complete(receivers: Receivers, parcel: Parcel, url: str, count: int, sent: Sent) -> None:
    numbered = ((number, escape(sent.parts[str(number)])) for number in range(1, count + 1))
    rows = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in numbered)
    body = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>"
    said = receivers.exchange("POST", url, {"Content-Type": "application/xml"}, InMemory(body.encode()))
    if said.ok and b"<Error>" not in said.body:
        return
    # It may have been completed before somebody was killed who would have noted it.
    if sent.get and receivers.length_of(sent.get) == parcel.output.size:
        return
    if b"InvalidPart" in said.body or b"NoSuchUpload" in said.body:
        raise AskAgain("a part is not there", forgotten=True)
    if said.ok:
        raise Transient("its receiver could not put the parts together")
    said.raise_for()
