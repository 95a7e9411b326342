"""A trained model opens in Keras 2, which all versions of the platform's classifier have, and training can go on from it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing_told
from tests.services.present import ServiceMissing
from tests.workloads.trained import ENVIRONMENT, FOLDER, PYTHON, set_up

pytestmark = pytest.mark.training

HERE = Path(__file__).parent / "keras2"
KERAS2 = HERE / ".venv" / "bin" / "python"
MAKE = """
import sys, keras, numpy as np
from pathlib import Path
from patchwise.model_file import save
from patchwise.network import LEARNING_RATE, build
keras.utils.set_random_seed(1)
random = np.random.default_rng(1)
model = build(32, 48)
model.set_weights([weight + random.normal(0, 0.02, weight.shape) for weight in model.get_weights()])
patches = random.random((6, 32, 48, 3), np.float32)
save(model, Path(sys.argv[1]), {"layer": "Text", "loss": float("nan")}, LEARNING_RATE)
np.savez(sys.argv[2], patches=patches, probabilities=model.predict(patches, verbose=0))
"""
SHOW = """
import json, sys, h5py
with h5py.File(sys.argv[1]) as file:
    text = [attributes[name] for attributes in (file.attrs, file["model_weights"].attrs) for name in attributes]
    print(json.dumps({"groups": list(file), "all bytes": all(getattr(each, "dtype", each).kind == "S" for each in text),
                      "config": json.loads(file.attrs["model_config"]), "card": json.loads(file.attrs["model_card"])}))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model with weights of its own, and what it makes of some patches."""
    set_up()
    folder = tmp_path_factory.mktemp("model")
    model, patches = folder / "model.h5", folder / "patches.npz"
    said(PYTHON, "-c", MAKE, str(model), str(patches))
    return model, patches


def said(python: Path, *arguments: str) -> str:
    environment = {**ENVIRONMENT, "TF_ENABLE_ONEDNN_OPTS": "0"}  # its rounding differs from one version to the next
    done = subprocess.run([python, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_opens(seen: dict[str, Any], shape: Sequence[Any] = (None, 32, 48)) -> None:
    """With the same predictions, and compiled, so that one more step of training changes it by what the rate allows."""
    assert (seen["input"], seen["output"]) == ([*shape, 3], [*shape, 1])
    assert seen["apart"] <= 1.2e-7  # the last bit of a number just below 1
    assert seen["loss"] == "binary_crossentropy" and seen["rate"] == pytest.approx(1e-4)
    assert 0 < seen["changed"] < 1.1e-4  # Adam's first step from no state at all


def test_tensorflow_2_15_opens_it_predicts_the_same_and_trains_on(
    made: tuple[Path, Path], pytestconfig: pytest.Config
) -> None:
    with missing_told(pytestconfig):
        if (
            subprocess.run([KERAS2, "-c", "import tensorflow"], capture_output=True).returncode
            if KERAS2.exists()
            else 1
        ):
            raise ServiceMissing("no environment with Keras 2; ./run_tests --training makes it with Python 3.9 to 3.11")

    seen = json.loads(said(KERAS2, str(HERE / "opens.py"), *map(str, made)))

    assert seen["tensorflow"] == "2.15.1"
    assert_opens(seen)


def test_keras_3_opens_it_too(made: tuple[Path, Path]) -> None:
    seen = json.loads(said(PYTHON, str(HERE / "opens.py"), *map(str, made)))

    assert_opens(seen)


def test_it_says_nothing_that_keras_2_3_does_not_know_and_brings_no_state_of_the_optimizer(
    made: tuple[Path, Path],
) -> None:
    seen = json.loads(said(PYTHON, "-c", SHOW, str(made[0])))

    assert seen["groups"] == ["model_weights"] and seen["all bytes"]
    layers = seen["config"]["config"]["layers"]
    words = {word for layer in layers for word in layer["config"]}
    assert words == {
        "name", "batch_input_shape", "dtype", "sparse", "trainable", "filters", "kernel_size", "strides", "padding",
        "data_format", "dilation_rate", "activation", "use_bias", "kernel_initializer", "bias_initializer", "pool_size",
        "size", "interpolation", "axis",
    }  # fmt: skip
    assert seen["card"] == {"layer": "Text", "loss": None}
    assert made[0].stat().st_size < 6_000_000 and FOLDER.exists()
