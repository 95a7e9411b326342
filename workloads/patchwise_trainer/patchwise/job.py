"""What a job asks for: job.json as one frozen Job, or SystemExit with a sentence for whoever asked. Opens no picture."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

BATCH = 16
"""Patches that one step of training sees."""
HELD_OUT = 0.2
"""Share of a label's samples that training never sees; what the report says is measured on them."""
FEWEST_SAMPLES = 20
"""So that a whole batch is left when a fifth is held out."""
POOLING = 4
"""The network halves a patch twice, and joins what it doubles again: sides must be multiples of this."""
BACKENDS = ("tensorflow", "torch", "jax")

IMAGE, REGIONS, BACKGROUND = "Image", "Selected Regions", "Background"
_BY_NAME = {"Music Layer": "Music Symbol Model", "Staff Layer": "Staff Lines Model", "Text": "Text Model"}
_NUMBERED = re.compile(r"rgba PNG - Layer (\d+)", re.ASCII)
_FURTHER = re.compile(r"Further Page (\d+): .+", re.ASCII)


@dataclass(frozen=True)
class Label:
    """One layer of the page, and the model that learns it. The names are those of the wire."""

    layer: str
    model: str
    layer_file: Path
    model_file: Path
    start_file: Optional[Path] = None
    """An earlier model of this layer to go on from, given as an input under the model's name."""


@dataclass(frozen=True)
class PageFiles:
    """Another page to learn from. `prefix`: what its inputs are called beyond the first page's names."""

    prefix: str
    image: Path
    regions: Path
    layers: Mapping[str, Path]


@dataclass(frozen=True)
class Settings:
    epochs: int
    samples: int
    height: int
    width: int
    seed: int
    backend: str


@dataclass(frozen=True)
class Job:
    image: Path
    regions: Path
    labels: tuple[Label, ...]
    report: Optional[Path]
    overlay: Optional[Path]
    settings: Settings
    cpus: int
    further: tuple[PageFiles, ...] = ()
    curves: Optional[Path] = None


def read_job(file: Path, environment: Mapping[str, str] = os.environ) -> Job:
    """Raises SystemExit with a sentence when the job can't be done as it stands."""
    asked = json.loads(file.read_bytes())
    inputs, outputs = _paths(file.parent, asked["inputs"]), _paths(file.parent, asked["outputs"])
    pairs = _layers_and_models(inputs)
    for name in (IMAGE, REGIONS, *(layer for layer, _ in pairs)):
        if name not in inputs:
            raise SystemExit(f'This job has no input named "{name}".')
    for _, model in pairs:
        if model not in outputs:
            raise SystemExit(
                f'This job has no output named "{model}". Somebody who runs the service must look into it.'
            )
    return Job(
        inputs[IMAGE], inputs[REGIONS],
        tuple(Label(layer, model, inputs[layer], outputs[model], inputs.get(model)) for layer, model in pairs),
        outputs.get("Report"), outputs.get("Overlay"),
        read_settings(asked["settings"], environment), int(asked.get("resources", {}).get("cpus", 1)),
        tuple(_further_pages(inputs, [layer for layer, _ in pairs])), outputs.get("Curves"),
    )  # fmt: skip


def _further_pages(inputs: Mapping[str, Path], layers: Sequence[str]) -> Iterator[PageFiles]:
    for number in sorted({int(found[1]) for found in map(_FURTHER.fullmatch, inputs) if found}):
        prefix = f"Further Page {number}: "
        for name in (IMAGE, REGIONS, *layers):
            if prefix + name not in inputs:
                raise SystemExit(f'This job has no input named "{prefix}{name}".')
        files = {layer: inputs[prefix + layer] for layer in layers}
        yield PageFiles(prefix, inputs[prefix + IMAGE], inputs[prefix + REGIONS], files)


def _paths(folder: Path, names: Mapping[str, str]) -> dict[str, Path]:
    return {name: folder / path for name, path in names.items()}


def _layers_and_models(inputs: Mapping[str, Path]) -> list[tuple[str, str]]:
    """Generation B numbers its layers, generation A names them; both have a background."""
    numbers = sorted(int(found.group(1)) for found in map(_NUMBERED.fullmatch, inputs) if found)
    if not numbers:
        return [(BACKGROUND, "Background Model"), *_BY_NAME.items()]
    missing = next((n for n, number in enumerate(numbers) if n != number), None)
    if missing is not None:
        raise SystemExit(
            f'The input "rgba PNG - Layer {missing}" is missing; there is a Layer {numbers[-1]}. '
            "Number the layers 0, 1, 2 and so on, without a gap."
        )
    return [(BACKGROUND, "Background Model"), *((f"rgba PNG - Layer {n}", f"Model {n}") for n in numbers)]


def read_settings(asked: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    return Settings(
        epochs=_whole(asked, "Maximum number of training epochs", 15, 1, 10_000),
        samples=_whole(asked, "Maximum number of samples per label", 10_000, FEWEST_SAMPLES, 10_000_000),
        height=_side(asked, "Patch height"),
        width=_side(asked, "Patch width"),
        seed=_whole(asked, "Seed", 0, 0, 2**32 - 1),
        backend=_backend(asked, environment),
    )


def _whole(asked: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    """Also of a form that sends its numbers as text, or with a decimal point: "15" and 15.0 are 15."""
    value: object = asked.get(name, default)
    number = value
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,18}(\.0*)?\s*", value, re.ASCII):
        number = int(value.partition(".")[0])
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        raise SystemExit(f"{name} must be a whole number from {least} to {most}; this job says {_said(value)}.")
    return number


def _side(asked: Mapping[str, Any], name: str) -> int:
    value = _whole(asked, name, 256, 16, 4096)
    if value % POOLING:
        raise SystemExit(
            f"{name} must be a multiple of {POOLING}; this job says {value}. Try {value - value % POOLING}."
        )
    return value


def _backend(asked: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    value = asked.get("Backend", environment.get("KERAS_BACKEND", BACKENDS[0]))
    if value not in BACKENDS:
        raise SystemExit(f"Backend must be one of {', '.join(BACKENDS)}; this job says {_said(value)}.")
    return str(value)


def _said(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
