"""What differs between the backends of Keras, for the rules; nothing else asks which one it is."""

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from rlweights.weights import keras_internals
from rlweights.weights.arrays import Variable

as_written = tf.autograph.experimental.do_not_convert
"""Decorates what is plain Python in every mode: AutoGraph would read it differently in a graph."""


@contextlib.contextmanager
def building(optimizer: Any) -> Iterator[None]:
    """Holds where an optimizer's state is created: outside of graphs, on all devices of its strategy.

    Raises:
        ValueError: If the optimizer was made outside of the scope of the strategy.
    """
    strategy = keras_internals.strategy_of(optimizer)
    with tf.init_scope():  # Keras may call this while it traces the first step
        if tf.distribute.has_strategy() and tf.distribute.get_strategy() is not strategy:
            raise ValueError(
                f"{optimizer.name} was made outside of the scope of the strategy: make it and its inner "
                f"optimizer in `with strategy.scope():`, where the model is made"
            )
        with strategy.scope():
            yield


def replicas(optimizer: Any) -> int:
    """Returns on how many devices of a `tf.distribute` strategy an optimizer acts at once."""
    return keras_internals.strategy_of(optimizer).num_replicas_in_sync


def has_value(variable: Variable) -> bool:
    """Returns whether a variable has been initialized; outside of graphs."""
    return bool(variable.value.is_initialized())
