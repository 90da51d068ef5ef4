"""What a rollout looks like, by hand."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from rlweights.learning.batch import Batch
from rlweights.learning.distributions import Categorical, Gaussian, for_space
from rlweights.learning.samples import ActionBounds, sample_scalars


def batch(observations, actions, rewards, **others):
    """A rollout [T, N]; what is not named is 0, and every step is valid."""
    shape = np.shape(rewards)
    fields = {
        name: np.zeros(shape, np.float32) for name in ("terminated", "truncated", "final_values", "has_final")
    }
    fields |= {"valid": np.ones(shape, np.float32)} | {k: np.float32(v) for k, v in others.items()}
    given = {"observations": np.float32(observations), "actions": actions, "rewards": np.float32(rewards)}
    arrays = {name: tf.constant(value) for name, value in (given | fields).items()}
    return Batch(**arrays, last_observations=arrays["observations"][0])


@pytest.mark.parametrize("xla", [False, True])
def test_rewards_returns_and_actions(xla):
    made = batch(
        np.zeros((2, 2, 1)),
        np.array([[0, 2], [2, 2]]),
        [[0.0, 1.0], [1.0, -8.0]],
        truncated=[[0, 0], [1, 0]],
        terminated=[[0, 0], [0, 1]],
    )
    returns = tf.constant([[1.0, 3.0], [1.0, 3.0]])
    scalars = tf.function(lambda: sample_scalars(made, returns, Categorical(3)), jit_compile=xla)()
    assert scalars["rollout/return_std"] == 1.0
    assert scalars["rollout/reward_nonzero_share"] == 0.75
    np.testing.assert_allclose(scalars["rollout/reward_outlier"], 8.0 / (10.0 / 3.0), rtol=1e-6)
    assert scalars["rollout/truncated_share"] == 0.5
    assert scalars["rollout/action_top_share"] == 0.75
    assert "rollout/observation_scale" not in scalars


def test_nothing_to_measure_is_no_number_and_resets_do_not_count():
    made = batch(np.zeros((2, 1, 1)), np.array([[1], [0]]), [[0.0], [5.0]], valid=[[1], [0]])
    scalars = sample_scalars(made, tf.zeros((2, 1)), Categorical(2), features=True)
    assert scalars["rollout/reward_nonzero_share"] == 0.0
    assert scalars["rollout/action_top_share"] == 1.0
    assert scalars["rollout/observation_constant_share"] == 1.0
    for tag in ("reward_outlier", "truncated_share", "observation_scale"):
        assert np.isnan(scalars[f"rollout/{tag}"])


def test_features_far_from_zero_are_measured_as_they_vary():
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(50, 4, 3)) * [1.0, 1e-2, 0.0] + [0.0, 1e3, 7.0]
    made = batch(observations, np.zeros((50, 4, 1), np.float32), np.ones((50, 4)))
    scalars = sample_scalars(made, tf.zeros((50, 4)), Gaussian(1), features=True)
    deviations = observations.astype(np.float32).reshape(-1, 3).std(axis=0, dtype=np.float64)
    np.testing.assert_allclose(scalars["rollout/observation_scale"], deviations[0] / deviations[1], rtol=0.02)
    np.testing.assert_allclose(scalars["rollout/observation_constant_share"], 1 / 3, rtol=1e-6)
    assert "rollout/action_clipped_share" not in scalars


def test_actions_outside_of_their_bounds():
    actions = np.float32([[[0.0, 3.0]], [[-2.0, 9.0]]])
    bounds = ActionBounds(np.float32([-1.0, -np.inf]), np.float32([1.0, 4.0]))
    made = batch(np.zeros((2, 1, 1)), actions, np.ones((2, 1)))
    scalars = sample_scalars(made, tf.zeros((2, 1)), Gaussian(2), bounds)
    assert scalars["rollout/action_clipped_share"] == 0.5


@pytest.mark.parametrize(
    ("space", "largest"),
    [
        (spaces.Discrete(4), np.log(4)),
        (spaces.MultiDiscrete([2, 3]), np.log(6)),
        (spaces.MultiBinary(3), 3 * np.log(2)),
        (spaces.Box(-1.0, 1.0, (2,)), None),
    ],
)
def test_the_largest_entropy_is_that_of_the_uniform_policy(space, largest):
    distribution = for_space(space)
    if largest is None:
        assert distribution.max_entropy is None
        return
    entropy = distribution.entropy(tf.zeros((1, distribution.parameter_size)))[0]
    assert distribution.max_entropy == pytest.approx(largest)
    np.testing.assert_allclose(entropy, largest, rtol=1e-6)
