"""The words of TensorFlow's Philox, from the operations that every backend has."""

import numpy as np
import pytest
import tensorflow as tf

from rlweights.weights import philox


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 1024)])
def test_words_are_those_of_tensorflow(shape):
    words = tf.function(lambda seed: philox.words(shape, seed), jit_compile=True)
    for seed in ([0, 0], [1, 2], [-7, 3], [2**31 - 1, -(2**31)], [123456789, 987654321]):
        key = tf.constant(seed, tf.int32)
        theirs = tf.random.stateless_uniform(shape, key, None, None, dtype=tf.uint32, alg="philox")
        np.testing.assert_array_equal(words(key).numpy().view(np.uint32), theirs.numpy())
    np.testing.assert_array_equal(philox.words(shape, key), words(key))  # eagerly


def test_words_of_no_shape_at_all():
    assert philox.words((0, 3), tf.constant([1, 2])).shape == (0, 3)
