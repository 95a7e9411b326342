"""Every sample format of a scan: interpreted as it is meant, or refused in words that are true of it. The files are written
here byte by byte, so that no library's reading of a format is tested against its own writing."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import pytest

from tests.workloads.test_binarize import FOLDER, Work, assert_refused, environment, work

__all__ = ["environment", "work"]  # fixtures
pytestmark = [pytest.mark.workload, pytest.mark.unhurried]

WIDTH, HEIGHT = 24, 16
NEITHER = "The page's pixels are neither 8-bit nor 16-bit values. Save it as greyscale or RGB."


def black(x: int, y: int) -> bool:
    """An L of ink in the upper left corner: no turn of it is like another, and it is not its own negative."""
    return 4 <= x < 8 and 3 <= y < 12 or 4 <= x < 16 and 3 <= y < 6


def packed(values: Sequence[int], bits: int, order: str) -> bytes:
    """A row of samples."""
    if bits in (16, 32):
        return struct.pack(f"{order}{len(values)}{'H' if bits == 16 else 'I'}", *values)
    text = "".join(f"{value:0{bits}b}" for value in values)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))


def tiff(
    samples: Any, bits: Sequence[int], order: str = "<", planar: int = 1, deflate: bool = False, **tags: Any
) -> bytes:
    """`samples(x, y)`: the samples of a pixel. Further tags by their number, as t262=0: a number or several."""
    planes = range(len(bits)) if planar == 2 else [None]
    strips = []
    for plane in planes:
        rows = b""
        for y in range(HEIGHT):
            pixels = [samples(x, y) for x in range(WIDTH)]
            row = (
                [pixel[plane] for pixel in pixels]
                if plane is not None
                else [each for pixel in pixels for each in pixel]
            )
            rows += packed(row, bits[0], order)
        strips.append(zlib.compress(rows) if deflate else rows)
    given = {256: WIDTH, 257: HEIGHT, 258: list(bits), 259: 8 if deflate else 1, 277: len(bits), 278: HEIGHT, 284: planar,
             **{int(name[1:]): value for name, value in tags.items()}}  # fmt: skip
    offsets, at = [], 8
    for strip in strips:
        offsets.append(at)
        at += len(strip) + len(strip) % 2
    given.update({273: offsets, 279: [len(strip) for strip in strips]})
    data = b"".join(strip + b"\0" * (len(strip) % 2) for strip in strips)
    return struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, at) + data + directory(given, at, order)


def directory(tags: dict[int, Any], at: int, order: str) -> bytes:
    entries, more = b"", b""
    for tag, value in sorted(tags.items()):
        values = value if isinstance(value, list) else [value]
        long = tag in (273, 279)
        content = struct.pack(f"{order}{len(values)}{'I' if long else 'H'}", *values)
        if len(content) > 4:
            content, more = (
                struct.pack(f"{order}I", at + 2 + 12 * len(tags) + 4 + len(more)),
                more + content + b"\0" * 4,
            )
        entries += struct.pack(f"{order}HHI", tag, 4 if long else 3, len(values)) + content.ljust(4, b"\0")
    return struct.pack(f"{order}H", len(tags)) + entries + b"\0" * 4 + more


def png(samples: Any, bits: int, kind: int, *more: tuple[bytes, bytes]) -> bytes:
    """`kind`: the colour type. `more`: chunks between the header and the pixels."""
    rows = b"".join(
        b"\0" + packed([each for x in range(WIDTH) for each in samples(x, y)], bits, ">") for y in range(HEIGHT)
    )
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def grey(ink: int, paper: int, *others: int) -> Any:
    return lambda x, y: (ink if black(x, y) else paper, *others)


def colour(ink: Sequence[int], paper: Sequence[int]) -> Any:
    return lambda x, y: tuple(ink if black(x, y) else paper)


PALETTE = [*([0xFFFF] + [0] * 255) * 3]  # the first colour is white, all others are black
INTERPRETED = {
    "1 bit": tiff(grey(0, 1), [1], t262=1), "1 bit, white is zero": tiff(grey(1, 0), [1], t262=0),
    "2 bits": tiff(grey(0, 3), [2], t262=1), "2 bits, white is zero": tiff(grey(3, 0), [2], t262=0),
    "4 bits": tiff(grey(1, 14), [4], t262=1), "4 bits, white is zero": tiff(grey(14, 1), [4], t262=0),
    "8 bits": tiff(grey(20, 230), [8], t262=1), "8 bits, white is zero": tiff(grey(230, 20), [8], t262=0),
    "8 bits, without a photometric tag": tiff(grey(230, 20), [8]),
    "12 bits": tiff(grey(200, 3900), [12], t262=1),
    "16 bits": tiff(grey(3000, 60000), [16], t262=1), "16 bits, white is zero": tiff(grey(60000, 3000), [16], t262=0),
    "16 bits, big-endian": tiff(grey(3000, 60000), [16], ">", t262=1),
    "16 bits, big-endian, white is zero": tiff(grey(60000, 3000), [16], ">", t262=0),
    "16 bits, deflate": tiff(grey(3000, 60000), [16], deflate=True, t262=1),
    "16 bits, deflate, white is zero": tiff(grey(60000, 3000), [16], deflate=True, t262=0),
    "16 bits, deflate, big-endian": tiff(grey(3000, 60000), [16], ">", deflate=True, t262=1),
    "16 bits, deflate, big-endian, white is zero": tiff(grey(60000, 3000), [16], ">", deflate=True, t262=0),
    "RGB": tiff(colour((20, 30, 40), (230, 220, 210)), [8] * 3, t262=2),
    "RGB, planes": tiff(colour((20, 30, 40), (230, 220, 210)), [8] * 3, planar=2, t262=2),
    "RGB, planes, deflate": tiff(colour((20, 30, 40), (230, 220, 210)), [8] * 3, planar=2, deflate=True, t262=2),
    "RGB, 16 bits": tiff(colour((3000,) * 3, (60000,) * 3), [16] * 3, t262=2),
    "RGB, 16 bits, big-endian": tiff(colour((3000,) * 3, (60000,) * 3), [16] * 3, ">", t262=2),
    "RGB, 16 bits, deflate": tiff(colour((3000,) * 3, (60000,) * 3), [16] * 3, deflate=True, t262=2),
    "RGBA": tiff(colour((20, 30, 40, 255), (0, 0, 0, 0)), [8] * 4, t262=2, t338=2),
    "RGBA, 16 bits": tiff(colour((3000, 3000, 3000, 65535), (0, 0, 0, 0)), [16] * 4, t262=2, t338=2),
    "RGBA, premultiplied": tiff(colour((20, 30, 40, 255), (0, 0, 0, 0)), [8] * 4, t262=2, t338=1),
    "RGB and something": tiff(colour((20, 30, 40, 0), (230, 220, 210, 0)), [8] * 4, t262=2, t338=0),
    "grey and alpha": tiff(colour((20, 255), (0, 0)), [8] * 2, t262=1, t338=2),
    "grey and alpha, premultiplied": tiff(colour((20, 255), (0, 0)), [8] * 2, t262=1, t338=1),
    "palette": tiff(grey(1, 0), [8], t262=3, t320=PALETTE),
    "palette of 4 bits": tiff(grey(1, 0), [4], t262=3, t320=[0xFFFF, *[0] * 15] * 3),
    "CMYK": tiff(colour((0, 0, 0, 240), (5, 5, 10, 0)), [8] * 4, t262=5),
    "CMYK, 16 bits": tiff(colour((0, 0, 0, 61000), (900, 900, 900, 0)), [16] * 4, t262=5),
    "CIELAB": tiff(colour((30, 0, 0), (240, 0, 0)), [8] * 3, t262=8),
    "YCbCr, not subsampled": tiff(colour((20, 128, 128), (230, 128, 128)), [8] * 3, t262=6, t530=[1, 1]),
    "PNG of 1 bit": png(grey(0, 1), 1, 0), "PNG of 2 bits": png(grey(0, 3), 2, 0), "PNG of 4 bits": png(grey(0, 15), 4, 0),
    "PNG of 16 bits": png(grey(3000, 60000), 16, 0), "PNG of 16 bits and alpha": png(colour((3000, 65535), (0, 0)), 16, 4),
    "PNG of 16-bit colours": png(colour((3000,) * 3, (60000,) * 3), 16, 2),
    "PNG of 16-bit colours and alpha": png(colour((9, 9, 9, 65535), (0, 0, 0, 0)), 16, 6),
    "PNG of 16 bits, one of them transparent": png(grey(3000, 2999), 16, 0, (b"tRNS", struct.pack(">H", 2999))),
    "PNG of 8 bits, one of them transparent": png(grey(30, 29), 8, 0, (b"tRNS", struct.pack(">H", 29))),
    "PNG of 4 bits, one of them transparent": png(grey(2, 1), 4, 0, (b"tRNS", struct.pack(">H", 1))),
    "PNG of 2 bits, one of them transparent": png(grey(0, 1), 2, 0, (b"tRNS", struct.pack(">H", 1))),
    "PNG of 8-bit colours, one of them transparent": png(
        colour((9, 9, 9), (8, 8, 8)), 8, 2, (b"tRNS", struct.pack(">HHH", 8, 8, 8))),
    "PNG with a palette, one of it transparent": png(grey(0, 1), 2, 3, (b"PLTE", bytes(6)), (b"tRNS", b"\xff\0")),
    "PNG with a profile of 2 MB": png(grey(20, 230), 8, 0, (b"iCCP", b"large\0\0" + zlib.compress(bytes(2_000_000)))),
    "PNG with a text of 90 MB": png(grey(20, 230), 8, 0, (b"zTXt", b"long\0\0" + zlib.compress(bytes(90_000_000)))),
    "PNG with a profile that is none": png(grey(20, 230), 8, 0, (b"iCCP", b"bad\0\x07")),
}  # fmt: skip


def test_each_format_gives_the_same_page(work: Work) -> None:
    """All in one process, because each start of it takes a second."""
    for number, content in enumerate(INTERPRETED.values()):
        (work.folder / "inputs" / str(number)).write_bytes(content)
    code = f"""
import sys; sys.path.insert(0, {str(FOLDER)!r})
import pixels
for number in range({len(INTERPRETED)}):
    try:
        with open(f"inputs/{{number}}", "rb") as scan:
            page, count = pixels.read(scan)
        print(json.dumps([page.shape, count, ["".join("#" if value < 128 else "." for value in row) for row in page]]))
    except SystemExit as said:
        print(json.dumps(str(said)))
"""
    expected = [[HEIGHT, WIDTH], 1, ["".join("#" if black(x, y) else "." for x in range(WIDTH)) for y in range(HEIGHT)]]

    seen = [json.loads(line) for line in work.python(code).splitlines()]

    assert {name: got for name, got in zip(INTERPRETED, seen) if got != expected} == {}
    assert len(seen) == len(INTERPRETED)


def words(kind: str) -> str:
    return (
        f"The page is a TIFF that can't be read here ({kind}): it is damaged, or of a kind that is not supported. "
        "Save it as greyscale or RGB."
    )


def numbers(kind: str) -> str:
    return f"The page's pixels are {kind}. Save it as greyscale or RGB."


def claims(width: int, height: int, there: int) -> str:
    return f"The page claims {width} x {height} pixels, which a file of {there} bytes can't hold: it is damaged, or cut off."


def claiming(content: bytes) -> bytes:
    """A PNG whose header says 12206 x 12206 pixels: 149 million."""
    header = struct.pack(">II", 12206, 12206) + content[24:29]
    return content[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + content[33:]


def cut(content: bytes, size: int) -> bytes:
    return content[:size]


WIDE: Any = {"t256": 12000, "t257": 12000, "t278": 12000}
LITTLE = tiff(grey(20, 230), [8], t262=1, **WIDE)
MANY = tiff(grey(20, 230), [8] * 3, t262=2, t277=3, **WIDE)
DEFLATED = tiff(grey(20, 230), [8], deflate=True, t262=1, **WIDE)
FAX = tiff(grey(0, 1), [1], t262=1, t259=4, **WIDE)
REFUSED = {
    "signed, 8 bits": (tiff(grey(20, 120), [8], t262=1, t339=2), numbers("signed numbers")),
    "signed, 16 bits": (tiff(grey(3000, 30000), [16], t262=1, t339=2), numbers("signed numbers")),
    "signed RGB": (tiff(colour((2, 3, 4), (99, 98, 97)), [8] * 3, t262=2, t339=[2, 2, 2]), numbers("signed numbers")),
    "32 bits": (tiff(grey(3000, 60000), [32], t262=1), NEITHER), "32 bits, signed": (tiff(grey(3, 6), [32], t339=2), NEITHER),
    "floating point": (tiff(grey(0, 0x3F800000), [32], t262=1, t339=3), NEITHER),
    "floating point of 16 bits": (tiff(grey(0, 0x3C00), [16], t262=1, t339=3), NEITHER),
    "undefined": (tiff(grey(20, 230), [8], t262=1, t339=4), numbers("numbers of an undefined kind")),
    "unheard of": (tiff(grey(20, 230), [8], t262=1, t339=9), numbers("numbers of an unknown kind")),
    "12 bits, big-endian": (tiff(grey(200, 3900), [12], ">", t262=1), words("grey, 12 bits")),
    "5, 6 and 5 bits": (tiff(colour((1, 2, 3), (4, 5, 6)), [8] * 3, t262=2, t258=[5, 6, 5]), words("RGB, 5 + 6 + 5 bits")),
    "a mask": (tiff(grey(0, 1), [1], t262=4), words("mask, 1 bits")),
    "a camera's raw": (tiff(grey(20, 230), [8], t262=32803), words("unknown, 8 bits")),
    "inks that are none of CMYK": (
        tiff(colour((0,) * 4, (9,) * 4), [8] * 4, t262=5, t332=2), words("CMYK, 8 + 8 + 8 + 8 bits")),
    "YCbCr, subsampled": (tiff(colour((20, 128, 128), (230, 128, 128)), [8] * 3, t262=6), words("YCbCr, 8 + 8 + 8 bits")),
    "colours of 16 bits, one transparent": (
        png(colour((9, 9, 9), (8, 8, 8)), 16, 2, (b"tRNS", struct.pack(">HHH", 8, 8, 8))),
        "The page is a PNG with 16-bit colours, one of which is transparent. Save it without transparency.",
    ),
    "a PNG of 80 bytes": (cut(claiming(png(grey(0, 255), 8, 0)), 80), claims(12206, 12206, 80)),
    "a PNG of 100 bytes in colour and 16 bits": (
        cut(claiming(png(colour((0,) * 4, (9,) * 4), 16, 6)), 100), claims(12206, 12206, 100)),
    "a TIFF that claims more than it has": (LITTLE, claims(12000, 12000, len(LITTLE))),
    "a deflated TIFF that claims more": (DEFLATED, claims(12000, 12000, len(DEFLATED))),
    "a fax that claims more": (FAX, claims(12000, 12000, len(FAX))),
    "a TIFF in colour that claims more": (MANY, claims(12000, 12000, len(MANY))),
    "half a TIFF's directory": (LITTLE[:-60], words("grey, 8 bits")),
}  # fmt: skip


def test_what_is_not_interpreted_is_refused_in_true_words_and_takes_no_memory(work: Work) -> None:
    for number, (content, _) in enumerate(REFUSED.values()):
        (work.folder / "inputs" / str(number)).write_bytes(content)
    code = f"""
import resource, sys; sys.path.insert(0, {str(FOLDER)!r})
import pixels
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for number in range({len(REFUSED)}):
    try:
        with open(f"inputs/{{number}}", "rb") as scan:
            pixels.read(scan)
        print(json.dumps("was read"))
    except SystemExit as said:
        print(json.dumps(str(said)))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""

    *seen, megabytes = (json.loads(line) for line in work.python(code).splitlines())

    assert {name: said for (name, (_, wanted)), said in zip(REFUSED.items(), seen) if said != wanted} == {}
    assert len(seen) == len(REFUSED) and megabytes < 50


def test_an_ink_whose_sense_a_jpeg_does_not_say_is_refused_and_one_that_adobe_wrote_is_read(work: Work) -> None:
    # Given a CMYK JPEG as Adobe writes it, with its inks turned, and the same without the word that says so
    work.python(
        "scan.convert('CMYK').save(page, 'JPEG', quality=95); raw = page.read_bytes(); at = raw.index(b'\\xff\\xee'); "
        "Path('inputs/without').write_bytes(raw[:at] + raw[at + 2 + int.from_bytes(raw[at + 2 : at + 4], 'big') :])"
    )

    # When, then
    assert work.binarize().returncode == 0
    assert json.loads(work.outputs()[1])["black_share"] == pytest.approx(0.1277, abs=0.01)
    for made in (work.folder / "outputs").iterdir():
        made.unlink()
    (work.folder / "inputs" / "without").replace(work.folder / "inputs" / "page")
    sentence = "The page is a CMYK JPEG that does not say what its inks mean. Save it as greyscale or RGB."
    assert_refused(work.binarize(), work, sentence)


def test_a_jpeg_that_claims_more_than_it_has_is_refused(work: Work) -> None:
    work.python(
        "scan.save(page, 'JPEG'); raw = page.read_bytes(); at = raw.index(b'\\xff\\xc0'); "
        "page.write_bytes(raw[: at + 5] + (12000).to_bytes(2, 'big') * 2 + raw[at + 9 :])"
    )

    size = (work.folder / "inputs" / "page").stat().st_size
    assert_refused(work.binarize(), work, claims(12000, 12000, size))
