"""Draws patches of a label without bias, and cuts them out only when a batch is asked for. NumPy alone.

Every pixel of the layer is as likely as any other to be the centre of a patch, also at the page's border: the page has a
margin of white paper there, which counts as outside of the selected regions. Were a centre near the border left out, or
its patch shifted inwards, the border would be seen less often, or never in the middle. Drawn without replacement: no
patch twice, so that none is held out and trained on, and a layer with few pixels gives as many samples as it has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PAPER = 255
"""Preprocessed it is 0, which is also what the network sees beyond the edge of a patch."""


@dataclass(frozen=True)
class Canvas:
    """A page with half a patch of margin around it, and a view of it as patches: patches[r, c] has (r, c) as its centre."""

    size: tuple[int, int]
    patches: NDArray[np.uint8]
    known: NDArray[np.bool_]
    patch: tuple[int, int]

    def patches_of(self, layer: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return _windows(_with_margin(layer, self.patch, False), self.patch)


@dataclass(frozen=True)
class Batch:
    """`image`: n x h x w x 3, (255 - x) / 255. `layer`: n x h x w x 1, 0 or 1. `known`: n x h x w, 1 inside the selected
    regions: what is outside of them is not known, and neither learned nor measured."""

    image: NDArray[np.float32]
    layer: NDArray[np.float32]
    known: NDArray[np.float32]


@dataclass(frozen=True)
class Samples:
    """The centres of a label's patches, as numbers of pixels in reading order: all that is kept of a sample."""

    canvas: Canvas
    layer: NDArray[np.bool_]
    """Patches of the layer, as `canvas.patches` are of the page."""
    centres: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.centres)

    def cut(self, which: NDArray[np.int64]) -> Batch:
        """The samples of these numbers."""
        rows, columns = np.divmod(self.centres[which], self.canvas.size[1])
        return Batch(
            preprocessed(self.canvas.patches[rows, columns]),
            self.layer[rows, columns].astype(np.float32)[..., None],
            self.canvas.known[rows, columns].astype(np.float32),
        )

    def split(self, share: float) -> tuple[Samples, Samples]:
        """Those to learn from, and `share` of them to hold out. They come in random order, so any share is a fair one."""
        held_out = round(len(self) * share)
        of = self.canvas, self.layer
        return Samples(*of, self.centres[held_out:]), Samples(*of, self.centres[:held_out])


def canvas(image: NDArray[np.uint8], regions: NDArray[np.bool_], patch: tuple[int, int]) -> Canvas:
    """`patch`: height and width."""
    patches = _windows(_with_margin(image, patch, PAPER), (*patch, image.shape[2]))[:, :, 0]
    return Canvas(
        (image.shape[0], image.shape[1]), patches, _windows(_with_margin(regions, patch, False), patch), patch
    )


def draw(layer: NDArray[np.bool_], most: int, seed: tuple[int, ...]) -> NDArray[np.int64]:
    """The numbers of at most `most` pixels of the layer, in random order; the same for the same seed."""
    pixels = np.flatnonzero(layer)
    generator = np.random.default_rng(seed)
    return generator.choice(pixels, min(most, len(pixels)), replace=False)


def sample(canvas: Canvas, layer: NDArray[np.bool_], most: int, seed: tuple[int, ...]) -> Samples:
    return Samples(canvas, canvas.patches_of(layer), draw(layer, most, seed))


def preprocessed(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What a model takes."""
    return (PAPER - image).astype(np.float32) / np.float32(PAPER)


def _with_margin(page: NDArray[np.generic], patch: tuple[int, int], fill: int) -> NDArray[np.generic]:
    """A patch of even height has one row more above its centre than below it."""
    height, width = patch
    around = ((height // 2, (height - 1) // 2), (width // 2, (width - 1) // 2))
    return np.pad(page, (*around, *((0, 0),) * (page.ndim - 2)), constant_values=fill)


def _windows(page: NDArray[np.generic], shape: tuple[int, ...]) -> NDArray[np.generic]:
    return np.lib.stride_tricks.sliding_window_view(page, shape)
