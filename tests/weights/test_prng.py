"""Draws: the same bits in eager mode, in a graph and under XLA; their distributions; their independence."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rlweights.weights import prng

COUNTERS = np.arange(5)


def in_modes(function, counters=COUNTERS):
    """What `function` of a counter gives for each, in eager mode, in a graph and under XLA."""

    def values(f):
        return np.stack([np.asarray(f(tf.constant(c, tf.int32))) for c in counters])

    graphs = [tf.function(function, jit_compile=xla) for xla in (False, True)]
    found = [values(f) for f in (function, *graphs)]
    assert [g.experimental_get_tracing_count() for g in graphs] == [1, 1]
    return found


@pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (3, 5), (2, 3, 4)])
def test_uniform_draws_are_the_same_bits_in_every_mode(shape):
    eager, graph, xla = in_modes(lambda counter: prng.uniform(shape, 3, "stream", counter, -2.0, 5.0))
    assert eager.shape == (5, *shape)
    assert eager.dtype == np.float32
    np.testing.assert_array_equal(graph, eager)
    np.testing.assert_allclose(xla, eager, rtol=0, atol=1e-6)  # one rounding where XLA fuses scale and shift


def test_unit_draws_are_the_same_bits_in_every_mode():
    eager, graph, xla = in_modes(lambda counter: prng.uniform([100], 3, "stream", counter))
    np.testing.assert_array_equal(graph, eager)
    np.testing.assert_array_equal(xla, eager)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (3, 5)])
def test_normal_draws_are_the_same_in_every_mode_to_a_rounding(shape):
    eager, graph, xla = in_modes(lambda counter: prng.normal(shape, 3, "stream", counter))
    assert eager.shape == (5, *shape)
    np.testing.assert_allclose(graph, eager, rtol=0, atol=2e-6)
    np.testing.assert_allclose(xla, eager, rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 64, 100])
def test_permutations_are_the_same_in_every_mode(size):
    eager, graph, xla = in_modes(lambda counter: prng.permutation(size, 3, "stream", counter))
    np.testing.assert_array_equal(graph, eager)
    np.testing.assert_array_equal(xla, eager)


def test_the_numbers_of_today_are_those_of_a_resume():
    """A run that is resumed with a later version must go on with the same draws."""
    np.testing.assert_array_equal(prng.permutation(8, 1, "minibatches", 2), [3, 7, 0, 4, 1, 5, 6, 2])
    uniform, normal = [0.42771542, 0.51089448, 0.61732811], [-0.78220361, -1.03917289, -0.71020800]
    np.testing.assert_allclose(prng.uniform([3], 1, "minibatches", 2), uniform, rtol=1e-7)
    np.testing.assert_allclose(prng.normal([3], 1, "minibatches", 2), normal, rtol=1e-6)


# Distributions ------------------------------------------------------------------------------------------


@functools.cache
def sample(kind: str) -> np.ndarray:
    """200,000 draws: of 200 counters, 1,000 each."""
    draw = tf.function(lambda counter: getattr(prng, kind)([1000], 0, "statistics", counter))
    return np.stack([draw(tf.constant(c, tf.int32)) for c in range(200)]).astype(float)


@pytest.mark.parametrize(("kind", "distribution"), [("uniform", stats.uniform), ("normal", stats.norm)])
def test_distributions(kind, distribution):
    assert stats.kstest(sample(kind).ravel(), distribution.cdf).pvalue > 0.001
    moments = [np.mean(sample(kind) ** k) for k in range(1, 5)]
    expected = [distribution.moment(k) for k in range(1, 5)]
    np.testing.assert_allclose(moments, expected, atol=0.03)


def test_bounds():
    assert sample("uniform").min() >= 0.0
    assert sample("uniform").max() < 1.0
    shifted = np.asarray(prng.uniform([10_000], 0, "bounds", 0, low=-3.0, high=-1.0))
    assert -3.0 <= shifted.min() < -2.99
    assert -1.01 < shifted.max() < -1.0


def test_normal_tails_are_finite_and_there():
    assert np.isfinite(sample("normal")).all()
    assert 4.0 < np.abs(sample("normal")).max() < 6.5


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_entries_and_counters_are_independent(kind):
    standard = (sample(kind) - sample(kind).mean()) / sample(kind).std()
    for lag in (1, 2, 7, 500):  # the halves of a normal draw are the two sides of Box and Muller's transform
        assert abs(np.mean(standard[:, :-lag] * standard[:, lag:])) < 0.015
        sizes = np.abs(standard) - np.abs(standard).mean()
        assert abs(np.mean(sizes[:, :-lag] * sizes[:, lag:])) < 0.015
    assert abs(np.mean(standard[:-1] * standard[1:])) < 0.015


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_seeds_streams_and_counters_give_independent_draws(kind):
    draw = getattr(prng, kind)
    keys = [(s, stream, c) for s in (0, 1, 2**31 - 1) for stream in ("", "a", "b", "aa") for c in (0, 1, 2)]
    found = np.stack([draw([4000], *key) for key in keys])
    correlations = np.corrcoef(found) - np.eye(len(keys))
    assert np.abs(correlations).max() < 0.08  # five standard deviations
    np.testing.assert_array_equal(draw([4000], *keys[5]), found[5])


def test_seed_and_counter_may_be_tensors():
    expected = prng.uniform([5], 7, "stream", 11)
    for kind in (tf.int32, tf.int64):
        np.testing.assert_array_equal(
            prng.uniform([5], tf.constant(7, kind), "stream", tf.constant(11, kind)), expected
        )


# Permutations -------------------------------------------------------------------------------------------


@given(st.integers(1, 3000), st.integers(0, 2**31 - 1), st.integers(0, 10**6))
def test_a_permutation_has_every_index_once(size, seed, counter):
    found = np.asarray(prng.permutation(size, seed, "shuffle", counter))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(np.sort(found), np.arange(size))


def permutations(size: int, count: int) -> np.ndarray:
    draw = tf.function(lambda counter: prng.permutation(size, 0, "statistics", counter))
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
