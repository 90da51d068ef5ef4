"""Noise: its distribution, its scale, its streams; and how adaptive noise finds its size."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

import rlweights as rw
from support.dense import applied, arrays, assert_equal, built, model, step


def drawn(rule: rw.Intervention, shape=(50, 40), at: int = 7) -> np.ndarray:
    return np.asarray(rule.delta(ops.zeros(shape), at))


@pytest.mark.parametrize("kind", ["gaussian", "factorised"])
def test_noise_scales_with_its_stddev(kind):
    one, three = (drawn(rw.Noise(s, kind=kind)) for s in (1.0, 3.0))
    np.testing.assert_allclose(three, 3.0 * one, rtol=1e-6)


def test_gaussian_noise_is_gaussian():
    noise = drawn(rw.Noise(0.5), (200, 200))
    assert noise.mean() == pytest.approx(0.0, abs=0.01)
    assert noise.std() == pytest.approx(0.5, rel=0.01)
    assert (np.abs(noise) < 0.5).mean() == pytest.approx(0.6827, abs=0.01)


def test_factorised_noise_is_an_outer_product():
    """f(x) f(y) with f(x) = sign(x) sqrt|x|: rank 1, and the variance is (E|x|)^2 = 2 / pi."""
    assert np.linalg.matrix_rank(drawn(rw.Noise(1.0, kind="factorised"), (6, 5)), tol=1e-5) == 1
    convolution = drawn(rw.Noise(1.0, kind="factorised"), (3, 2, 4, 5))
    assert np.linalg.matrix_rank(convolution.reshape(24, 5), tol=1e-5) == 1
    many = np.stack([drawn(rw.Noise(1.0, kind="factorised", seed=s), (30, 30)) for s in range(40)])
    assert many.var() == pytest.approx(2 / np.pi, rel=0.1)
    assert abs(np.corrcoef(many.ravel(), many.swapaxes(1, 2).ravel())[0, 1]) < 0.1  # x is not y
    bias = drawn(rw.Noise(1.0, kind="factorised"), (4000,))
    assert (np.sign(bias) * bias**2).std() == pytest.approx(1.0, rel=0.05)  # f undone


def test_noise_is_fresh_at_each_step_and_the_same_for_the_same_seed():
    def walk(seed, steps):
        network = model(8)
        applied(rw.Noise(0.1, placement="after_step", seed=seed), network, steps)
        return arrays(network)

    start, once, twice = arrays(model(8)), walk(3, 1), walk(3, 2)
    assert_equal(once, walk(3, 1))
    first, second = once[0] - start[0], twice[0] - once[0]
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.6
    assert not np.allclose(once[0], walk(4, 1)[0])


def test_weights_and_rules_have_streams_of_their_own():
    network = keras.Sequential([keras.Input((30,))], name="twins")
    for name in ("a", "b"):
        network.add(keras.layers.Dense(30, use_bias=False, kernel_initializer="zeros", name=name))
    applied(rw.Noise(1.0, placement="after_step"), network)
    noises = [*arrays(network)]
    for variable in network.trainable_variables:
        variable.assign(ops.zeros_like(variable))
    applied(rw.Noise(1.0, placement="after_step", name="another"), network)
    noises += arrays(network)
    correlations = np.corrcoef([n.ravel() for n in noises]) - np.eye(4)
    assert np.abs(correlations).max() < 0.15  # five standard deviations for 900 pairs


def test_noise_reports_the_stddev_it_used():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.25, 0.5])
    network = model(4)
    optimizer = built([rw.Noise(schedule, placement="after_step")], network)
    step(optimizer, network)
    assert float(optimizer.metrics()["noise/stddev"]) == 0.25
    step(optimizer, network)
    assert float(optimizer.metrics()["noise/stddev"]) == 0.5


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"`kind` takes 'gaussian' or 'factorised'\. Received: 'uniform'"):
        rw.Noise(0.1, kind="uniform")


# Adaptive noise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distance", "factor"), [(0.001, 1.01), (0.01, 1.01), (1.0, 1 / 1.01), (float("nan"), 1.0)]
)
def test_adaptive_noise_moves_by_one_percent_towards_its_target(distance, factor):
    network = model(8)
    optimizer = built([rw.AdaptiveNoise(0.01, 0.2)], network)
    optimizer.begin_iteration()
    optimizer.end_iteration()
    optimizer.feedback["policy_distance"] = distance
    optimizer.begin_iteration()
    found = {name.removeprefix("adaptive_noise/"): float(v) for name, v in optimizer.metrics().items()}
    assert found["stddev"] == pytest.approx(0.2 * factor, rel=1e-5)
    assert found["target"] == pytest.approx(0.01)
    assert found["distance"] == pytest.approx(np.nan_to_num(distance))


def test_adaptive_noise_holds_a_distance():
    """If the distance is proportional to the noise, here 2 stddev, the noise ends where it is the target."""
    network = model(3)
    optimizer = built([rw.AdaptiveNoise(0.1, 0.2, coefficient=1.1, distance="gap")], network)
    for _ in range(60):
        optimizer.begin_iteration()
        optimizer.feedback["gap"] = 2.0 * float(optimizer.metrics()["adaptive_noise/stddev"])
        optimizer.end_iteration()
    assert float(optimizer.metrics()["adaptive_noise/stddev"]) == pytest.approx(0.05, rel=0.1)


def test_a_coefficient_that_does_not_adapt_is_refused():
    with pytest.raises(ValueError, match=r"`coefficient` must be above 1\. Received: 1\.0"):
        rw.AdaptiveNoise(coefficient=1.0)


class Uniform(rw.Intervention):
    """Replaces each weight by a uniform draw."""

    def update(self, weight, step):
        return self.uniform(weight, step, low=-0.25, high=0.75)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_uniform_draws_fill_their_interval_in_the_dtype_of_the_weight(dtype):
    weight = keras.Variable(np.zeros((100, 100)), dtype=dtype, name="kernel")
    draw = Uniform().update(weight, 0)
    assert keras.backend.standardize_dtype(draw.dtype) == dtype
    values = np.asarray(keras.ops.cast(draw, "float64")).ravel()
    assert -0.25 <= values.min() < -0.24
    assert 0.74 < values.max() <= 0.75
    np.testing.assert_allclose([values.mean(), values.std()], [0.25, 12**-0.5], atol=0.01)


def test_uniform_draws_are_fresh_at_each_step_and_independent_of_normal_ones():
    class Both(rw.Intervention):
        def update(self, weight, step):
            return weight

    weight, rule = keras.Variable(np.zeros(10_000), name="kernel"), Both()
    a, b = (np.asarray(rule.uniform(weight, step)) for step in (0, 1))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.05
    np.testing.assert_array_equal(a, rule.uniform(weight, 0))
    assert abs(np.corrcoef(a, np.asarray(rule.uniform(weight, 0, stream="other")))[0, 1]) < 0.05


def test_a_rule_of_uniform_draws_passes_the_battery():
    rw.testing.check(Uniform())


def test_the_default_of_target():
    assert inspect.signature(rw.AdaptiveNoise).parameters["target"].default == 0.01
