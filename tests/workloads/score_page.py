"""Makes score pages with known layers: staves, square notes and words on old paper, then degraded as a scan would be.

The layers are exact, because they are drawn apart; where a symbol stands on a staff line, the pixel is the symbol's.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

SYMBOLS, STAFF, TEXT, BACKGROUND, REGIONS = "symbols", "staff", "text", "background", "regions"
WRITING = "writing"
"""Symbols and text together, for those who do not tell them apart."""
_INK = {STAFF: (165, 60, 50), SYMBOLS: (30, 28, 32), TEXT: (95, 75, 135)}
_PAPER = (226, 212, 180)
_LINES, _GAP, _STROKE = 4, 12, 5


@dataclass(frozen=True)
class ScorePage:
    """`image`: RGB. `layers`: where each of them is, cut to the regions, which are one of them."""

    image: NDArray[np.uint8]
    layers: Mapping[str, NDArray[np.bool_]]

    def image_png(self) -> bytes:
        return _png(self.image)

    def layer_png(self, name: str) -> bytes:
        """RGBA: the page's own colours where the layer is, transparent elsewhere."""
        alpha = np.where(self.layers[name], 255, 0).astype(np.uint8)
        return _png(np.dstack([self.image, alpha]))


def make_page(seed: int, width: int = 360, height: int = 260, margin: int = 12) -> ScorePage:
    """The same page for the same seed. Everything but a margin is selected, and the margin is dirty."""
    random = np.random.default_rng(seed)
    drawn = _drawn(random, width, height)
    ink = {SYMBOLS: drawn[SYMBOLS], STAFF: drawn[STAFF] & ~drawn[SYMBOLS]}
    ink[TEXT] = drawn[TEXT] & ~ink[STAFF] & ~ink[SYMBOLS]
    regions: NDArray[np.bool_] = np.zeros((height, width), bool)
    regions[margin : height - margin, margin : width - margin] = True
    blank = ~(ink[SYMBOLS] | ink[STAFF] | ink[TEXT])
    all_layers = {**ink, BACKGROUND: blank, WRITING: ink[SYMBOLS] | ink[TEXT]}
    layers = {name: layer & regions for name, layer in all_layers.items()}
    return ScorePage(_degraded(random, ink, ~regions), {**layers, REGIONS: regions})


def _drawn(random: np.random.Generator, width: int, height: int) -> dict[str, NDArray[np.bool_]]:
    pictures = {name: Image.new("1", (width, height)) for name in (SYMBOLS, STAFF, TEXT)}
    pens = {name: ImageDraw.Draw(picture) for name, picture in pictures.items()}
    top = int(random.integers(20, 30))
    while top + _LINES * _GAP + 30 < height:
        for line in range(_LINES):
            y = top + line * _GAP
            slant = int(random.integers(-2, 3))
            pens[STAFF].line([(16, y), (width - 16, y + slant)], fill=1, width=_STROKE)
        _draw_notes(random, pens[SYMBOLS], top, width)
        _draw_words(random, pens[TEXT], top + _LINES * _GAP - 3, width)
        top += _LINES * _GAP + int(random.integers(22, 28))
    return {name: np.asarray(picture) for name, picture in pictures.items()}


def _draw_notes(random: np.random.Generator, pen: ImageDraw.ImageDraw, top: int, width: int) -> None:
    x = int(random.integers(24, 40))
    while x < width - 40:
        y = top + int(random.integers(0, 2 * _LINES)) * _GAP // 2
        side = int(random.integers(10, 15))
        kind = random.integers(0, 3)
        if kind == 0:
            pen.rectangle([x, y - side // 2, x + side, y + side // 2], fill=1)
        elif kind == 1:
            half = side * 2 // 3
            pen.polygon([(x, y), (x + half, y - half), (x + 2 * half, y), (x + half, y + half)], fill=1)
        else:
            pen.rectangle([x, y - side // 2, x + side, y + side // 2], fill=1)
            pen.line([(x + side, y), (x + side, y + 26)], fill=1, width=_STROKE)
        x += side + int(random.integers(10, 30))


def _draw_words(random: np.random.Generator, pen: ImageDraw.ImageDraw, top: int, width: int) -> None:
    """Letters of a made-up alphabet: strokes and bows, so that no font has to be there."""
    x = int(random.integers(20, 40))
    while x < width - 40:
        for _ in range(int(random.integers(2, 6))):
            wide = int(random.integers(10, 15))
            pen.line([(x, top), (x, top + 16)], fill=1, width=_STROKE)
            kind = random.integers(0, 3)
            if kind == 0:
                pen.arc([x, top + 2, x + wide, top + 16], 0, 360, fill=1, width=_STROKE)
            elif kind == 1:
                pen.line([(x, top + 4), (x + wide, top + 14)], fill=1, width=_STROKE)
            else:
                pen.line([(x, top + 14), (x + wide, top + 14)], fill=1, width=_STROKE)
            x += wide + 6
        x += int(random.integers(12, 28))


def _degraded(
    random: np.random.Generator, ink: Mapping[str, NDArray[np.bool_]], margin: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Uneven paper and light, faded ink, a soft focus, grain; the margin gets dirt that belongs to no layer."""
    height, width = margin.shape
    page = np.full((height, width, 3), _PAPER, np.float64) + _clouds(random, height, width)[..., None] * 14
    for name, where in ink.items():
        fading = 1 - 0.25 * np.abs(_clouds(random, height, width))
        page = np.where(where[..., None], page + (np.array(_INK[name]) - page) * fading[..., None], page)
    page[margin & (random.random((height, width)) < 0.2)] = (60, 60, 60)
    light = 1 + 0.1 * np.linspace(-1, 1, width)[None, :] * random.choice([-1, 1])
    lit = Image.fromarray(np.clip(page * light[..., None], 0, 255).astype(np.uint8))
    soft = lit.filter(ImageFilter.GaussianBlur(0.5))
    return np.clip(np.asarray(soft) + random.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)


def _clouds(random: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """Slow changes between -1 and 1."""
    coarse = Image.fromarray(random.uniform(-1, 1, (6, 8)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64).clip(-1, 1)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "PNG")
    return stored.getvalue()
