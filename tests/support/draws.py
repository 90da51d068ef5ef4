"""Draws in every mode of TensorFlow."""

import numpy as np
import tensorflow as tf

COUNTERS = np.arange(5)


def in_modes(function, counters=COUNTERS):
    """What `function` of a counter gives for each, in eager mode, in a graph and under XLA."""

    def values(f):
        return np.stack([np.asarray(f(tf.constant(c, tf.int32))) for c in counters])

    graphs = [tf.function(function, jit_compile=xla) for xla in (False, True)]
    found = [values(f) for f in (function, *graphs)]
    assert [g.experimental_get_tracing_count() for g in graphs] == [1, 1]
    return found
