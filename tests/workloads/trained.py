"""Runs the patchwise trainer and its models in the workload's own environment, which has what it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.workloads.score_page import ScorePage

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "workloads" / "patchwise_trainer"
PYTHON = FOLDER / ".venv" / "bin" / "python"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(FOLDER)}

GENERATION_A = {"Background": "background", "Music Layer": "symbols", "Staff Layer": "staff", "Text": "text"}
"""Input name -> layer of a score page, in the order of the models."""
MODELS_A = ["Background Model", "Music Symbol Model", "Staff Lines Model", "Text Model"]


def set_up() -> None:
    """The workload's own environment, built when it isn't there; when that fails, so do the tests: they never skip."""
    if PYTHON.exists() and subprocess.run([PYTHON, "-c", "import keras, PIL"], env=ENVIRONMENT).returncode == 0:
        return
    for command in (
        [sys.executable, "-m", "venv", ".venv"],
        [str(PYTHON), "-m", "pip", "install", "--quiet", "-r", "requirements.txt"],
    ):
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.fail(f"Can't set up workloads/patchwise_trainer.\n{done.stderr}", pytrace=False)


def inputs_of(page: ScorePage, layers: Mapping[str, str]) -> dict[str, bytes]:
    """Input name -> file, as the service would serve it."""
    drawn = {name: page.layer_png(layer) for name, layer in layers.items()}
    return {"Image": page.image_png(), "Selected Regions": page.layer_png("regions"), **drawn}


class Work:
    """A work folder as the worker makes it."""

    def __init__(self, folder: Path, inputs: Mapping[str, bytes], models: list[str], **settings: Any) -> None:
        self.folder = folder
        for name in ("inputs", "outputs"):
            (folder / name).mkdir(parents=True)
        for name, content in inputs.items():
            (folder / "inputs" / name).write_bytes(content)
        outputs = [*models, "Report", "Overlay"]
        (folder / "job.json").write_text(json.dumps({
            "settings": settings, "resources": {"cpus": 1}, "inputs": {name: f"inputs/{name}" for name in inputs},
            "outputs": {name: f"outputs/{name}" for name in outputs},
        }))  # fmt: skip

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(PYTHON), str(FOLDER / "train.py"), str(self.folder / "job.json")], cwd=self.folder, text=True,
            env={**ENVIRONMENT, "BATCHFERRY_PROGRESS": str(self.progress)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self) -> tuple[int, str]:
        """Exit code, and the last line of what it said."""
        process = self.start()
        _, said = process.communicate(timeout=900)
        return process.returncode, (said.splitlines() or [""])[-1]

    @property
    def progress(self) -> Path:
        return self.folder / "progress"

    @property
    def report(self) -> Any:
        return json.loads((self.folder / "outputs" / "Report").read_text())

    def outputs(self) -> set[str]:
        return {file.name for file in (self.folder / "outputs").iterdir()}


def f1_of(seed: int, models: Mapping[str, Path]) -> dict[str, float]:
    """How well the models (layer -> file) separate the page of that seed."""
    done = subprocess.run(
        [PYTHON, "-m", "tests.workloads.separating", str(seed), *(f"{layer}={file}" for layer, file in models.items())],
        env={**ENVIRONMENT, "PYTHONPATH": f"{ROOT}:{FOLDER}"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return scores
