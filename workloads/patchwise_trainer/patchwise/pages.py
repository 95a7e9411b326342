"""Reads the page and its layers as arrays, or raises SystemExit with a sentence that names the picture. Knows no job.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_PIXELS = 150_000_000  # an A2 sheet at 600 dpi has 140 million
OPAQUE = 255
# What Pillow raises on a damaged file: seen on damaged ones, or written in its decoders.
UNREADABLE = (OSError, ValueError, TypeError, SyntaxError, EOFError)


@dataclass(frozen=True)
class Page:
    """`image`: height x width x 3, blue first. The others: height x width; a layer is already cut to the regions."""

    image: NDArray[np.uint8]
    regions: NDArray[np.bool_]
    layers: Mapping[str, NDArray[np.bool_]]


def read_page(image: Path, regions: Path, layers: Mapping[str, Path], patch: tuple[int, int]) -> Page:
    """All faults are told before training begins. `patch`: height and width, which must fit into the page."""
    scan = read_image(image)
    size = (scan.shape[1], scan.shape[0])
    _check_patch(size, patch)
    selected = read_alpha("Selected Regions", regions, size)
    if not selected.any():
        raise SystemExit('"Selected Regions" selects nothing: no pixel of it is opaque (alpha 255). Select a region.')
    read: dict[str, NDArray[np.bool_]] = {}
    for name, file in layers.items():
        read[name] = read_alpha(name, file, size) & selected
        if not read[name].any():
            raise SystemExit(
                f'The layer "{name}" is empty inside the selected regions: no pixel is opaque (alpha 255) there. '
                "Draw what belongs to it, or leave the layer out."
            )
    return Page(scan, selected, read)


def read_image(file: Path) -> NDArray[np.uint8]:
    """As OpenCV's IMREAD_COLOR would: blue first, 8 bits, grey as three equal channels, transparency left away."""
    with _opened("Image", file) as picture:
        if picture.mode.startswith("I"):  # Pillow's own conversion of 16 bits would clip at 255
            grey = (np.asarray(picture) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        return np.ascontiguousarray(np.asarray(picture.convert("RGB"))[:, :, ::-1])


def read_alpha(name: str, file: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where the picture is opaque. `size`: the page's width and height."""
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
        return np.asarray(picture.convert("RGBA").getchannel("A")) == OPAQUE


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


def _check_patch(size: tuple[int, int], patch: tuple[int, int]) -> None:
    width, height = size
    if patch[0] > height or patch[1] > width:
        raise SystemExit(
            f"The patch of {patch[1]} x {patch[0]} pixels is larger than the page of {width} x {height}. "
            "Set a smaller Patch height and Patch width."
        )
