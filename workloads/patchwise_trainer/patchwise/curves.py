"""Learning curves as a picture: for each model the loss on what it learns from, and on what was held out, by epoch."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from PIL import Image, ImageDraw

WIDTH, HEIGHT, EDGE = 480, 240, 36
_LINES = (("loss", "learned from", (0, 90, 200)), ("validation_loss", "held out", (213, 94, 0)))


def draw(models: Sequence[tuple[str, Sequence[Mapping[str, Any]], Optional[int]]], file: Path) -> None:
    """`models`: name, history and best epoch of each; those without an epoch have an empty chart."""
    picture = Image.new("RGB", (WIDTH, HEIGHT * max(1, len(models))), "white")
    pen = ImageDraw.Draw(picture)
    for number, (name, history, best) in enumerate(models):
        _chart(pen, number * HEIGHT, name, history, best)
    aside = file.with_name(f"{file.name}.aside")
    picture.save(aside, format="PNG")
    os.replace(aside, file)


def _chart(
    pen: ImageDraw.ImageDraw, top: int, name: str, history: Sequence[Mapping[str, Any]], best: Optional[int]
) -> None:
    left, right, upper, lower = EDGE, WIDTH - EDGE, top + EDGE, top + HEIGHT - EDGE
    pen.rectangle((left, upper, right, lower), outline=(160, 160, 160))
    losses = [epoch[key] for key, _, _ in _LINES for epoch in history if _is_number(epoch.get(key))]
    highest = max(losses, default=0.0) or 1.0
    pen.text((left, top + 8), f"{name}: loss, {len(history)} epochs", fill="black")
    pen.text((4, upper - 4), f"{highest:.2g}", fill="black")
    pen.text((4, lower - 8), "0", fill="black")

    def x(number: float) -> float:
        return left + (right - left) * (number - 0.5) / max(1, len(history))

    if best:
        pen.line([(x(best), upper), (x(best), lower)], fill=(200, 200, 200))
        pen.text((x(best) - 12, lower + 4), f"best {best}", fill=(110, 110, 110))
    for row, (key, words, colour) in enumerate(_LINES):
        points = [(x(n), lower - (lower - upper) * epoch[key] / highest)
                  for n, epoch in enumerate(history, 1) if _is_number(epoch.get(key))]  # fmt: skip
        pen.line(points, fill=colour, width=2)
        for point in points:
            pen.ellipse((point[0] - 2, point[1] - 2, point[0] + 2, point[1] + 2), fill=colour)
        pen.text((right - 90, upper + 4 + 12 * row), words, fill=colour)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
