"""Draws 10,000 patches of 256 x 256 from a page of 3000 x 4000, against the plain double loop over pixels.

Both come to the same: centres that are spread evenly over the layer's pixels, and patches that are cut when they are asked
for. What cutting them costs is the same for both, and told apart. Runs in the trainer's environment; prints JSON.
"""

from __future__ import annotations

import json
import random
import resource
import time
from statistics import median

import numpy as np
from numpy.typing import NDArray
from patchwise import sampling

SAMPLES, PATCH, PAGE = 10_000, (256, 256), (3000, 4000)
RUNS, BATCHES = 5, 40
BUDGET = 50.0


def main() -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (*PAGE, 3), np.uint8)
    regions: NDArray[np.bool_] = np.ones(PAGE, bool)
    layer = generator.random(PAGE) < 0.3
    begun = time.process_time()
    canvas = sampling.canvas(image, regions, PATCH)
    canvas_seconds = time.process_time() - begun
    before = _peak_mb()
    ours = []
    for _ in range(RUNS):
        begun = time.process_time()
        samples = sampling.sample(canvas, layer, SAMPLES, (0, 1))
        ours.append(time.process_time() - begun)
    peak = _peak_mb()
    begun = time.process_time()
    for first in range(0, 16 * BATCHES, 16):
        samples.cut(np.arange(first, first + 16))
    cutting = (time.process_time() - begun) / BATCHES
    begun = time.process_time()
    centres = plain_loop(layer)
    loop = time.process_time() - begun
    assert len(samples) == len(centres) == SAMPLES and all(layer.flat[each] for each in centres)
    ratio = loop / median(ours)
    print(json.dumps({
        "sampling_ms": round(median(ours) * 1000, 1), "plain_loop_ms": round(loop * 1000), "ratio": round(ratio, 1),
        "budget": BUDGET, "page_ready_ms_once_per_job": round(canvas_seconds * 1000, 1),
        "cutting_ms_per_batch_of_16": round(cutting * 1000, 1), "peak_mb": round(peak),
        "peak_mb_for_sampling": round(peak - before), "within_budget": ratio >= BUDGET,
    }))  # fmt: skip


def plain_loop(layer: NDArray[np.bool_]) -> list[int]:
    """The centres, in the most direct way: look at every pixel, then draw among those that belong to the layer."""
    height, width = layer.shape
    found = []
    for row in range(height):
        for column in range(width):
            if layer[row, column]:
                found.append(row * width + column)
    return random.Random(0).sample(found, SAMPLES)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
