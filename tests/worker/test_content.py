"""What an answer brings: whole or not, packed or not, an address, a page."""

from __future__ import annotations

import gzip
import os
import zlib
from functools import partial
from typing import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memory import most_memory
from worker.content import NotWhole, UnknownCoding, coding_of, is_page, redirected, unpacked

gzipped = partial(gzip.compress, mtime=0)
"""Without the time of day, which would be in the names of tests, and those of one run have to be alike."""

PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzipped, "x-gzip": gzipped, "deflate": zlib.compress}
HERE = "https://api.example.org/uploads/page.png"
PAGE = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"


def all_of(data: bytes, coding: str = "gzip", piece: int = 1000) -> bytes:
    return b"".join(unpacked([data[at : at + piece] for at in range(0, len(data), piece)], coding))


@pytest.mark.parametrize(("values", "coding"), [
    ([], ""), ([""], ""), (["identity"], ""), (["Identity, "], ""), (["gzip"], "gzip"), (["GZip"], "gzip"),
    ([" x-gzip "], "x-gzip"), (["deflate"], "deflate"), (["identity", "gzip"], "gzip"), (["gzip,identity"], "gzip"),
])  # fmt: skip
def test_a_coding_is_known_however_it_is_written(values: list[str], coding: str) -> None:
    assert coding_of(values) == coding


@pytest.mark.parametrize(("values", "name"), [
    (["br"], "br"), (["zstd"], "zstd"), (["compress"], "compress"), (["x-compress"], "x-compress"),
    (["gzip, br"], "gzip, br"),
    (["gzip", "gzip"], "gzip, gzip"), (["deflate, gzip"], "deflate, gzip"), (['"gzip"'], "?gzip?"),
    (["a\u00e9" * 99], "a?" * 20),
])  # fmt: skip
def test_a_coding_that_can_t_be_undone_and_proven_is_named(values: list[str], name: str) -> None:
    with pytest.raises(UnknownCoding) as unknown:
        coding_of(values)
    assert str(unknown.value) == name


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=4), st.integers(1, 5000), st.integers(0, 40))
def test_all_members_are_unpacked_however_they_are_cut_into_pieces(
    members: list[bytes], piece: int, zeros: int
) -> None:
    packed = b"".join(gzipped(member) for member in members) + bytes(zeros)

    assert all_of(packed, "gzip", piece) == b"".join(members)


@given(st.binary(max_size=3000), st.sampled_from(sorted(PACK)), st.data())
def test_what_is_cut_off_anywhere_is_not_whole(content: bytes, coding: str, data: st.DataObject) -> None:
    packed = PACK[coding](content)
    cut = data.draw(st.integers(0, len(packed) - 1))

    with pytest.raises(NotWhole):
        all_of(packed[:cut], coding)


@given(st.binary(max_size=3000), st.sampled_from(sorted(PACK)), st.data())
def test_what_was_damaged_is_never_taken_for_whole(content: bytes, coding: str, data: st.DataObject) -> None:
    packed = bytearray(PACK[coding](content))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    try:
        assert all_of(bytes(packed), coding) == content  # a flag or a date in gzip's head
    except NotWhole:
        pass


@pytest.mark.parametrize(("packed", "coding"), [
    (b"", "gzip"), (gzipped(b"a") + b"x", "gzip"), (gzipped(b"a") + b"\0\0xyz", "gzip"), (b"plain text", "gzip"),
    (gzipped(b"a") + gzipped(b"b")[:-1], "gzip"), (zlib.compress(b"a") + b"x", "deflate"),
    (zlib.compress(b"a") * 2, "deflate"), (zlib.compress(b"a")[2:-4], "deflate"), (zlib.compress(b"a"), "gzip"),
])  # fmt: skip
def test_what_does_not_end_as_it_should_is_not_whole(packed: bytes, coding: str) -> None:
    with pytest.raises(NotWhole):
        all_of(packed, coding)


BOMB = gzipped(bytes(64 * 2**20))


def test_a_bomb_comes_in_small_pieces() -> None:
    sizes = [len(piece) for piece in unpacked([BOMB], "gzip")]

    assert sum(sizes) == 64 * 2**20 and max(sizes) <= 2**20
    assert most_memory(unpack_the_bomb) < 16 * 2**20


def unpack_the_bomb() -> None:
    for _ in unpacked([BOMB], "gzip"):
        pass


def test_random_bytes_come_back_as_they_were() -> None:
    content = os.urandom(3 * 2**20)

    assert all_of(gzipped(content, 1), "gzip", 2**20) == content


@pytest.mark.parametrize(("location", "leads_to"), [
    ("/b", "https://api.example.org/b"), ("b.png", "https://api.example.org/uploads/b.png"),
    ("../b?x=1#top", "https://api.example.org/b?x=1"), ("//other.example.org/b", "https://other.example.org/b"),
    ("http://api.example.org/b", "http://api.example.org/b"), ("", HERE), ("#top", HERE), (" /b ", "https://api.example.org/b"),
    ("/a b", "https://api.example.org/a%20b"), ("/%C3%A9%2F", "https://api.example.org/%C3%A9%2F"),
    ("/é".encode().decode("latin-1"), "https://api.example.org/%C3%A9"), ("/\xe9", "https://api.example.org/%E9"),
    ("/\\evil.example.org", "https://api.example.org/%5Cevil.example.org"), ("http://[::1", ""), ("/\u0101", ""),
])  # fmt: skip
def test_a_redirect_leads_where_its_sender_means(location: str, leads_to: str) -> None:
    assert redirected(HERE, [location]) == leads_to


def test_a_redirect_to_two_places_leads_nowhere() -> None:
    assert redirected(HERE, ["/a", "/b"]) == "" and redirected(HERE, ["/a", "/a"]) == "https://api.example.org/a"


@pytest.mark.parametrize(("kind", "beginning", "asked", "was_redirected", "page"), [
    ("text/html; charset=utf-8", PAGE, "/a.png", False, True), ("Text/HTML", PAGE, "/a.PNG", False, True),
    ("text/html", PAGE, "/a", True, True), ("application/xhtml+xml", b"\xef\xbb\xbf<?xml?><html/>", "/a", True, True),
    ("text/html", b"<form><input name=p type='password'>", "/a", False, True),
    ("text/html", PAGE, "/a", False, False), ("text/html", PAGE, "/a.html", True, False),
    ("image/png", PAGE, "/a.png", True, False), ("text/html", b"\x89PNG\r\n", "/a.png", True, False),
    ("", PAGE, "/a.png", True, False), ("text/html", b"", "/a.png", True, False),
])  # fmt: skip
def test_a_page_is_one_where_something_else_was_asked_for(
    kind: str, beginning: bytes, asked: str, was_redirected: bool, page: bool
) -> None:
    assert is_page(kind, beginning, f"https://api.example.org{asked}", was_redirected) == page
