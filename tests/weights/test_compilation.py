"""The one place where graphs are traced: once for its specs, and scalars leave as one vector."""

import numpy as np
import pytest
import tensorflow as tf

from rlweights.weights.compilation import TaggedScalars, compiled


@pytest.mark.parametrize("xla", [False, True])
def test_a_function_is_traced_once_and_before_it_is_called(xla):
    traces = []

    def double(x):
        traces.append(x)
        return 2.0 * x

    program = compiled(double, tf.TensorSpec([3], tf.float32), xla=xla)
    assert len(traces) == 1
    for value in (1.0, 2.0):
        np.testing.assert_array_equal(program(tf.fill([3], value)), np.full(3, 2 * value, np.float32))
    assert len(traces) == 1


def test_scalars_leave_as_one_vector_and_get_their_tags_back():
    tagged = TaggedScalars()
    program = compiled(lambda x: tagged.packed({"b": x, "a": 3 * x}), tf.TensorSpec([], tf.int32), xla=False)
    values = program(tf.constant(2)).numpy()
    assert values.dtype == np.float32
    assert tagged.unpacked(values) == {"b": 2.0, "a": 6.0}
    assert tagged.unpacked(np.array([1.0, 2.0, 99.0])) == {"b": 1.0, "a": 2.0}, "only the first K count"
