"""Separates a score page with models that came back, and says how well: F1 per layer. Runs in the trainer's environment.

`python -m tests.workloads.separating SEED [--picture FILE] LAYER=MODEL ...` prints JSON, layer -> F1, inside the regions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from patchwise import overlay
from patchwise.separation import Surest
from PIL import Image

from tests.workloads.score_page import make_page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("models", nargs="+", metavar="LAYER=MODEL")
    options = parser.parse_args()
    page = make_page(options.seed)
    models = dict(each.split("=", 1) for each in options.models)
    image = np.ascontiguousarray(page.image[:, :, ::-1])
    surest = Surest(image.shape[:2])
    for model in models.values():
        surest.add(_probability(model, image))
    found = surest.labels
    if options.picture:
        _show(page.image, image, found, options.picture)
    regions, scores = page.layers["regions"], {}
    for number, layer in enumerate(models):
        ours, true = (found == number) & regions, page.layers[layer]
        scores[layer] = round(float(2 * (ours & true).sum() / (ours.sum() + true.sum())), 4)
    print(json.dumps(scores))


def _probability(file: str, image: Any) -> Any:
    import keras

    model = keras.models.load_model(file)
    _, height, width, channels = model.input_shape
    assert channels == 3 and model.output_shape == (None, height, width, 1)
    return overlay.probability(lambda patches: model.predict(patches, verbose=0), image, (height, width), 64)


def _show(page: Any, image: Any, found: Any, picture: Path) -> None:
    """The page, and beside it what the models make of it."""
    overlay.draw(image, found, picture)
    with Image.open(picture) as drawn:
        drawn.load()
    both = Image.new("RGB", (2 * drawn.width + 10, drawn.height), "grey")
    both.paste(Image.fromarray(page), (0, 0))
    both.paste(drawn, (drawn.width + 10, 0))
    both.resize((2 * both.width, 2 * both.height)).save(picture, "PNG")


if __name__ == "__main__":
    main()
