"""The grey values of a scan, of whatever sample format: each is interpreted, or refused in words that are true of it.

Pillow reads some formats otherwise than they are meant, and says nothing: 16-bit samples of which white is zero, 12-bit and
signed ones, a transparent grey value, inks of unknown sense. And it makes room for whatever a file claims: here the claim
is held against the bytes that are there, of which each compression can make only so much.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Optional

# "unused-ignore": the same lines are checked where these packages are installed and where they are not.
import numpy as np  # type: ignore[import-not-found,unused-ignore]
from numpy.typing import NDArray  # type: ignore[import-not-found,unused-ignore]
from PIL import Image, ImageFile, ImageOps, PngImagePlugin, TiffImagePlugin  # type: ignore[import-not-found,unused-ignore]

MAX_PIXELS = 150_000_000  # an A2 sheet at 600 dpi has 140 million; the largest page stays below 1700 MB of memory
HARMLESS = 1_000_000  # so many take no memory worth a look
BAND_ROWS = 512
# What Pillow raises on a damaged file: seen on damaged ones, or written in its decoders.
UNREADABLE = (OSError, ValueError, TypeError, SyntaxError, EOFError, LookupError, OverflowError, struct.error)
NO_IMAGE = "The page is not an image that can be read (PNG, JPEG or TIFF)."

# TIFF 6.0, and its supplements: the numbers of the tags, and what their values mean.
BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, INK_SET, FORMAT, SUBSAMPLING = 258, 259, 262, 277, 332, 339, 530
COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIELAB"}
NUMBERS = {2: "signed numbers", 4: "numbers of an undefined kind", 5: "complex numbers", 6: "complex numbers"}
FAXES = (2, 3, 4)  # a row takes at least a bit
MOST_OF_A_BYTE = {1: 1, 5: 2800, 8: 1040, 32773: 64, 32946: 1040}  # bytes of pixels: none, LZW, deflate, PackBits
DEFLATE, OTHERS = 1040, 40_000  # others: zstd, LZMA
JPEG, JPEG_PIXELS = (6, 7), 1024  # a block of 8 x 8 takes at least a bit, and half of them may be left out twice


def read(scan: BinaryIO) -> tuple[NDArray[np.uint8], int]:
    """The first picture, upright, and how many there are. Raises SystemExit with a sentence."""
    Image.MAX_IMAGE_PIXELS = None  # check_size comes before any pixel is decoded too, and has a sentence
    try:
        tags = tiff_tags(scan)
    except UNREADABLE as reason:
        raise SystemExit(NO_IMAGE) from reason
    refuse_samples(tags)
    try:
        page = Image.open(scan, formats=("PNG", "JPEG", "TIFF"))
    except UNREADABLE as reason:
        raise SystemExit(described(tags) if tags else NO_IMAGE) from reason
    check_size(page.width, page.height)
    depth = png_depth(scan) if page.format == "PNG" else 0
    check_bytes(page, tags, depth, os.fstat(scan.fileno()).st_size)
    try:
        pictures = getattr(page, "n_frames", 1)
        page.load()
        ImageOps.exif_transpose(page, in_place=True)
    except UNREADABLE as reason:
        raise SystemExit(NO_IMAGE) from reason
    return grey(page, tags, depth), pictures


# --- what the file says of itself


def tiff_tags(scan: BinaryIO) -> Mapping[int, Any]:
    """Of the first picture; empty for what is no TIFF."""
    scan.seek(0)
    head = scan.read(8)
    found: dict[int, Any] = {}
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        directory = TiffImagePlugin.ImageFileDirectory_v2(head + (scan.read(8) if b"+" in head[:4] else b""))
        scan.seek(directory.next)
        directory.load(scan)
        found = {tag: directory[tag] for tag in (BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, INK_SET, FORMAT, SUBSAMPLING)
                 if tag in directory}  # fmt: skip
        found.setdefault(PHOTOMETRIC, 0)
    scan.seek(0)
    return found


def many(tags: Mapping[int, Any], tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    value = tags.get(tag, default)
    return value if isinstance(value, tuple) else (value,)


def png_depth(scan: BinaryIO) -> int:
    """Bits of a sample."""
    scan.seek(24)
    return scan.read(1)[0]


def refuse_samples(tags: Mapping[int, Any]) -> None:
    """What Pillow would take for something else, or has no words for."""
    kinds, bits = set(many(tags, FORMAT, (1,))), set(many(tags, BITS, (1,)))
    if 3 in kinds or max(bits) > 16:
        raise SystemExit("The page's pixels are neither 8-bit nor 16-bit values. Save it as greyscale or RGB.")
    if kinds != {1}:
        named = next((NUMBERS[kind] for kind in sorted(kinds) if kind in NUMBERS), "numbers of an unknown kind")
        raise SystemExit(f"The page's pixels are {named}. Save it as greyscale or RGB.")
    subsampled = tags.get(PHOTOMETRIC) == 6 and many(tags, SUBSAMPLING, (2, 2)) != (1, 1)
    if subsampled and tags.get(COMPRESSION, 1) == 1 or tags.get(INK_SET, 1) != 1:
        raise SystemExit(described(tags))


def described(tags: Mapping[int, Any]) -> str:
    colour = COLOURS.get(tags[PHOTOMETRIC], "unknown")
    bits = " + ".join(map(str, many(tags, BITS, (1,))[:5]))
    return (
        f"The page is a TIFF that can't be read here ({colour}, {bits} bits): it is damaged, or of a kind that is not "
        "supported. Save it as greyscale or RGB."
    )


def check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 1_000_000
        raise SystemExit(
            f"The page has {width} x {height} pixels; at most {limit} million can be binarized. Use a lower resolution."
        )


def check_bytes(page: Image.Image, tags: Mapping[int, Any], depth: int, there: int) -> None:
    width, height = page.size
    if width * height <= HARMLESS:
        return
    if page.format == "PNG":
        fits = -(-width * depth * len(page.getbands()) // 8) * height <= DEFLATE * there
    elif not tags or tags.get(COMPRESSION) in JPEG:
        fits = width * height <= JPEG_PIXELS * there
    elif tags.get(COMPRESSION) in FAXES:
        fits = min(width, height) <= 8 * there  # the picture may lie on its side
    else:
        bits = many(tags, BITS, (1,))
        row = width * (sum(bits) if len(bits) > 1 else bits[0] * int(tags.get(SAMPLES, 1))) // 8
        fits = row * height <= MOST_OF_A_BYTE.get(tags.get(COMPRESSION, 1), OTHERS) * there
    if not fits:
        raise SystemExit(
            f"The page claims {width} x {height} pixels, which a file of {there} bytes can't hold: it is damaged, or cut off."
        )


# --- the pixels


def grey(page: Image.Image, tags: Mapping[int, Any], depth: int) -> NDArray[np.uint8]:
    transparent = page.info.get("transparency")
    if page.mode.startswith("I;16"):
        return sixteen_bits(np.asarray(page), tags, transparent)
    if page.mode == "CMYK" and page.format in ("JPEG", "MPO") and "adobe" not in page.info:
        raise SystemExit("The page is a CMYK JPEG that does not say what its inks mean. Save it as greyscale or RGB.")
    if isinstance(transparent, tuple) and depth == 16:
        raise SystemExit(
            "The page is a PNG with 16-bit colours, one of which is transparent. Save it without transparency."
        )
    if page.mode in ("1", "L") and isinstance(transparent, int):
        return grey_with_transparent(page, transparent, depth)
    if page.mode not in CONVERTED:
        raise SystemExit("The page's pixels are neither 8-bit nor 16-bit values. Save it as greyscale or RGB.")
    made: NDArray[np.uint8] = np.empty((page.height, page.width), np.uint8)
    for top, part in bands(page):
        made[top : top + part.height] = np.asarray(CONVERTED[page.mode](part))
    return made


def sixteen_bits(samples: NDArray[np.uint16], tags: Mapping[int, Any], transparent: Optional[int]) -> NDArray[np.uint8]:
    """Pillow's own conversion would clip at 255. It gives 12-bit samples as they are, and never turns white and black."""
    made = (samples >> (many(tags, BITS, (16,))[0] - 8)).astype(np.uint8)
    if tags and tags[PHOTOMETRIC] == 0:
        made = 255 - made
    if isinstance(transparent, int):
        made[samples == transparent] = 255
    return made


def grey_with_transparent(page: Image.Image, transparent: int, depth: int) -> NDArray[np.uint8]:
    """Pillow spreads 1, 2 and 4 bits over 0 to 255, but not the value of them that is transparent."""
    made = np.array(page.convert("L"))
    most = (1 << depth) - 1
    made[made == (255 * min(transparent, most) // most if page.mode == "L" else 255 * bool(transparent))] = 255
    return made


def bands(page: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Each conversion of a whole page would need room for it once more."""
    for top in range(0, page.height, BAND_ROWS):
        yield top, page.crop((0, top, page.width, min(top + BAND_ROWS, page.height)))


def opaque(part: Image.Image) -> Image.Image:
    return on_paper(part) if part.has_transparency_data else part.convert("L")


def on_paper(part: Image.Image) -> Image.Image:
    layers = part.convert("LA")
    paper = Image.new("L", part.size, "white")
    paper.paste(layers.getchannel("L"), mask=layers.getchannel("A"))
    return paper


CONVERTED: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    **{mode: opaque for mode in ("1", "L", "P", "RGB", "CMYK", "YCbCr")},
    **{mode: on_paper for mode in ("LA", "PA", "RGBA")},
    "La": lambda part: on_paper(part.convert("LA")),
    "RGBa": lambda part: on_paper(part.convert("RGBA")),
    "LAB": lambda part: part.getchannel("L"),
}


def lenient(read: Callable[[Any, int, int], bytes]) -> Callable[[Any, int, int], bytes]:
    """For what a PNG brings beside its pixels: a colour profile larger than Pillow unpacks is no reason to refuse the page."""

    def chunk(stream: Any, place: int, length: int) -> bytes:
        try:
            return read(stream, place, length)
        except (ValueError, SyntaxError, LookupError):
            stream.fp.seek(place)
            left_alone: bytes = ImageFile._safe_read(stream.fp, length)
            return left_alone

    return chunk


# Little-endian ones Pillow knows.
TiffImagePlugin.OPEN_INFO.setdefault((b"MM", 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))

for _name in ("iCCP", "tEXt", "zTXt", "iTXt", "pHYs", "gAMA", "cHRM", "sRGB", "eXIf"):
    if hasattr(PngImagePlugin.PngStream, f"chunk_{_name}"):
        setattr(
            PngImagePlugin.PngStream, f"chunk_{_name}", lenient(getattr(PngImagePlugin.PngStream, f"chunk_{_name}"))
        )
