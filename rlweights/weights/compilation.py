"""The one place where TensorFlow traces a graph, and how scalars leave it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from rlweights.weights.backend import as_written


def compiled(function: Callable, *specs: Any, xla: bool = True) -> Any:
    """Traces a function once for the given specs and returns it as a concrete function.

    Called before training starts, and for fixed shapes: a concrete function costs half of what a call through
    `tf.function` does.
    """
    traced = tf.function(as_written(function), jit_compile=xla, autograph=False)
    return traced.get_concrete_function(*specs)


class TaggedScalars:
    """Scalars that leave a compiled program as one vector, while their tags stay in Python.

    Each tensor that crosses the border costs more than what is computed from it.

    Args:
        optional: How tags begin that may have no value.
    """

    def __init__(self, optional: tuple[str, ...] = ()) -> None:
        self._tags: list[str] = []
        self._optional = optional

    def packed(self, scalars: Mapping[str, Any]) -> Any:
        """Returns the values of scalars as one float32 vector [K], and remembers their tags; in the trace."""
        self._tags = list(scalars)
        return tf.stack([tf.cast(scalars[tag], tf.float32) for tag in self._tags])

    def unpacked(self, values: np.ndarray) -> dict[str, float]:
        """Returns the scalars of a vector [K, ...], of which the first K entries count.

        What begins with `optional` has no value where it is NaN, and is left out then.
        """
        pairs = zip(self._tags, values.tolist(), strict=False)
        return {tag: x for tag, x in pairs if x == x or not tag.startswith(self._optional)}
