"""Reads the page and its layers as arrays, or raises SystemExit with a sentence that names the picture. Knows no job.json."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin

from .sampling import PAPER

MAX_PIXELS = 150_000_000  # an A2 sheet at 600 dpi has 140 million
MOST_OF_A_BYTE, HARMLESS = 1040, 10_000_000  # bytes of pixels; so few are never looked at
OPAQUE = 255
# What Pillow raises on a damaged file: seen on damaged ones, or written in its decoders.
UNREADABLE = (OSError, ValueError, TypeError, SyntaxError, EOFError, LookupError)


@dataclass(frozen=True)
class Page:
    """`image`: height x width x 3, blue first. The others: height x width; a layer is already cut to the regions."""

    image: NDArray[np.uint8]
    regions: NDArray[np.bool_]
    layers: Mapping[str, NDArray[np.bool_]]
    partly: Mapping[str, int] = field(default_factory=dict)
    """Pixels of a layer inside the regions that are neither opaque nor transparent: they do not belong to it."""


def read_page(image: Path, regions: Path, layers: Mapping[str, Path], patch: tuple[int, int], prefix: str = "") -> Page:
    """All faults are told before training begins. `patch`: height and width, which must fit into the page. `prefix`: what
    the names of this page's inputs begin with; it is empty for the first page, which alone must have something of each
    layer."""
    scan = read_image(image, prefix + "Image")
    size = (scan.shape[1], scan.shape[0])
    _check_patch(size, patch)
    alpha = read_alpha(prefix + "Selected Regions", regions, size)
    selected = alpha == OPAQUE
    if not selected.any():
        raise SystemExit(
            f'"{prefix}Selected Regions" selects nothing: no pixel of it is opaque (alpha 255){_nearly(alpha)}. '
            "Select a region."
        )
    read: dict[str, NDArray[np.bool_]] = {}
    partly: dict[str, int] = {}
    for name, file in layers.items():
        alpha = read_alpha(prefix + name, file, size)
        alpha[~selected] = 0
        read[name] = alpha == OPAQUE
        partly[name] = int(np.count_nonzero(alpha)) - int(np.count_nonzero(read[name]))
        if not prefix and not read[name].any():
            raise SystemExit(
                f'The layer "{name}" is empty inside the selected regions: no pixel is opaque (alpha 255) there'
                f"{_nearly(alpha)}. Draw what belongs to it, or leave the layer out."
            )
    return Page(scan, selected, read, partly)


def _nearly(alpha: NDArray[np.uint8]) -> str:
    most = int(alpha.max())
    return f", its most opaque one has alpha {most}" if most else ""


def joined(pages: Sequence[Page], patch: tuple[int, int]) -> Page:
    """Several pages as one, below each other: each pixel of a layer is then as likely to be drawn as any other, whichever
    page it is on. Between them lies white paper that is not selected, so that no patch sees two pages."""
    if len(pages) == 1:
        return pages[0]
    width = max(page.image.shape[1] for page in pages)
    _check_size("All pages together", width, sum(page.image.shape[0] + patch[0] for page in pages))

    def stack(parts: Sequence[NDArray[Any]], fill: int) -> NDArray[Any]:
        rest = ((0, 0),) * (parts[0].ndim - 2)
        padded = [
            np.pad(part, ((0, patch[0]), (0, width - part.shape[1]), *rest), constant_values=fill) for part in parts
        ]
        return np.concatenate(padded)[: -patch[0]]

    return Page(
        stack([page.image for page in pages], PAPER), stack([page.regions for page in pages], 0),
        {name: stack([page.layers[name] for page in pages], 0) for name in pages[0].layers},
        {name: sum(page.partly.get(name, 0) for page in pages) for name in pages[0].layers},
    )  # fmt: skip


def read_image(file: Path, name: str = "Image") -> NDArray[np.uint8]:
    """As OpenCV's IMREAD_COLOR would: blue first, 8 bits, grey as three equal channels, transparency left away."""
    with _opened(name, file) as picture:
        if picture.mode.startswith("I"):  # Pillow's own conversion of 16 bits would clip at 255
            grey = (np.asarray(picture) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        return np.ascontiguousarray(np.asarray(picture.convert("RGB"))[:, :, ::-1])


def read_alpha(name: str, file: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """How opaque the picture is. `size`: the page's width and height."""
    with _opened(name, file) as picture:
        if picture.size != size:
            raise SystemExit(
                f'The layer "{name}" has {picture.width} x {picture.height} pixels, but the image has '
                f"{size[0]} x {size[1]}. Both must be of the same size."
            )
        if not picture.has_transparency_data:
            raise SystemExit(
                f'The layer "{name}" has no alpha channel: it is {picture.mode}, not RGBA. Save it as a PNG with '
                "transparency, opaque only where a pixel belongs to the layer."
            )
        return np.array(picture.convert("RGBA").getchannel("A"))


@contextmanager
def _opened(name: str, file: Path) -> Iterator[Image.Image]:
    """A decoded PNG. Its size is looked at before a pixel is decoded."""
    Image.MAX_IMAGE_PIXELS = None  # _check_size has a sentence
    with file.open("rb") as source:  # outside of the try: a missing file is not a damaged one
        yield _decoded(name, source)


def _decoded(name: str, source: BinaryIO) -> Image.Image:
    try:
        picture = Image.open(source, formats=("PNG",))
        _check_size(name, picture.width, picture.height)
        _check_bytes(name, picture, source)
        picture.load()
    except UNREADABLE as reason:
        raise SystemExit(f'"{name}" is not a PNG that can be read.') from reason
    return picture


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 1_000_000
        raise SystemExit(
            f'"{name}" has {width} x {height} pixels; at most {limit} million can be used. Use a lower resolution.'
        )


def _check_bytes(name: str, picture: Image.Image, source: BinaryIO) -> None:
    """Before room is made for what a damaged header may claim: deflate makes at most so much of a byte."""
    there, place = os.fstat(source.fileno()).st_size, source.tell()
    source.seek(24)
    bits = source.read(1)[0] * len(picture.getbands())
    source.seek(place)
    if -(-picture.width * bits // 8) * picture.height > MOST_OF_A_BYTE * there + HARMLESS:
        raise SystemExit(
            f'"{name}" claims {picture.width} x {picture.height} pixels, which a file of {there} bytes can\'t hold: it is '
            "damaged, or cut off."
        )


def _lenient(read: Callable[[Any, int, int], bytes]) -> Callable[[Any, int, int], bytes]:
    """For what a PNG brings beside its pixels: a colour profile larger than Pillow unpacks is no reason to refuse it."""

    def chunk(stream: Any, place: int, length: int) -> bytes:
        try:
            return read(stream, place, length)
        except (ValueError, SyntaxError, LookupError):
            stream.fp.seek(place)
            left_alone: bytes = ImageFile._safe_read(stream.fp, length)
            return left_alone

    return chunk


for _name in ("chunk_iCCP", "chunk_tEXt", "chunk_zTXt", "chunk_iTXt", "chunk_eXIf"):
    if hasattr(PngImagePlugin.PngStream, _name):
        setattr(PngImagePlugin.PngStream, _name, _lenient(getattr(PngImagePlugin.PngStream, _name)))


def _check_patch(size: tuple[int, int], patch: tuple[int, int]) -> None:
    width, height = size
    if patch[0] > height or patch[1] > width:
        raise SystemExit(
            f"The patch of {patch[1]} x {patch[0]} pixels is larger than the page of {width} x {height}. "
            "Set a smaller Patch height and Patch width."
        )
