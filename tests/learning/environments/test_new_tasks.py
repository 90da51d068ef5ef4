"""New tasks: what the agent sees and does means something else in each phase, and nothing else changes."""

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from rlweights.learning import environments
from rlweights.learning.environments import (
    Acrobot,
    CartPole,
    Chain,
    Draw,
    Drifting,
    NewTasks,
    final_observations,
    reset_all,
    step_all,
)
from rlweights.learning.environments.drift import Steps
from rlweights.learning.environments.pendulum import Pendulum
from rlweights.learning.environments.rescaled import Rescaled

PERIOD = 10


def states(environment, clock, count=6):
    return environment.reset(count, Draw(3, tf.constant(clock)))


@pytest.mark.parametrize("kind", ["orthogonal", "permutation"])
def test_observations_are_those_of_the_environment_times_a_matrix_of_the_phase(kind):
    plain, changed = CartPole(), NewTasks(CartPole(), period=PERIOD, kind=kind)
    for clock, phase in ((0, 0), (9, 0), (10, 1), (57, 5)):
        state = states(changed, clock)
        np.testing.assert_array_equal(changed.phase(state), [phase] * 6)
        inner = states(plain, clock).numpy()
        np.testing.assert_array_equal(state[:, :-1], inner)
        matrix = changed.matrices[phase]
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(4), atol=1e-5)
        np.testing.assert_allclose(changed.observe(state), inner @ matrix.T, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(changed.matrices[0], np.eye(4))
    entries = {0.0, 1.0} == set(np.unique(changed.matrices))
    assert entries == (kind == "permutation")
    assert len({each.tobytes() for each in changed.matrices}) > (20 if kind == "permutation" else 990)


def test_matrices_are_drawn_uniformly():
    """Each entry of a Haar matrix of order n has mean 0 and variance 1 / n."""
    matrices = NewTasks(CartPole(), tasks=4_000).matrices[1:]
    np.testing.assert_allclose(matrices.mean(axis=0), 0.0, atol=0.05)
    np.testing.assert_allclose(matrices.var(axis=0), 0.25, atol=0.03)
    assert abs(np.mean(np.linalg.det(matrices) > 0) - 0.5) < 0.05


def test_actions_change_places():
    plain, changed = Acrobot(), NewTasks(Acrobot(), period=PERIOD, actions=True)
    assert changed.permutations is not None
    assert len({tuple(each) for each in changed.permutations}) == 6
    for clock in (0, 30, 110):
        state = states(changed, clock, 3)
        order = changed.permutations[clock // PERIOD]
        reached, reward, ended = changed.step(state, tf.constant([0, 1, 2]), Draw(0, 0))
        expected = plain.step(state[:, :-1], tf.constant(order), Draw(0, 0))
        np.testing.assert_array_equal(reached[:, :-1], expected[0])
        np.testing.assert_array_equal(reward, expected[1])
        np.testing.assert_array_equal(ended, expected[2])
    np.testing.assert_array_equal(changed.permutations[0], [0, 1, 2])


def test_a_phase_lasts_from_an_episodes_reset_to_its_end():
    changed = NewTasks(CartPole(), period=PERIOD)
    step = tf.function(lambda e, a, c: step_all(changed, e, a, Draw(0, c)), jit_compile=True)
    episodes = reset_all(changed, 8, Draw(0, tf.constant(0)))
    rng, seen = np.random.default_rng(0), []
    for clock in range(4 * PERIOD):
        before = changed.phase(episodes.state).numpy()
        episodes, outcome = step(episodes, tf.constant(rng.integers(2, size=8), tf.int32), tf.constant(clock))
        after = changed.phase(episodes.state).numpy()
        ended = outcome.terminated.numpy()
        np.testing.assert_array_equal(after, np.where(ended, clock // PERIOD, before))
        seen.append(before)
    seen = np.array(seen)
    assert np.any(seen[PERIOD] == 0)  # episodes of the first phase outlive it
    assert np.unique(seen).size >= 3


def test_the_last_observation_of_an_episode_is_seen_through_its_own_matrix():
    changed = NewTasks(CartPole(), period=PERIOD)
    state = states(changed, 10)[None]
    action = tf.ones([1, 6], tf.int32)
    (found,) = final_observations(changed, state, action, tf.constant([10 * PERIOD]))
    reached = changed.step(state[0], action[0], Draw(0, 0))[0]
    np.testing.assert_allclose(found, changed.observe(reached), rtol=1e-6)
    np.testing.assert_array_equal(changed.phase(reached), [1] * 6)


def test_after_the_last_task_the_first_one_comes_again():
    changed = NewTasks(CartPole(), period=PERIOD, tasks=3)
    first, fourth = states(changed, 0), states(changed, 3 * PERIOD)
    np.testing.assert_array_equal(changed.phase(fourth), [3] * 6)
    same = tf.concat([first[:, :-1], fourth[:, -1:]], axis=1)
    np.testing.assert_array_equal(changed.observe(same), changed.observe(first))


def test_the_phase_can_be_told():
    told = environments.get("NewTasksCartPole-v1", phase=7)
    np.testing.assert_array_equal(told.phase(states(told, 0)), [7] * 6)
    np.testing.assert_array_equal(told.matrices, environments.get("NewTasksCartPole-v1").matrices)


def test_arguments_reach_the_new_tasks_and_the_environment():
    made = environments.get("NewTasksPendulum-v1", tasks=7, g=3.0)
    assert (len(made.matrices), made.period, made.environment.g) == (7, 10_000, 3.0)
    assert environments.get("NewTasksAcrobot-v1", period=9, actions=True).period == 9
    with pytest.raises(TypeError, match="unexpected keyword argument 'perid'"):
        environments.get("NewTasksCartPole-v1", perid=9)


def test_tasks_are_those_of_their_own_seed():
    one, other = (NewTasks(CartPole(), seed=seed).matrices for seed in (0, 1))
    assert np.all(np.any(one[1:] != other[1:], axis=(1, 2)))


def test_integers_stay_integers():
    changed = NewTasks(Chain(length=5), period=PERIOD, kind="permutation")
    state = states(changed, 25)
    assert state.dtype == tf.int32
    np.testing.assert_array_equal(changed.phase(state), [2] * 6)
    np.testing.assert_array_equal(np.sum(changed.observe(state), axis=1), [2.0] * 6)


def test_a_drift_keeps_the_phase():
    inside = NewTasks(Drifting(CartPole(), length=Steps([0.5, 1.0], period=7)), period=PERIOD)
    inside.something = 1.0
    outside = Drifting(inside, something=Steps([1.0, 2.0], period=7))
    assert outside.phase(states(inside, 30)).numpy().tolist() == [3] * 6
    assert Chain().phase(states(Chain(), 0)) is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"kind": "rotation"}, "kind must be one of orthogonal, permutation, got 'rotation'"),
        ({"period": 0}, "period must be at least 1, got 0"),
        ({"tasks": 0}, "tasks must be at least 1, got 0"),
        ({"phase": -1}, "phase must be at least 0, got -1"),
    ],
)
def test_bad_arguments_are_named(arguments, says):
    with pytest.raises(ValueError, match=says):
        NewTasks(CartPole(), **arguments)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="only discrete actions can change places"):
        NewTasks(environments.get("Pendulum-v1"), actions=True)
    with pytest.raises(ValueError, match="observations that are vectors"):
        NewTasks(_OneNumber())


class _OneNumber(CartPole):
    @property
    def observation_space(self):
        return gym.spaces.Box(-1.0, 1.0, [1], np.float32)


def test_phases_are_seen_through_rescaled_actions():
    tasks = NewTasks(Pendulum(), period=3)
    rescaled = Rescaled(tasks, np.zeros(1, np.float32), np.full(1, 2.0, np.float32))
    state = rescaled.reset(2, Draw(0, 7))
    np.testing.assert_array_equal(rescaled.phase(state), [2, 2])
    np.testing.assert_array_equal(rescaled.observe(state), tasks.observe(state))
