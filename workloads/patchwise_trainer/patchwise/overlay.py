"""What the models say of the whole page, and a picture of it to look at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .sampling import preprocessed

LONGEST_SIDE = 1200
"""Of the picture, which travels in the reply beside the models."""
COLOURS = ((0, 90, 200), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))
"""Of the layers but the background, in turn, as red, green, blue; told apart also by the colour-blind (Okabe and Ito)."""
_INK = 0.65


def probability(
    predict: Callable[[NDArray[np.float32]], Any], image: NDArray[np.uint8], patch: tuple[int, int], batch: int
) -> NDArray[np.float32]:
    """height x width. Patches overlap by a quarter, and each is believed only in its middle: at its edge it knows less."""
    places = [(row, column) for row in _steps(image.shape[0], patch[0]) for column in _steps(image.shape[1], patch[1])]
    made = np.zeros(image.shape[:2], np.float32)
    for first in range(0, len(places), batch):
        some = places[first : first + batch]
        patches = np.stack(
            [image[row[0] : row[0] + patch[0], column[0] : column[0] + patch[1]] for row, column in some]
        )
        for (row, column), seen in zip(some, np.asarray(predict(preprocessed(patches)))[..., 0]):
            believed = seen[row[1] - row[0] : row[2] - row[0], column[1] - column[0] : column[2] - column[0]]
            made[row[1] : row[2], column[1] : column[2]] = believed
    return made


def _steps(length: int, side: int) -> Iterator[tuple[int, int, int]]:
    """Where a patch begins, and from where to where it is believed. Together they cover the whole length."""
    edge = side // 8
    start, believed = 0, 0
    while believed < length:
        start = max(0, min(believed - (edge if believed else 0), length - side))
        end = length if start + side >= length else start + side - edge
        yield start, believed, end
        believed = end


def draw(image: NDArray[np.uint8], labels: NDArray[np.integer[Any]], file: Path) -> None:
    """`image`: blue first. `labels`: 0 for the background, which stays as it is."""
    picture = np.ascontiguousarray(image[:, :, ::-1])
    for label in range(1, int(labels.max()) + 1):
        where = labels == label
        colour = np.array(COLOURS[(label - 1) % len(COLOURS)])
        picture[where] = ((1 - _INK) * picture[where] + _INK * colour).astype(np.uint8)
    drawn = Image.fromarray(picture)
    drawn.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    aside = file.with_name(f"{file.name}.aside")
    drawn.save(aside, format="PNG")
    os.replace(aside, file)
