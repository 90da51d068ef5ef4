"""What every registered environment must satisfy, in one battery."""

import functools

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from rlweights.learning import environments
from rlweights.learning.environments import Draw, final_observations, reset_all, step_all

N, T, LIMIT = 16, 24, 10
SWITCH = 20_000 - T // 2  # a clock from which T steps cross a change of the default drift
every_environment = pytest.mark.parametrize("name", environments.ENVIRONMENTS)


def random_actions(environment, *shape, seed=0):
    rng = np.random.default_rng(seed)
    space = environment.action_space
    if isinstance(space, gym.spaces.Discrete):
        return tf.constant(rng.integers(space.n, size=shape), tf.int32)
    return tf.constant(rng.uniform(space.low, space.high, [*shape, *space.shape]), tf.float32)


@functools.cache
def compiled(name):
    """The environment with a time limit that a short rollout reaches, and its one XLA program."""
    environment = environments.get(name)
    environment.max_episode_steps = LIMIT

    def step(running, action, clock, seed):
        return step_all(environment, running, action, Draw(seed, clock))

    return environment, step, tf.function(step, jit_compile=True)


def rollout(environment, step, first_clock, seed):
    """Steps T times; returns states before each step, actions, outcomes and the last `VectorState`."""
    actions = random_actions(environment, T, N)
    running = reset_all(environment, N, Draw(seed, tf.constant(0)))
    states, outcomes = [], []
    for t in range(T):
        states.append(running.state)
        running, outcome = step(running, actions[t], tf.constant(first_clock + t), tf.constant(seed))
        outcomes.append(outcome)
    return tf.stack(states), actions, tf.nest.map_structure(lambda *x: tf.stack(x), *outcomes), running


@every_environment
def test_xla_equals_eager_with_one_trace(name):
    environment, eager, xla = compiled(name)
    eager_states, _, eager_outcomes, eager_last = rollout(environment, eager, SWITCH, seed=3)
    states, _, outcomes, last = rollout(environment, xla, SWITCH, seed=3)
    assert xla.experimental_get_tracing_count() == 1
    assert eager_outcomes.truncated.numpy().any()
    np.testing.assert_allclose(states, eager_states, rtol=1e-4, atol=1e-4)
    for one, other in zip([*outcomes, *last], [*eager_outcomes, *eager_last], strict=True):
        if one.dtype.is_floating:
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
        else:
            np.testing.assert_array_equal(one, other)


@every_environment
def test_one_step_under_xla_equals_eager_closely(name):
    """Without the rollout's accumulation of rounding; the first states are bit for bit the same."""
    environment = environments.get(name)
    actions = random_actions(environment, 512)

    def first():
        return environment.reset(512, Draw(3, tf.constant(5)))

    def one(state, action):
        state, reward, terminated = environment.step(state, action, Draw(3, tf.constant(5)))
        return environment.observe(state), reward, terminated

    start = first()
    np.testing.assert_array_equal(tf.function(first, jit_compile=True)(), start)
    np.testing.assert_array_equal(tf.function(first)(), start)
    results = tf.function(one, jit_compile=True)(start, actions)
    for xla, eager in zip(results, one(start, actions), strict=True):
        if xla.dtype.is_floating:
            np.testing.assert_allclose(xla, eager, rtol=1e-6, atol=1e-6)
        else:
            np.testing.assert_array_equal(xla, eager)


@every_environment
def test_shapes_and_dtypes_are_static_and_observations_lie_in_the_space(name):
    environment = environments.get(name)
    actions = random_actions(environment, T, N)

    @tf.function
    def step(running, action, clock):
        following, outcome = step_all(environment, running, action, Draw(0, clock))
        for before, after in zip(running, following, strict=True):
            assert before.shape == after.shape
            assert before.dtype == after.dtype
        assert all(x.shape == [N] for x in outcome)
        assert [x.dtype for x in outcome] == [tf.float32, tf.bool, tf.bool, tf.float32, tf.int32]
        return following

    running = reset_all(environment, N, Draw(0, tf.constant(0)))
    for t in range(T):
        running = step(running, actions[t], tf.constant(t))
        observations = environment.observe(running.state).numpy()
        assert observations.dtype == environment.observation_space.dtype
        assert all(environment.observation_space.contains(one) for one in observations)


@every_environment
def test_same_seed_same_episodes(name):
    environment, _, xla = compiled(name)
    states = [rollout(environment, xla, 0, seed)[0].numpy() for seed in (1, 1, 2)]
    np.testing.assert_array_equal(states[0], states[1])
    if name != "Chain":  # every episode of which begins in the same state
        assert np.any(states[0][0] != states[2][0])
        assert np.any(states[0][-1] != states[2][-1])


@every_environment
def test_final_observations_equal_what_was_seen(name):
    environment, _, xla = compiled(name)
    assert environment.deterministic
    states, actions, outcomes, _ = rollout(environment, xla, SWITCH, seed=3)
    clocks = tf.range(SWITCH, SWITCH + T)
    recomputed = tf.function(final_observations, jit_compile=True)(environment, states, actions, clocks)

    reached = [environment.step(states[t], actions[t], Draw(3, clocks[t]))[0] for t in range(T)]
    seen = np.stack([environment.observe(state) for state in reached])
    np.testing.assert_allclose(recomputed, seen, rtol=1e-5, atol=1e-5)

    # Only where an episode ended does it differ from what the next step began with.
    ended = (outcomes.terminated | outcomes.truncated).numpy()[:-1]
    assert ended.sum() >= N
    after = np.stack([environment.observe(states[t]) for t in range(1, T)])
    np.testing.assert_allclose(seen[:-1][~ended], after[~ended], rtol=1e-5, atol=1e-5)
    assert np.any(seen[:-1][ended] != after[ended])
