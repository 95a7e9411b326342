"""One epoch as the trainer trains, patches cut while it goes, against a bare Keras `fit` on the same patches in memory.

In turns, on the same network; each first warms up. Runs in the trainer's environment; prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

BUDGET = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=160)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    from patchwise import sampling
    from patchwise.job import BATCH
    from patchwise.network import build
    from patchwise.training import Patches

    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (3000, 4000, 3), np.uint8)
    layer = generator.random((3000, 4000)) < 0.3
    canvas = sampling.canvas(image, np.ones((3000, 4000), bool), (options.side, options.side))
    samples = sampling.sample(canvas, layer, options.samples, (0, 1))
    whole = samples.cut(np.arange(len(samples)))
    model = build(options.side, options.side)

    def ours() -> None:
        model.fit(Patches(samples, (0, 1)), verbose=0, shuffle=False)

    def bare() -> None:
        model.fit(whole.image, whole.layer, sample_weight=whole.known, batch_size=BATCH, verbose=0)

    ours()
    bare()
    pairs = [(_seconds(ours), _seconds(bare)) for _ in range(options.runs)]
    # The fastest of each: what else the machine does can only add to it.
    (our_wall, our_cpu), (bare_wall, bare_cpu) = (map(min, zip(*times)) for times in zip(*pairs))
    ratio = bare_wall / our_wall
    facts: dict[str, Any] = {
        "ours_samples_per_second": round(options.samples / our_wall, 2),
        "bare_samples_per_second": round(options.samples / bare_wall, 2), "ratio": round(ratio, 3), "budget": BUDGET,
        "ratio_of_cpu_time": round(bare_cpu / our_cpu, 3), "side": options.side, "samples": options.samples,
        "runs": options.runs, "within_budget": ratio >= BUDGET,
    }  # fmt: skip
    print(json.dumps(facts))


def _seconds(run: Callable[[], None]) -> tuple[float, float]:
    """By the wall's clock, and of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
