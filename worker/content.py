"""What an answer brings: where a redirect leads, how its body is packed and whether it came whole, whether it is a web page
that nobody asked for. Pure.

A coding that was not asked for comes all the same, from servers that keep their files packed: what can be proven whole
(gzip and zlib end with a checksum) is unpacked, everything else is refused (RFC 9110, 8.4).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Optional
from urllib.parse import quote, urldefrag, urljoin, urlsplit

_WBITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's manual, inflateInit2: the format and its checksum. Raw deflate has none."""
_OUT, _IN = 1 << 20, 1 << 14
_SURELY_BEFORE = 60
"""Seconds."""
_PICTURE = re.compile(r"\.(png|jpe?g|jp2|tiff?|gif|bmp|webp)$", re.IGNORECASE)
_PAGE = re.compile(r"\.x?html?$", re.IGNORECASE)
_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/(?:([0-9]{1,18})|\*)")
_LOGIN_FIELD = re.compile(rb"type\s*=\s*[\"']?password", re.IGNORECASE)


class NotWhole(Exception):
    """What came is cut off, or damaged."""


class UnknownCoding(Exception):
    """Nobody here can undo it. The text is its name, fit for a sentence."""


def coding_of(values: Sequence[str]) -> str:
    """The one coding that the values of Content-Encoding name; "" for none. Raises UnknownCoding."""
    words = [word.strip().lower() for value in values for word in value.split(",")]
    codings = [word for word in words if word not in ("", "identity")]
    if not codings:
        return ""
    if len(codings) > 1 or codings[0] not in _WBITS:
        raise UnknownCoding(re.sub(r"[^a-z0-9, -]", "?", ", ".join(codings))[:40])
    return codings[0]


def unpacked(pieces: Iterable[bytes], coding: str) -> Iterator[bytes]:
    """The content, at most 1 MB at a time, however well it was packed. Raises NotWhole, after the last that is sound.

    gzip may have several members, one after the other, and zeros at its end (RFC 1952, 2.2; gzip(1)).
    """
    unpacker = zlib.decompressobj(_WBITS[coding])
    for data in (piece[at : at + _IN] for piece in pieces for at in range(0, len(piece), _IN)):
        while data:
            if unpacker.eof:
                data = _after_the_end(data, coding)
                unpacker = zlib.decompressobj(_WBITS[coding]) if data else unpacker
            if data:
                yield from _content(unpacker, data)
                data = unpacker.unused_data
    if not unpacker.eof:
        raise NotWhole("what it was packed with does not end")


def _after_the_end(data: bytes, coding: str) -> bytes:
    """Where the next member begins."""
    if coding == "deflate":
        raise NotWhole("something follows its end")
    return data.lstrip(b"\0")


def _content(unpacker: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    while True:
        try:
            content = unpacker.decompress(data, _OUT)
        except zlib.error:
            raise NotWhole("it can't be unpacked") from None
        if content:
            yield content
        data = unpacker.unconsumed_tail
        if unpacker.eof or (not data and len(content) < _OUT):  # a full piece may have more behind it
            return


class Range(NamedTuple):
    """What a Content-Range says (RFC 9110, 14.4). `first`: the first byte that comes, None where none does; `total`: what
    all of it has, None where that is not said."""

    first: Optional[int]
    total: Optional[int]


def range_of(value: str) -> Optional[Range]:
    """None for what says nothing."""
    found = _RANGE.fullmatch(value.strip())
    if found is None:
        return None
    first, _, total = (None if each is None else int(each) for each in found.groups())
    return Range(first, total)


def validator_of(tags: Sequence[str], modified: Optional[float], modified_as_said: str, date: Optional[float]) -> str:
    """What If-Range may name (RFC 9110, 13.1.5), "" for nothing: an entity tag that is not weak, or else a date of change that
    lies so long before the answer (RFC 9110, 8.8.2.2) that it can't have changed twice in that second."""
    if len(tags) == 1 and re.fullmatch(r'"[\x21\x23-\x7e\x80-\xff]*"', tags[0]):
        return tags[0]
    if not tags and modified is not None and date is not None and date - modified >= _SURELY_BEFORE:
        return modified_as_said
    return ""


def redirected(url: str, locations: Sequence[str]) -> str:
    """Where an answer's Location leads to, "" for no address. Bytes that are no ASCII come as Latin-1, whatever they are
    meant to be: they are kept as they are, in the form that an address has for them."""
    if len(set(locations)) != 1:
        return ""
    try:
        escaped = quote(locations[0].strip().encode("latin-1"), safe="!#$%&'()*+,/:;=?@[]~")
        return urldefrag(urljoin(url, escaped)).url
    except ValueError:
        return ""


def is_page(kind: str, beginning: bytes, asked: str, was_redirected: bool) -> bool:
    """Whether this is a web page where something else was asked for, such as a login page. `kind`: its Content-Type; many a
    script sends pictures as text/html, so the content has to look like it too."""
    if kind.partition(";")[0].strip().lower() not in ("text/html", "application/xhtml+xml"):
        return False
    if not beginning.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return False
    path = urlsplit(asked).path
    if _PICTURE.search(path) or _LOGIN_FIELD.search(beginning):
        return True
    return was_redirected and not _PAGE.search(path)
