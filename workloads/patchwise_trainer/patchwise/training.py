"""Trains one model for one label, and measures it on patches that it never saw. Its best state so far is always on disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import keras
import numpy as np

from .job import BATCH, Label
from .model_file import UNREADABLE, read_weights, save
from .network import LEARNING_RATE, build
from .sampling import Batch, Samples

PATIENCE = 3
"""Epochs without a lower validation loss after which training ends. Not the accuracy: of a layer that is a hundredth of the
page a model that never finds it has an accuracy of 0.99."""
_ALMOST = 1e-7
"""Keeps the logarithm of a probability finite, as Keras does."""


class Stopped(Exception):
    """Somebody asked us to end, between two batches."""


@dataclass(frozen=True)
class Epoch:
    number: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


@dataclass(frozen=True)
class Measured:
    """On the held-out patches, pixel by pixel, at a probability of one half. None where there is nothing to divide by."""

    loss: float
    accuracy: float
    precision: Optional[float]
    recall: Optional[float]
    f1: Optional[float]
    share: float
    """Of the pixels that were measured, those that belong to the layer."""


class Patches(keras.utils.PyDataset):  # type: ignore[misc,unused-ignore]
    """Batches for Keras, cut when they are asked for; in another order in each epoch where there is a `seed`."""

    def __init__(self, samples: Samples, seed: Optional[tuple[int, ...]] = None) -> None:
        super().__init__()
        self._samples = samples
        self._order = np.arange(len(samples))
        self._random = None if seed is None else np.random.default_rng(seed)

    def __len__(self) -> int:
        return -(-len(self._samples) // BATCH)

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        batch = self.batch(index)
        return batch.image, batch.layer, batch.known

    def batch(self, index: int) -> Batch:
        return self._samples.cut(self._order[index * BATCH : (index + 1) * BATCH])

    def on_epoch_end(self) -> None:
        if self._random is not None:
            self._random.shuffle(self._order)


class Watch(keras.callbacks.Callback):  # type: ignore[misc,unused-ignore]
    """After each epoch: tells it, keeps the model if it is the best so far, ends when it no longer gains."""

    def __init__(
        self, keep: Callable[[Any, Epoch], None], tell: Callable[[Epoch], None], stop_asked: Callable[[], bool]
    ):
        super().__init__()
        self._keep, self._tell, self._stop_asked = keep, tell, stop_asked
        self._lowest_loss, self._begun = math.inf, 0.0
        self.epochs: list[Epoch] = []
        self.best_epoch = 0
        self.best_weights: list[Any] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begun = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._stop_asked():
            raise Stopped

    on_test_batch_end = on_train_batch_end

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        loss, accuracy, validation_loss, validation_accuracy = (
            float(logs[name]) for name in ("loss", "binary_accuracy", "val_loss", "val_binary_accuracy")
        )
        seconds = time.monotonic() - self._begun
        done = Epoch(epoch + 1, loss, accuracy, validation_loss, validation_accuracy, seconds)
        self.epochs.append(done)
        if (
            done.validation_loss < self._lowest_loss or not self.best_epoch
        ):  # the first one also where its loss is no number
            self._lowest_loss = done.validation_loss if math.isfinite(done.validation_loss) else math.inf
            self.best_epoch, self.best_weights = done.number, self.model.get_weights()
            self._keep(self.model, done)
        self._tell(done)
        if done.number - self.best_epoch >= PATIENCE:
            self.model.stop_training = True


@dataclass(frozen=True)
class Trained:
    model: Any
    """In its best state."""
    epochs: list[Epoch]
    best_epoch: int
    measured: Measured


def starts(labels: Sequence[Label], patch: tuple[int, int]) -> list[Optional[list[Any]]]:
    """For each label the weights that it goes on from, if it has any. Raises SystemExit with a sentence before anything is
    trained."""
    if not any(label.start_file for label in labels):
        return [None] * len(labels)
    shapes = [tuple(weight.shape) for weight in build(*patch).weights]
    return [_start(label, shapes) for label in labels]


def _start(label: Label, shapes: Sequence[tuple[int, ...]]) -> Optional[list[Any]]:
    if label.start_file is None:
        return None
    try:
        return read_weights(label.start_file, shapes)
    except UNREADABLE as reason:
        raise SystemExit(
            f'The input "{label.model}" is not a model that training can go on from: it must be one that was made here, whole.'
        ) from reason


def train(
    learn: Samples, held_out: Samples, seed: tuple[int, ...], epochs: int, file: Path, card: Mapping[str, Any],
    tell: Callable[[Epoch], None], stop_asked: Callable[[], bool], begin_with: Optional[list[Any]] = None,
) -> Trained:  # fmt: skip
    """Raises Stopped; then `file` holds the best model if an epoch was completed. `card`: what the file says of itself.
    `begin_with`: weights to go on from."""
    keras.utils.set_random_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    model = build(*learn.canvas.patch)
    if begin_with is not None:
        model.set_weights(begin_with)

    def keep(model: Any, epoch: Epoch) -> None:
        save(model, file, {**card, "best_epoch": asdict(epoch)}, LEARNING_RATE)

    watch = Watch(keep, tell, stop_asked)
    model.fit(
        Patches(learn, seed),
        validation_data=Patches(held_out),
        epochs=epochs,
        verbose=0,
        callbacks=[watch],
        shuffle=False,
    )
    model.set_weights(watch.best_weights)
    measured = measure(model, Patches(held_out), stop_asked)
    best = watch.epochs[watch.best_epoch - 1]
    save(model, file, {**card, "best_epoch": asdict(best), "held_out": asdict(measured)}, LEARNING_RATE)
    return Trained(model, watch.epochs, watch.best_epoch, measured)


def measure(model: Any, patches: Patches, stop_asked: Callable[[], bool]) -> Measured:
    """From counts over all pixels whose layer is known."""
    hits = false_alarms = misses = known = 0
    loss = 0.0
    for batch in _batches(patches, stop_asked):
        probability = np.asarray(keras.ops.convert_to_numpy(model(batch.image, training=False)))[..., 0]
        counts, true = batch.known > 0, batch.layer[..., 0] > 0
        found = probability > 0.5
        hits += int((found & true & counts).sum())
        false_alarms += int((found & ~true & counts).sum())
        misses += int((~found & true & counts).sum())
        known += int(counts.sum())
        of_truth = np.clip(np.where(true, probability, 1 - probability), _ALMOST, 1)
        loss -= float(np.log(of_truth, dtype=np.float64)[counts].sum())
    return Measured(
        loss=loss / known,
        accuracy=1 - (false_alarms + misses) / known,
        precision=_share(hits, hits + false_alarms),
        recall=_share(hits, hits + misses),
        f1=_share(2 * hits, 2 * hits + false_alarms + misses),
        share=(hits + misses) / known,
    )


def _batches(patches: Patches, stop_asked: Callable[[], bool]) -> Iterator[Batch]:
    for index in range(len(patches)):
        if stop_asked():
            raise Stopped
        yield patches.batch(index)


def _share(part: int, whole: int) -> Optional[float]:
    return part / whole if whole else None
