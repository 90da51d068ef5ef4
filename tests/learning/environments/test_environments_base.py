"""Episode bookkeeping, by hand on tiny environments, and the registry."""

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from rlweights.learning import environments
from rlweights.learning.environments import (
    Draw,
    Environment,
    VectorState,
    final_observations,
    reset_all,
    step_all,
)


class Counter(Environment):
    """Counts up from 0 and rewards the count it reaches; action 1 terminates; limit 3."""

    id = "Counter"
    max_episode_steps = 3

    @property
    def observation_space(self):
        return gym.spaces.Box(0.0, 99.0, [1], np.float32)

    @property
    def action_space(self):
        return gym.spaces.Discrete(2)

    def reset(self, num_envs, draw):
        return tf.zeros([num_envs, 1])

    def step(self, state, action, draw):
        return state + 1.0, state[:, 0] + 1.0, action == 1

    def observe(self, state):
        return 10.0 * state


class Endless(Counter):
    max_episode_steps = None


class Noisy(Counter):
    """Draws in both functions, carelessly under the same name."""

    deterministic = False

    def reset(self, num_envs, draw):
        return draw.uniform([num_envs, 1])

    def step(self, state, action, draw):
        return draw.uniform(state.shape), draw.normal(action.shape), action == 1


class Undeclared(Noisy):
    deterministic = True


def numpy(*tensors):
    return [tensor.numpy().tolist() for tensor in tensors]


def test_same_step_autoreset_by_hand():
    running = reset_all(Counter(), 3, Draw(0, 0))
    assert numpy(*running) == [[[0], [0], [0]], [0, 0, 0], [0, 0, 0]]

    # The first environment goes on, the second terminates at once, the third in its third step.
    running, outcome = step_all(Counter(), running, tf.constant([0, 1, 0]), Draw(0, 0))
    assert numpy(*running) == [[[1], [0], [1]], [1, 0, 1], [1, 0, 1]]
    assert numpy(outcome.reward) == [[1, 1, 1]]
    assert numpy(outcome.terminated, outcome.truncated) == [[False, True, False], [False] * 3]
    assert numpy(outcome.episode_return, outcome.episode_length) == [[1, 1, 1], [1, 1, 1]]

    running, outcome = step_all(Counter(), running, tf.constant([0, 0, 0]), Draw(0, 1))
    assert numpy(*running) == [[[2], [1], [2]], [2, 1, 2], [3, 1, 3]]
    assert numpy(outcome.terminated, outcome.truncated) == [[False] * 3, [False] * 3]

    # Out of time and not terminated: truncated. Both at once: terminated alone.
    running, outcome = step_all(Counter(), running, tf.constant([0, 0, 1]), Draw(0, 2))
    assert numpy(*running) == [[[0], [2], [0]], [0, 2, 0], [0, 3, 0]]
    assert numpy(outcome.reward) == [[3, 2, 3]]
    assert numpy(outcome.terminated, outcome.truncated) == [[False, False, True], [True, False, False]]
    assert numpy(outcome.episode_return, outcome.episode_length) == [[6, 3, 6], [3, 2, 3]]


def test_without_a_time_limit_only_termination_ends_an_episode():
    running = VectorState(tf.zeros([2, 1]), tf.constant([10**6, 10**6]), tf.zeros([2]))
    running, outcome = step_all(Endless(), running, tf.constant([0, 1]), Draw(0, 0))
    assert numpy(outcome.terminated, outcome.truncated) == [[False, True], [False, False]]
    assert numpy(running.elapsed) == [[10**6 + 1, 0]]


def test_dtypes_of_the_bookkeeping():
    running, outcome = step_all(
        Counter(), reset_all(Counter(), 2, Draw(0, 0)), tf.constant([0, 1]), Draw(0, 0)
    )
    assert [x.dtype for x in running] == [tf.float32, tf.int32, tf.float32]
    assert [x.dtype for x in outcome] == [tf.float32, tf.bool, tf.bool, tf.float32, tf.int32]


def collect(environment, steps, num_envs, draw_at, first_clock):
    """A rollout that stores everything the slow way: each next observation before autoreset."""
    running = reset_all(environment, num_envs, draw_at(0))
    rng = np.random.default_rng(0)
    states, actions, seen, following = [], [], [], []
    for clock in range(first_clock, first_clock + steps):
        action = tf.constant(rng.integers(0, 3, num_envs) // 2, tf.int32)
        states.append(running.state)
        actions.append(action)
        seen.append(environment.observe(environment.step(running.state, action, draw_at(clock))[0]))
        running, outcome = step_all(environment, running, action, draw_at(clock))
        following.append((environment.observe(running.state), outcome.terminated | outcome.truncated))
    clocks = tf.range(first_clock, first_clock + steps)
    return tf.stack(states), tf.stack(actions), clocks, tf.stack(seen), following


@pytest.mark.parametrize("jit", [False, True])
def test_final_observations_are_what_was_seen(jit):
    def draw_at(clock):
        return Draw(5, tf.constant(clock), "rollout")

    *stored, seen, following = collect(Counter(), 6, 4, draw_at, 40)
    recompute = tf.function(final_observations, jit_compile=jit)
    np.testing.assert_array_equal(recompute(Counter(), *stored), seen)
    ended = np.array([done for _, done in following])
    assert 4 < ended.sum() < 20  # so the observations after autoreset would not have done
    for t, (observation, done) in enumerate(following):
        np.testing.assert_array_equal(seen[t][~done], observation[~done])
        assert not np.any(seen[t][done] == observation[done])


@pytest.mark.parametrize("jit", [False, True])
def test_final_observations_of_an_environment_that_draws(jit):
    def draw_at(clock):
        return Draw(5, tf.constant(clock), "rollout")

    *stored, seen, _ = collect(Noisy(), 6, 4, draw_at, 40)
    recompute = tf.function(
        lambda *tensors: final_observations(Noisy(), *tensors, draw=draw_at(0)), jit_compile=jit
    )
    np.testing.assert_array_equal(recompute(*stored), seen)
    with pytest.raises(ValueError, match="Counter draws random numbers in `step`"):
        final_observations(Noisy(), *stored)


def test_an_environment_that_draws_must_say_so():
    def draw_at(clock):
        return Draw(5, tf.constant(clock), "rollout")

    *stored, _, _ = collect(Undeclared(), 2, 4, draw_at, 0)
    with pytest.raises(ValueError, match="deterministic = False"):
        final_observations(Undeclared(), *stored)


def test_draws_depend_on_seed_clock_stream_and_name_alone():
    draw = Draw(1, 2, "a")
    base = draw.uniform([8]).numpy()
    np.testing.assert_array_equal(base, Draw(1, tf.constant(2), "a").uniform([8]))
    others = [
        Draw(2, 2, "a").uniform([8]),
        Draw(1, 3, "a").uniform([8]),
        Draw(1, 2, "b").uniform([8]),
        draw.uniform([8], name="x"),
        draw.named("x").uniform([8]),
    ]
    for k, one in enumerate(others):
        assert not np.any(one.numpy() == base)
        for other in others[k + 1 :]:
            assert not np.any(one.numpy() == other.numpy())
    spread = draw.uniform([1000], -3.0, 5.0).numpy()
    assert -3.0 <= spread.min() < -2.9
    assert 4.9 < spread.max() < 5.0
    assert not np.any(draw.normal([8]).numpy() == draw.normal([8], name="x").numpy())


def test_first_episodes_steps_and_resets_draw_independent_numbers():
    start = reset_all(Noisy(), 6, Draw(0, 0))
    running, _ = step_all(Noisy(), start, tf.constant([0, 1, 0, 1, 0, 1]), Draw(0, 0))
    moved = Noisy().step(start.state, tf.zeros([6], tf.int32), Draw(0, 0))[0]
    assert numpy(running.state[::2]) == numpy(moved[::2])
    assert not np.any(running.state[1::2].numpy() == moved[1::2].numpy())
    assert not np.any(running.state.numpy() == start.state.numpy())


def test_a_fresh_state_does_not_depend_on_what_other_environments_do():
    start = reset_all(Noisy(), 4, Draw(0, 0))
    alone = step_all(Noisy(), start, tf.constant([0, 1, 0, 0]), Draw(0, 7))[0].state
    together = step_all(Noisy(), start, tf.constant([1, 1, 1, 1]), Draw(0, 7))[0].state
    np.testing.assert_array_equal(alone[1], together[1])


def test_the_protocol_names_what_is_missing():
    bare = Environment()
    for call in (
        lambda: bare.observation_space,
        lambda: bare.action_space,
        lambda: bare.reset(1, Draw(0, 0)),
        lambda: bare.step(tf.zeros([1, 1]), tf.zeros([1]), Draw(0, 0)),
    ):
        with pytest.raises(NotImplementedError):
            call()


def test_get_finds_every_registered_environment():
    for name, kind in environments.ENVIRONMENTS.items():
        environment = environments.get(name)
        assert type(environment) is kind
        assert environment.id == name
    chain = environments.get("Chain", length=7)
    assert isinstance(chain, environments.Chain)
    assert chain.length == 7


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("CartPole-v0", "CartPole-v1"),
        ("acrobot", "Acrobot-v1"),
        ("chains", "Chain"),
        ("MountainCar", "MountainCar-v0"),
    ],
)
def test_get_names_the_nearest_and_all_valid_choices(wrong, near):
    with pytest.raises(ValueError, match=f"'{wrong}'. Did you mean '{near}'?") as error:
        environments.get(wrong)
    assert all(name in str(error.value) for name in environments.ENVIRONMENTS)


def test_get_guesses_nothing_when_nothing_is_near():
    with pytest.raises(ValueError, match=r"environment 'Humanoid-v5'\. There are: "):
        environments.get("Humanoid-v5")
