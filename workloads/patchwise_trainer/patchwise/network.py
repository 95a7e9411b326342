"""The selectional auto-encoder (Calvo-Zaragoza and Gallego, Pattern Recognition 2019) in its U-shaped form, in Keras 3.

A patch is halved twice, with 32 and 64 filters, passes 256 in the middle, and is doubled twice; each doubled step sees the
one of the same size on the way down. The last convolution goes from 64 filters straight to the one probability. The form
that the platform deployed has two filters with ReLU in between: where both start dead, which two can, no gradient passes
and the model never learns.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

LEARNING_RATE = 1e-4


def build(height: int, width: int) -> Any:
    """A compiled model: patches of height x width x 3 in, height x width x 1 out. Pixels of weight 0 count for nothing."""
    patch = keras.Input((height, width, 3))
    fine = _twice(patch, 32)
    middle = _twice(layers.MaxPooling2D()(fine), 64)
    coarse = _twice(layers.MaxPooling2D()(middle), 256)
    middle = _twice(_joined(coarse, middle, 128), 128)
    fine = _twice(_joined(middle, fine, 64), 64)
    model = keras.Model(patch, layers.Conv2D(1, 1, activation="sigmoid")(fine))
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE), loss="binary_crossentropy", weighted_metrics=["binary_accuracy"]
    )
    return model


def _twice(image: Any, filters: int) -> Any:
    return _convolved(_convolved(image, filters, 3), filters, 3)


def _joined(coarse: Any, fine: Any, filters: int) -> Any:
    return layers.Concatenate()([fine, _convolved(layers.UpSampling2D()(coarse), filters, 2)])


def _convolved(image: Any, filters: int, side: int) -> Any:
    return layers.Conv2D(filters, side, padding="same", activation="relu", kernel_initializer="he_normal")(image)
