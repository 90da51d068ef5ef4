"""Small Keras models and compiled steps, for tests of the optimizer wrapper."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

MODES = ("eager", "graph", "xla")
STYLES = ("functional", "sequential", "subclassed")


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """A model without a graph of its own, which is built by its first call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(4, "relu", name="hidden")
        self.head = keras.layers.Dense(2, name="head")

    def call(self, x):
        return self.head(self.hidden(x))


def small_model(style: str = "functional", seed: int = 0, **layer: Any) -> Any:
    """Three inputs, four hidden units, two outputs: the layers "hidden" and "head"."""
    keras.utils.set_random_seed(seed)
    if style == "subclassed":
        return Subclassed(name="net")
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, "relu", name="hidden", **layer)
    head = keras.layers.Dense(2, name="head", **layer)
    if style == "sequential":
        return keras.Sequential([inputs, hidden, head], name="net")
    return keras.Model(inputs, head(hidden(inputs)), name="net")


def data(size: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [size, 3] and targets [size, 2]."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(size, 3)).astype("float32"), rng.normal(size=(size, 2)).astype("float32")


def in_mode(function: Callable, mode: str) -> Any:
    """The function as it is, in a graph, or compiled by XLA."""
    return function if mode == "eager" else tf.function(function, jit_compile=mode == "xla")


def train_step(model: Any, optimizer: Any, mode: str = "graph") -> Any:
    """A step of one's own that returns the loss; the optimizer is built beforehand."""
    if not optimizer.built:
        optimizer.build(model.trainable_variables)

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    return in_mode(step, mode)


def weights(model: Any) -> dict[str, np.ndarray]:
    """The weights as they are, by path."""
    return {v.path: v.numpy().copy() for v in model.trainable_variables}


def state(optimizer: Any) -> list[np.ndarray]:
    """Everything that the optimizer remembers, in its order."""
    return [v.numpy().copy() for v in optimizer.variables]


def assert_same(a: Any, b: Any) -> None:
    """Asserts that two nests of arrays are equal bit for bit."""
    keras.tree.assert_same_structure(a, b)
    for path, value in keras.tree.flatten_with_path(a):
        other = b
        for key in path:
            other = other[key]
        np.testing.assert_array_equal(value, other, err_msg=str(path), strict=True)
