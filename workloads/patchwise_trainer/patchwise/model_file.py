"""A model as a file that Keras 2 and Keras 3 open: HDF5 whose model_config is in Keras 2's words, read from 2.3.1 to today.

Written here and not by Keras: Keras 3 writes `batch_shape`, `optional` and its own policies of types into it, which no
Keras 2 understands. It knows the compilation but holds no optimizer's state, so training can go on from it, and the file
is a third as large. Text is stored as bytes, because older readers decode it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

CARD = "model_card"
"""The attribute that says, as JSON, what the model learned from and how well."""
WRITTEN_AS = b"2.15.0"
_CONVOLUTION = (
    "filters",
    "kernel_size",
    "strides",
    "padding",
    "data_format",
    "dilation_rate",
    "activation",
    "use_bias",
)
_WORDS = {
    "InputLayer": (),
    "Conv2D": _CONVOLUTION,
    "MaxPooling2D": ("pool_size", "strides", "padding", "data_format"),
    "UpSampling2D": ("size", "data_format", "interpolation"),
    "Concatenate": ("axis",),
}
"""Of each kind of layer what Keras 2.3.1 already knows; the rest are defaults of later versions."""
UNREADABLE = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, UnicodeDecodeError)
"""What h5py raises on a file that is none, or is damaged, or is something else."""


def save(model: Any, file: Path, card: Mapping[str, Any], learning_rate: float) -> None:
    """Whole or not at all."""
    aside = file.with_name(f"{file.name}.aside")
    with h5py.File(aside, "w") as written:
        written.attrs["model_config"] = _bytes(model_config(model))
        written.attrs["training_config"] = _bytes(_training_config(learning_rate))
        written.attrs[CARD] = _bytes(_without_nan(card))
        _sign(written)
        weights = written.create_group("model_weights")
        _sign(weights)
        weights.attrs["layer_names"] = np.array([layer.name.encode() for layer in model.layers])
        for layer in model.layers:
            _write_layer(weights.create_group(layer.name), layer)
    os.replace(aside, file)


def read_card(file: Path) -> Any:
    with h5py.File(file, "r") as opened:
        return json.loads(opened.attrs[CARD])


def read_weights(file: Path, shapes: Sequence[tuple[int, ...]]) -> list[NDArray[np.float32]]:
    """The weights of a model of this form, in its order. Nothing of the file is run, and nothing else is read: neither
    what its model_config says, nor through a link, nor more than fits. Raises ValueError, or one of UNREADABLE."""
    with h5py.File(file, "r") as opened:
        found = list(_datasets(opened["model_weights"]))
        if [each.shape for each in found] != list(shapes):
            raise ValueError("other shapes")
        weights = [np.asarray(each[()], np.float32) for each in found]
    if not all(np.isfinite(each).all() for each in weights):
        raise ValueError("not finite")
    return weights


def model_config(model: Any) -> dict[str, Any]:
    """In the words of Keras 2.3.1. Raises KeyError for a kind of layer that _WORDS does not have."""
    config = model.get_config()
    layers = [_layer(layer) for layer in config["layers"]]
    ends = {"input_layers": config["input_layers"], "output_layers": config["output_layers"]}
    return {
        "class_name": "Model",
        "config": {"name": "model", "layers": layers, **{name: _list_of(ends[name]) for name in ends}},
    }


def _list_of(nodes: Sequence[Any]) -> list[Any]:
    """Keras 3 gives a single input as `["input", 0, 0]`, Keras 2 as a list of one."""
    return [list(nodes)] if isinstance(nodes[0], str) else [list(node) for node in nodes]


def _layer(layer: Mapping[str, Any]) -> dict[str, Any]:
    kind, config = layer["class_name"], layer["config"]
    words = {"name": layer["name"], "trainable": True, "dtype": "float32"}
    words.update({name: config[name] for name in _WORDS[kind]})
    if kind == "InputLayer":
        words = {"name": layer["name"], "batch_input_shape": config["batch_shape"], "dtype": "float32", "sparse": False}
    if kind == "Conv2D":
        hidden = config["activation"] == "relu"
        words["kernel_initializer"] = "he_normal" if hidden else "glorot_uniform"
        words["bias_initializer"] = "zeros"
    sources = [[name, node, tensor, {}] for name, node, tensor in _histories(layer["inbound_nodes"])]
    return {"name": layer["name"], "class_name": kind, "config": words, "inbound_nodes": [sources] if sources else []}


def _histories(nodes: Any) -> Iterator[tuple[str, int, int]]:
    """Where a layer's inputs come from, wherever they stand among the arguments of its call."""
    if isinstance(nodes, Mapping):
        history = (
            nodes.get("config", {}).get("keras_history") if nodes.get("class_name") == "__keras_tensor__" else None
        )
        if history:
            yield tuple(history)
        else:
            yield from (each for inner in nodes.values() for each in _histories(inner))
    elif isinstance(nodes, (list, tuple)):
        yield from (each for inner in nodes for each in _histories(inner))


def _training_config(learning_rate: float) -> dict[str, Any]:
    adam = {"learning_rate": learning_rate, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False}
    return {
        "optimizer_config": {"class_name": "Adam", "config": adam},
        "loss": "binary_crossentropy", "metrics": None, "weighted_metrics": ["binary_accuracy"],
        "sample_weight_mode": None, "loss_weights": None,
    }  # fmt: skip


def _write_layer(group: Any, layer: Any) -> None:
    weights = layer.get_weights()
    names = [f"{layer.name}/{kind}:0" for kind in ("kernel", "bias")[: len(weights)]]
    group.attrs["weight_names"] = np.array([name.encode() for name in names], "S")
    for name, weight in zip(names, weights):
        group.create_dataset(name, data=np.asarray(weight, np.float32))


def _sign(group: Any) -> None:
    group.attrs["backend"], group.attrs["keras_version"] = np.bytes_(b"tensorflow"), np.bytes_(WRITTEN_AS)


def _datasets(weights: Any) -> Iterator[Any]:
    for layer in map(_text, weights.attrs["layer_names"]):
        for name in map(_text, weights[layer].attrs["weight_names"]):
            dataset = weights[layer][name]
            if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
                raise ValueError("no plain weights")
            yield dataset


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _without_nan(value: Any) -> Any:
    """JSON has no word for a number that is none."""
    if isinstance(value, Mapping):
        return {name: _without_nan(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _bytes(value: Mapping[str, Any]) -> Any:
    return np.bytes_(json.dumps(value).encode())
