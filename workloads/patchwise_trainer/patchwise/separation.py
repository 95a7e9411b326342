"""How well all models together separate the page: each pixel goes to the layer whose model is most sure of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Surest:
    """Which model is most sure of each pixel so far; of two that are equally sure the first. One page of numbers, however
    many models there are."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.labels: NDArray[np.uint8] = np.zeros(size, np.uint8)
        self._highest: NDArray[np.float32] = np.full(size, -1, np.float32)
        self._count = 0

    def add(self, probability: NDArray[np.float32]) -> None:
        surer = probability > self._highest
        self.labels[surer] = self._count
        self._highest[surer] = probability[surer]
        self._count += 1


def separation(
    found: NDArray[np.uint8], layers: Sequence[NDArray[np.bool_]], regions: NDArray[np.bool_]
) -> dict[str, Any]:
    """`confusion`: a row for each layer, and in it how many of its pixels went to which. Pixels that belong to no layer, or
    to several, are not counted: it is not known what would be right."""
    belongs = np.sum(layers, axis=0, dtype=np.uint8)
    clear = (belongs == 1) & regions
    true = np.zeros(found.shape, np.uint8)
    for number, layer in enumerate(layers):
        true[layer] = number
    n = len(layers)
    pairs = true[clear].astype(np.int64) * n + found[clear]
    confusion = np.bincount(pairs, minlength=n * n).reshape(n, n)
    hits, sums = np.diag(confusion), confusion.sum(0) + confusion.sum(1)
    f1 = [round(2 * int(hit) / int(both), 5) if both else None for hit, both in zip(hits, sums)]
    known = [each for each in f1 if each is not None]
    return {
        "accuracy": round(int(hits.sum()) / int(clear.sum()), 5) if clear.any() else None,
        "mean_f1": round(sum(known) / len(known), 5) if known else None,
        "f1": f1,
        "confusion": confusion.tolist(),
        "pixels": int(clear.sum()),
        "pixels_of_no_or_several_layers": int((regions & ~clear).sum()),
    }
