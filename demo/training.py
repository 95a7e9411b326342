"""The demo of the patchwise trainer: score pages made for it, and what the models make of a page that they never saw.

Pages are drawn and models are run in the workload's environment, which has what it takes; ours does not need it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.services.upstream import Upstream

ROOT = Path(__file__).resolve().parent.parent
_FOLDER = ROOT / "workloads" / "patchwise_trainer"
_LAYERS = {"Background": "background", "Music Layer": "symbols", "Staff Layer": "staff", "Text": "text"}
_MODELS = {
    "background": "Background Model", "symbols": "Music Symbol Model", "staff": "Staff Lines Model", "text": "Text Model",
}  # fmt: skip
_LEARNED, _UNSEEN = 1, 2
"""Seeds of the page that is learned from, and of another one."""
_SETTINGS = {
    "CPUs": 2, "Maximum number of training epochs": 4, "Maximum number of samples per label": 640,
    "Patch height": 32, "Patch width": 32,
}  # fmt: skip

_MAKE_PAGE = """
import json, sys
from pathlib import Path
from tests.workloads.score_page import make_page
page, folder = make_page(int(sys.argv[1])), Path(sys.argv[2])
(folder / "Image.png").write_bytes(page.image_png())
for name, layer in json.loads(sys.argv[3]).items():
    (folder / f"{name}.png").write_bytes(page.layer_png(layer))
"""


def add_pages(upstream: Upstream, folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Draws a page with its layers and puts them into the service; returns the job's inputs and settings."""
    folder.mkdir()
    layers = {**_LAYERS, "Selected Regions": "regions"}
    _python("-c", _MAKE_PAGE, str(_LEARNED), str(folder), json.dumps(layers))
    inputs = {name: f"/uploads/{name.lower().replace(' ', '-')}.png" for name in ("Image", *layers)}
    for name, path in inputs.items():
        upstream.add(path, folder / f"{name}.png")
    return inputs, dict(_SETTINGS)


def site_block() -> str:
    """The one that the workload's README shows."""
    (block,) = re.findall(r"```toml\n(.*?)```", (_FOLDER / "README.md").read_text(), re.DOTALL)
    return f"\n{block}"


def separate(files: Mapping[str, Path], picture: Path) -> dict[str, float]:
    """F1 per layer on a page that the models never saw; `picture` shows it."""
    models = [f"{layer}={files[model]}" for layer, model in _MODELS.items()]
    said = _python("-m", "tests.workloads.separating", str(_UNSEEN), "--picture", str(picture), *models)
    scores: dict[str, float] = json.loads(said.splitlines()[-1])
    return scores


def _python(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{_FOLDER}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [str(_FOLDER / ".venv" / "bin" / "python"), *arguments], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, check=True,
    )  # fmt: skip
    return done.stdout
