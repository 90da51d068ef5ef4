"""Permutations: the same in every mode, every index once, and all orders alike."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from rlweights.learning.shuffling import permutation
from support.draws import in_modes


@pytest.mark.parametrize("size", [1, 2, 3, 64, 100])
def test_permutations_are_the_same_in_every_mode(size):
    eager, graph, xla = in_modes(lambda counter: permutation(size, 3, "stream", counter))
    np.testing.assert_array_equal(graph, eager)
    np.testing.assert_array_equal(xla, eager)


def test_the_order_of_today_is_that_of_a_resume():
    np.testing.assert_array_equal(permutation(8, 1, "minibatches", 2), [3, 7, 0, 4, 1, 5, 6, 2])


@given(st.integers(1, 3000), st.integers(0, 2**31 - 1), st.integers(0, 10**6))
def test_a_permutation_has_every_index_once(size, seed, counter):
    found = np.asarray(permutation(size, seed, "shuffle", counter))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(np.sort(found), np.arange(size))


def permutations(size: int, count: int) -> np.ndarray:
    draw = tf.function(lambda counter: permutation(size, 0, "statistics", counter))
    return np.stack([draw(tf.constant(c, tf.int32)) for c in range(count)])


@pytest.mark.parametrize("size", [64, 100])
def test_every_index_comes_to_every_place(size):
    """Chi-squared over all pairs of index and place."""
    found = permutations(size, 4000)
    counts = np.zeros((size, size))
    np.add.at(counts, (np.broadcast_to(np.arange(size), found.shape), found), 1)
    expected = len(found) / size
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    degrees = (size - 1) ** 2
    assert abs(chi_squared - degrees) < 6 * (2 * degrees) ** 0.5


def test_neighbours_are_torn_apart():
    """The index that follows i is i + 1 as often as in any shuffle: once in a permutation, on average."""
    found = permutations(128, 2000)
    assert np.mean(np.sum(np.diff(found, axis=1) == 1, axis=1)) == pytest.approx(127 / 128, abs=0.2)
    orders = np.argsort(found[:, :3], axis=1)
    shares = [np.mean((orders == order).all(axis=1)) for order in [(0, 1, 2), (2, 1, 0), (1, 0, 2)]]
    np.testing.assert_allclose(shares, 1 / 6, atol=0.04)
