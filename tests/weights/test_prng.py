"""Draws: the same bits in eager mode, in a graph and under XLA; their distributions; their independence."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from rlweights.weights import prng
from support.draws import in_modes


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


def test_the_numbers_of_today_are_those_of_a_resume():
    """A run that is resumed with a later version must go on with the same draws."""
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
