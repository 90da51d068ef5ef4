"""Tables that networks look indices up in, where a one-hot vector would be too long."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from rlweights.weights.arrays import Array, Tensor

WIDTH = 32
"""Numbers that a table holds for each value of an index."""


@keras.saving.register_keras_serializable(package="rlweights")
class Table(keras.layers.Layer):
    """Looks up K indices in one table of trained numbers, each in rows of its own.

    What a dense layer would make of one-hot vectors, without the vectors. The initial numbers are uniform on
    [-1, 1], the scale of what dense layers take.

    Args:
        counts: How many values each of the K indices has.
        seed: Seed of the initial numbers.
        **kwargs: See `keras.layers.Layer`.
    """

    def __init__(self, counts: Sequence[int], seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.counts = tuple(int(n) for n in counts)
        self.seed = seed
        self.firsts: Array = np.cumsum([0, *self.counts[:-1]]).astype(np.int32)
        self.embeddings: Any = None

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Makes the table."""
        self.embeddings = self.add_weight(
            shape=(sum(self.counts), WIDTH),
            initializer=keras.initializers.RandomUniform(-1.0, 1.0, seed=self.seed),
            name="embeddings",
        )
        self.built = True

    def call(self, indices: Tensor) -> Tensor:
        """Returns the numbers [B, K * WIDTH] of indices [B, K], float32."""
        table = tf.convert_to_tensor(self.embeddings.value)  # Keras' own function returns the variable
        rows = _looked_up(table, ops.cast(indices, "int32") + self.firsts)
        return ops.reshape(rows, (-1, len(self.counts) * WIDTH))

    def looked_up(self, table: Array, indices: Array) -> Array:
        """Returns what `call` does, in NumPy, for a snapshot of the table."""
        return table[indices.astype(np.int32) + self.firsts].reshape(len(indices), -1)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"counts": self.counts, "seed": self.seed}


@tf.custom_gradient
def _looked_up(table: Tensor, places: Tensor) -> Any:
    """Rows of a table; their gradient is dense, as that of every other weight: rules and norms read it so."""

    def gradient(upstream: Tensor) -> tuple[Tensor, None]:
        flat = tf.reshape(upstream, [-1, table.shape[1]])
        return tf.math.unsorted_segment_sum(flat, tf.reshape(places, [-1]), table.shape[0]), None

    return tf.gather(table, places), gradient
