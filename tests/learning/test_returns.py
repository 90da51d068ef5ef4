import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from rlweights.learning.returns import discounted_returns, generalized_advantages

GAMMA = 0.9


def rollout(T, N, seed=0, ends=0.2):
    """A random rollout (rewards, values, next_values, discounts, continues), float32 [T, N] each."""
    rng = np.random.default_rng(seed)
    rewards, values, next_values = rng.normal(size=(3, T, N)).astype(np.float32)
    terminated, truncated = (rng.random((2, T, N)) < ends).astype(np.float32)
    discounts = (GAMMA * (1 - terminated)).astype(np.float32)
    return rewards, values, next_values, discounts, (1 - terminated) * (1 - truncated)


def advantages_by_definition(rewards, values, next_values, discounts, continues, gae_lambda):
    """The sum over all later errors, each with its own product of factors: O(T^2) and no recursion."""
    rewards, values, next_values, discounts, continues = (
        np.asarray(x, np.float64) for x in (rewards, values, next_values, discounts, continues)
    )
    errors = rewards + discounts * next_values - values
    advantages = np.zeros_like(errors)
    for t in range(len(errors)):
        for later in range(t, len(errors)):
            factors = discounts[t:later] * continues[t:later] * gae_lambda
            advantages[t] += factors.prod(axis=0) * errors[later]
    return advantages


@pytest.mark.parametrize("compile", ["eager", "graph", "xla"])
def test_advantages_are_the_sums_of_their_definition(compile):
    function = generalized_advantages
    if compile != "eager":
        function = tf.function(function, jit_compile=compile == "xla", autograph=False)
    arguments = rollout(37, 5)
    np.testing.assert_allclose(
        function(*arguments, 0.95), advantages_by_definition(*arguments, 0.95), atol=1e-5
    )


@settings(deadline=None, max_examples=30)
@given(
    T=st.integers(1, 12),
    N=st.integers(1, 3),
    seed=st.integers(0, 1000),
    ends=st.sampled_from([0.0, 0.3, 1.0]),
    gae_lambda=st.floats(0, 1),
)
def test_advantages_agree_with_their_definition_for_any_rollout(T, N, seed, ends, gae_lambda):
    arguments = rollout(T, N, seed, ends)
    expected = advantages_by_definition(*arguments, gae_lambda)
    np.testing.assert_allclose(generalized_advantages(*arguments, gae_lambda), expected, atol=1e-5)


def test_lambda_zero_gives_temporal_difference_errors():
    rewards, values, next_values, discounts, continues = rollout(20, 3)
    advantages = generalized_advantages(rewards, values, next_values, discounts, continues, 0.0)
    np.testing.assert_allclose(advantages, rewards + discounts * next_values - values, rtol=1e-6)


def test_lambda_one_gives_monte_carlo_returns_minus_values():
    rewards, values, next_values, discounts, continues = rollout(20, 3)
    # Inside an episode, the value after a step is the value before the next one.
    next_values[:-1] = np.where(continues[:-1] > 0, values[1:], next_values[:-1])
    advantages = generalized_advantages(rewards, values, next_values, discounts, continues, 1.0)
    ends = rewards + discounts * (1 - continues) * next_values
    returns = discounted_returns(ends, discounts, continues, next_values[-1])
    np.testing.assert_allclose(advantages, returns - values, atol=1e-5)


def test_a_truncated_episode_is_bootstrapped_and_a_terminated_one_is_not():
    column = np.array([[0.0], [0.0], [0.0]], np.float32)
    rewards, values, next_values = column + 1, column + 10, column + 10
    goes_on = np.array([[1.0], [0.0], [1.0]], np.float32)
    cut = generalized_advantages(rewards, values, next_values, column + 0.5, goes_on, 1.0)
    # 1 + 0.5 * 10 - 10 = -4 on its own; the first step adds 0.5 times the second.
    np.testing.assert_allclose(cut, [[-6.0], [-4.0], [-4.0]])
    discounts = np.array([[0.5], [0.0], [0.5]], np.float32)
    over = generalized_advantages(rewards, values, next_values, discounts, goes_on, 1.0)
    np.testing.assert_allclose(over, [[-4 + 0.5 * -9], [-9.0], [-4.0]])


def test_nothing_leaks_over_the_end_of_an_episode():
    arguments = rollout(9, 2, ends=0.0)
    arguments[-1][4] = 0.0
    before = generalized_advantages(*arguments, 0.95).numpy()
    arguments[0][5:] += 100.0
    after = generalized_advantages(*arguments, 0.95).numpy()
    np.testing.assert_array_equal(before[:5], after[:5])
    assert (after[5:] > before[5:] + 10).all()


def test_returns_by_hand():
    rewards = np.array([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]], np.float32)
    discounts = np.array([[0.5, 0.5], [0.5, 0.0], [0.5, 0.5]], np.float32)
    continues = np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]], np.float32)
    returns = discounted_returns(rewards, discounts, continues, np.array([8.0, 8.0], np.float32))
    np.testing.assert_allclose(returns, [[4.0, 2.0], [6.0, 2.0], [8.0, 8.0]])


def test_the_bootstrap_is_ignored_where_the_last_step_ended_its_episode():
    rewards = np.ones((1, 2), np.float32)
    continues = np.array([[0.0, 1.0]], np.float32)
    returns = discounted_returns(rewards, rewards * 0.5, continues, np.array([8.0, 8.0], np.float32))
    np.testing.assert_allclose(returns, [[1.0, 5.0]])


def test_long_rollouts_in_one_trace():
    function = tf.function(generalized_advantages, jit_compile=True, autograph=False)
    arguments = rollout(400, 1, ends=0.01)
    for gae_lambda in (0.9, 0.95):
        result = function(*map(tf.constant, arguments), tf.constant(gae_lambda))
        np.testing.assert_allclose(result, advantages_by_definition(*arguments, gae_lambda), atol=1e-4)
    assert function.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("wrong", range(5))
def test_shapes_that_would_broadcast_are_refused(wrong):
    arguments = list(rollout(4, 3))
    arguments[wrong] = arguments[wrong][:, :1]
    with pytest.raises(ValueError, match=r"shapes must be equal.*\(4, 1\)"):
        generalized_advantages(*arguments, gae_lambda=0.95)


def test_a_bootstrap_of_another_shape_is_refused():
    rewards, *_, discounts, continues = rollout(4, 3)
    with pytest.raises(ValueError, match="shapes must be equal"):
        discounted_returns(rewards, discounts, continues, np.zeros((3, 1), np.float32))
