"""Running statistics against NumPy's over everything seen; what does not count changes nothing."""

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlweights.learning.normalization import ObservationNormalization, RewardScaling


def state(layer):
    return [v.numpy().copy() for v in layer.variables]


def all_equal(a, b):
    return all((x == y).all() for x, y in zip(a, b, strict=True))


@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=5),
    st.integers(0, 2**31 - 1),
    st.sampled_from([(0.0, 1.0), (1000.0, 0.5), (-3.0, 50.0)]),
)
@settings(deadline=None, max_examples=25)
def test_statistics_equal_numpy_over_all_batches(sizes, seed, moments):
    rng = np.random.default_rng(seed)
    layer = ObservationNormalization((2,))
    seen = []
    for size in sizes:
        batch = rng.normal(*moments, size=(size, 2)).astype(np.float32)
        mask = (rng.random(size) < 0.8).astype(np.float32)
        layer.update(batch, mask)
        seen.append(batch[mask > 0])
    counted = np.concatenate(seen).astype(np.float64)
    assert float(layer.count) == len(counted)
    if len(counted):
        np.testing.assert_allclose(layer.mean.numpy(), counted.mean(0), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(layer.variance.numpy(), counted.var(0), rtol=2e-3, atol=1e-4)


def test_normalised_observations_by_hand():
    layer = ObservationNormalization((1,), limit=1.2)
    layer.update(np.array([[1.0], [3.0], [5.0], [7.0]], np.float32), np.ones(4, np.float32))
    found = np.array(layer(np.array([[4.0], [5.0], [40.0], [-40.0]], np.float32)))
    np.testing.assert_allclose(found[:, 0], [0.0, 1.0 / 5.0**0.5, 1.2, -1.2], rtol=1e-6)


def test_calling_changes_nothing():
    layer = ObservationNormalization((2,))
    layer.update(np.ones((3, 2), np.float32), np.ones(3, np.float32))
    before = state(layer)
    layer(np.full((5, 2), 9.0, np.float32), training=True)
    assert all_equal(before, state(layer))
    assert not layer.trainable_variables


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_or_masked_does_not_count(bad):
    good = np.array([[1.0, 2.0], [3.0, 5.0]], np.float32)
    layer, plain = ObservationNormalization((2,)), ObservationNormalization((2,))
    plain.update(good, np.ones(2, np.float32))
    batch = np.array([*good, [bad, 0.0], [50.0, 50.0]], np.float32)
    layer.update(batch, np.array([1.0, 1.0, 1.0, 0.0], np.float32))
    assert all_equal(state(layer), state(plain))
    before = state(layer)
    layer.update(batch, np.zeros(4, np.float32))
    assert all_equal(before, state(layer)), "a batch without a valid sample counts for nothing"


def test_images_have_statistics_per_pixel():
    layer = ObservationNormalization((2, 2, 1))
    pixels = np.array([0, 255, 10, 20, 0, 255, 30, 20], np.uint8).reshape(2, 2, 2, 1)
    layer.update(pixels, np.ones(2, np.float32))
    np.testing.assert_allclose(layer.mean.numpy().ravel(), [0, 255, 20, 20])
    np.testing.assert_allclose(layer.variance.numpy().ravel(), [0, 0, 100, 0])


def test_numpy_scale_does_the_same():
    layer = ObservationNormalization((3,))
    x = np.random.default_rng(0).normal(3.0, 5.0, (50, 3)).astype(np.float32)
    layer.update(x, np.ones(50, np.float32))
    mean, inverse, limit = layer.numpy_scale()
    np.testing.assert_allclose(np.clip((x - mean) * inverse, -limit, limit), layer(x), atol=1e-6)


def test_saves_and_loads_with_its_statistics(tmp_path):
    inputs = keras.Input((2,))
    model = keras.Model(inputs, ObservationNormalization((2,), limit=3.0, name="n")(inputs))
    model.layers[-1].update(np.array([[1.0, 2.0], [5.0, 6.0]], np.float32), np.ones(2, np.float32))
    model.save(tmp_path / "model.keras")
    loaded: Any = keras.saving.load_model(tmp_path / "model.keras")
    x = np.array([[0.0, 100.0]], np.float32)
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.layers[-1].limit == 3.0


# Rewards ------------------------------------------------------------------------------------------


def by_hand(rollouts, gamma):
    """Scaled rewards of each rollout: by the deviation of all discounted running returns so far."""
    running = np.zeros(rollouts[0][0].shape[1])
    seen, scaled = [], []
    for rewards, continues, valid in rollouts:
        for t in range(len(rewards)):
            running = gamma * running + rewards[t]
            seen.extend(running[valid[t] > 0])
            running = running * continues[t]
        scaled.append(np.clip(rewards / np.sqrt(np.var(seen) + 1e-8), -10.0, 10.0))
    return scaled


def rollouts(count, seed=0, steps=7, num_envs=3):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        rewards = rng.normal(1.0, 3.0, (steps, num_envs)).astype(np.float32)
        continues = (rng.random((steps, num_envs)) < 0.8).astype(np.float32)
        valid = np.ones_like(continues)
        valid[3, 1], rewards[3, 1] = 0.0, 0.0
        yield rewards, continues, valid


def test_scaled_rewards_equal_numpy_over_rollouts():
    layer = RewardScaling(3, gamma=0.9)
    given_rollouts = list(rollouts(3))
    for arrays, expected in zip(given_rollouts, by_hand(given_rollouts, 0.9), strict=True):
        np.testing.assert_allclose(layer.scale(*arrays), expected, rtol=1e-4)


def test_scaled_rewards_are_limited_but_keep_their_sign():
    layer = RewardScaling(1, gamma=0.0, limit=2.0)
    rewards = np.array([[0.0]] * 99 + [[1000.0]] + [[-1000.0]], np.float32)
    ones = np.ones_like(rewards)
    found = np.array(layer.scale(rewards, ones, ones))
    assert (found.min(), found.max()) == (-2.0, 2.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_rewards_stay_bad_and_spoil_nothing_else(bad):
    layer, plain = RewardScaling(3, gamma=0.9), RewardScaling(3, gamma=0.9)
    (rewards, continues, valid), second = rollouts(2)
    spoilt, neutral = rewards.copy(), rewards.copy()
    spoilt[2, 1], neutral[2, 1] = bad, 0.0
    found, expected = np.array(layer.scale(spoilt, continues, valid)), plain.scale(neutral, continues, valid)
    np.testing.assert_array_equal(found[2, 1], np.float32(bad))  # for the learner to see and skip
    found[2, 1] = 0.0
    np.testing.assert_array_equal(found, expected)
    assert all_equal(state(layer), state(plain))
    assert np.isfinite(layer.scale(*second)).all()
