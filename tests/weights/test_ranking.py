"""Ranking without sorting, against NumPy's sort: counts are exact, ties go to the first entries."""

import numpy as np
import pytest
from keras import ops

from rlweights.weights.ranking import largest, largest_in_groups, largest_of_all


@pytest.mark.parametrize("count", [0, 1, 17, 59, 60])
def test_largest_is_what_a_stable_sort_takes(count):
    rng = np.random.default_rng(0)
    for scores in (rng.exponential(size=(5, 12)) * 1e-20, rng.integers(0, 4, (5, 12)), np.zeros((5, 12))):
        scores = scores.astype(np.float32)
        expected = np.zeros(60, bool)
        expected[np.argsort(-scores.ravel(), kind="stable")[:count]] = True
        found = ops.convert_to_numpy(largest(ops.convert_to_tensor(scores), ops.convert_to_tensor(count)))
        np.testing.assert_array_equal(found, expected.reshape(5, 12))


def test_a_negative_zero_is_a_zero():
    found = largest(ops.array([-0.0, 1.0]), ops.array(1))
    assert ops.convert_to_numpy(found).tolist() == [False, True]


def test_one_threshold_for_several_tensors():
    one, other = largest_of_all([ops.array([[1.0, 5.0]]), ops.array([4.0, 2.0, 3.0])], ops.array(3))
    assert ops.convert_to_numpy(one).tolist() == [[False, True]]
    assert ops.convert_to_numpy(other).tolist() == [True, False, True]


def test_largest_in_groups_of_neighbours():
    scores = ops.array([[1.0, 4.0, 4.0, 2.0, 0.0, 0.0, 0.0, 9.0]])
    found = ops.convert_to_numpy(largest_in_groups(scores, 2, 4)).astype(int)
    assert found.tolist() == [[0, 1, 1, 0, 1, 0, 0, 1]]
