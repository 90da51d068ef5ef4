"""Rollouts whose every number is known by hand, in every autoreset mode."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.vector import AutoresetMode

from rlweights.learning.algorithms import A2C
from rlweights.learning.batch import Batch
from rlweights.learning.continuation import ReplayedVector
from rlweights.learning.distributions import Categorical, Gaussian, for_space
from rlweights.learning.rollout import Rollout
from support.builders import learn, stepper_of, tiny_learner, weights
from support.probes import Counter, Scripted, vectorised

MODES = list(AutoresetMode)
STEPS = 12
ENVIRONMENTS = [
    lambda: Counter(terminates=3),
    lambda: Counter(truncates=2),
    lambda: Counter(terminates=2, truncates=2),
]

# By hand, for V(s) = 10 s, gamma = 1/2, lambda = 1/2, rewards 1, 2, 3. A termination is worth nothing
# beyond its reward, a cut is worth V of the final observation:
#   ends after 3:    errors  1 + 10/2 - 0 = 6,  2 + 20/2 - 10 = 2,  3 + 0 - 20 = -17
#                    advantages  6 - 2.25/4, 2 - 17/4, -17
#   cut after 2:     errors  6, 2                      advantages  6 + 2/4, 2
#   both after 2:    errors  6, 2 + 0 - 10 = -8        advantages  6 - 8/4, -8
ADVANTAGES = {0: [5.4375, -2.25, -17.0], 1: [6.5, 2.0], 2: [4.0, -8.0]}


@pytest.fixture(scope="module")
def learner():
    """Its value is 10 times the observation."""
    learner = tiny_learner(
        A2C(n_steps=STEPS, gamma=0.5, gae_lambda=0.5),
        distribution=Categorical(2),
        observation_shape=(1,),
        num_envs=3,
        hidden_sizes=(),
    )
    kernel, bias = learner.networks.value.trainable_variables
    kernel.assign([[10.0]])
    bias.assign([0.0])
    return learner


def collect(envs, learner, **arguments):
    rollout = Rollout(ReplayedVector(stepper_of(envs)), learner.distribution, STEPS, seed=0)
    rollout.begin(0)
    try:
        return rollout.collect(uniform, lambda x: np.array(learner.networks.values(x)), 0, **arguments)
    finally:
        envs.close()


def zero(observations):
    """The value of what is not looked at."""
    return np.zeros(len(observations), np.float32)


def uniform(observations):
    return np.zeros((len(observations), 2), np.float32)


def advantages(learner, batch: Batch) -> np.ndarray:
    (_, minibatch), _ = learner._prepare(Batch(*map(tf.constant, batch)))
    return np.array(minibatch.advantages).reshape(batch.rewards.shape)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_advantages_by_hand_in_every_mode(learner, mode, kind):
    batch, _ = collect(vectorised(ENVIRONMENTS, mode, kind), learner)
    found = advantages(learner, batch)
    for n, expected in ADVANTAGES.items():
        valid = batch.valid[:, n].astype(bool)
        length = len(expected)
        episodes = valid.sum() // length
        assert episodes >= 3
        real = slice(0, episodes * length)
        np.testing.assert_allclose(found[valid, n][real], expected * episodes, rtol=1e-6)
        np.testing.assert_array_equal(batch.rewards[valid, n][real], [1, 2, 3][:length] * episodes)
        np.testing.assert_array_equal(batch.observations[valid, n, 0][real], [0, 1, 2][:length] * episodes)


@pytest.mark.parametrize("mode", MODES)
def test_masks_and_bootstraps(learner, mode):
    batch, _ = collect(vectorised(ENVIRONMENTS, mode), learner)
    if mode is AutoresetMode.NEXT_STEP:
        # An episode takes one step more: the one that resets.
        np.testing.assert_array_equal(batch.valid[:8, 0], [1, 1, 1, 0, 1, 1, 1, 0])
        np.testing.assert_array_equal(batch.valid[:6, 1], [1, 1, 0, 1, 1, 0])
        np.testing.assert_array_equal(batch.rewards[batch.valid == 0], 0.0)
        np.testing.assert_array_equal(batch.observations[:4, 0, 0], [0, 1, 2, 3])
        assert not batch.has_final.any()
        terminations = 3
    else:
        assert batch.valid.all()
        np.testing.assert_array_equal(batch.has_final, np.maximum(batch.terminated, batch.truncated))
        np.testing.assert_array_equal(batch.final_values[:4, 1], [0.0, 20.0, 0.0, 20.0])
        assert not batch.final_values[:, [0, 2]].any(), "a termination does not bootstrap"
        terminations = 4
    assert batch.terminated[:, 0].sum() == terminations
    assert batch.truncated[:, 0].sum() == 0
    assert batch.terminated[:, 1].sum() == 0
    np.testing.assert_array_equal(batch.terminated[:, 2], batch.truncated[:, 2])


@pytest.mark.parametrize("mode", MODES)
def test_episode_statistics_are_exact(learner, mode):
    envs = vectorised(ENVIRONMENTS, mode)
    rollout = Rollout(ReplayedVector(stepper_of(envs)), learner.distribution, 5, seed=0)
    rollout.begin(0)
    count, total, length = 0, 0.0, 0
    for i in range(6):  # episodes run on from one rollout into the next
        _, episodes = rollout.collect(uniform, zero, i)
        count += episodes.count
        total += episodes.total_return
        length += episodes.total_length
    extra = 1 if mode is AutoresetMode.NEXT_STEP else 0
    of_three, of_two = 30 // (3 + extra), 30 // (2 + extra)
    if mode is AutoresetMode.NEXT_STEP:
        of_three = (30 + 1) // 4  # the last episode's end needs no reset any more
    assert count == of_three + 2 * of_two
    assert total == 6.0 * of_three + 2 * 3.0 * of_two
    assert length == 3 * of_three + 2 * 2 * of_two
    envs.close()


def test_masked_reset_leaves_other_environments_alone(learner):
    """With autoreset disabled, ending one episode must not cut or forget another."""
    envs = vectorised([lambda: Counter(truncates=2), lambda: Counter(truncates=7)], AutoresetMode.DISABLED)
    rollout = Rollout(ReplayedVector(stepper_of(envs)), learner.distribution, STEPS, seed=0)
    rollout.begin(0)
    batch, episodes = rollout.collect(uniform, zero, 0)
    np.testing.assert_array_equal(batch.observations[:9, 1, 0], [0, 1, 2, 3, 4, 5, 6, 0, 1])
    assert episodes.total_length == 6 * 2 + 7
    envs.close()


def test_cartpole_entry_point_equals_single_environments():
    """CartPole's own vector environment: same physics, NEXT_STEP, and it takes one seed for all."""
    envs = gym.make_vec("CartPole-v1", 4, vectorization_mode="vector_entry_point")
    rollout = Rollout(ReplayedVector(stepper_of(envs)), Categorical(2), 64, seed=0)
    rollout.begin(0)
    batch, episodes = rollout.collect(uniform, zero, 0)
    assert episodes.count == batch.terminated.sum() > 4
    assert episodes.total_return == episodes.total_length
    for n in range(4):
        ends = np.flatnonzero(batch.terminated[:, n])
        for end in ends[ends < 63]:
            assert batch.valid[end + 1, n] == 0.0
            assert batch.rewards[end + 1, n] == 0.0
    single = gym.make("CartPole-v1").unwrapped
    single.reset(seed=0)
    for t in range(63):
        if batch.valid[t, 0]:
            single.state = batch.observations[t, 0].astype(np.float64)
            single.steps_beyond_terminated = None
            following, *_ = single.step(int(batch.actions[t, 0]))
            np.testing.assert_allclose(batch.observations[t + 1, 0], following, atol=1e-5)
    envs.close()


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_environments_may_reuse_their_observations(mode):
    """`copy=False`: what an environment returns is its own buffer, overwritten by its next step."""

    def run(copy):
        settings: Any = {"autoreset_mode": mode, "copy": copy}
        envs = gym.make_vec("CartPole-v1", 3, vectorization_mode="sync", vector_kwargs=settings)
        rollout = Rollout(ReplayedVector(stepper_of(envs)), Categorical(2), 64, seed=0)
        rollout.begin(0)
        batches = [rollout.collect(uniform, lambda x: x[:, 0], i) for i in range(2)]
        envs.close()
        return [array for batch, _ in batches for array in batch]

    for reused, copied in zip(run(copy=False), run(copy=True), strict=True):
        np.testing.assert_array_equal(reused, copied)


def test_rollout_is_a_function_of_seed_iteration_and_attempt():
    def run(seed, iteration, attempt=0):
        envs = gym.make_vec("CartPole-v1", 2, vectorization_mode="sync")
        rollout = Rollout(ReplayedVector(stepper_of(envs)), Categorical(2), 16, seed)
        rollout.begin(iteration, attempt)
        batch, _ = rollout.collect(uniform, zero, iteration)
        envs.close()
        return batch

    first = run(0, 3)
    for one, other in zip(first, run(0, 3), strict=True):
        np.testing.assert_array_equal(one, other)
    for other in (run(1, 3), run(0, 4), run(0, 3, attempt=1)):
        assert (first.observations[0] != other.observations[0]).any()
        assert (first.actions != other.actions).any()


def test_actions_reach_the_environment_clipped_but_are_learned_as_sampled():
    space = gym.spaces.Box(-0.25, 0.5, (2,), np.float32)
    box = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    envs = vectorised([lambda: Scripted(box, lambda t: np.zeros(1, np.float32), space)])
    rollout = Rollout(ReplayedVector(stepper_of(envs)), Gaussian(2), 32, seed=0)
    rollout.begin(0)
    batch, _ = rollout.collect(lambda x: np.zeros((len(x), 4), np.float32), zero, 0)
    taken = np.array(envs.envs[0].actions)
    assert np.abs(batch.actions).max() > 1.0
    np.testing.assert_array_equal(taken, np.clip(batch.actions[:, 0], -0.25, 0.5))
    assert taken.dtype == np.float32


ACTION_SPACES = [
    gym.spaces.Discrete(3, start=5),
    gym.spaces.MultiDiscrete([2, 3], start=[1, -1]),
    gym.spaces.MultiBinary((2, 2)),
    gym.spaces.Box(-0.1, np.inf, (2, 1), np.float64),
]


@pytest.mark.parametrize("space", ACTION_SPACES, ids=lambda space: type(space).__name__)
def test_every_action_space_from_the_network_to_the_environment(space):
    pixels = gym.spaces.Box(0, 255, (1, 36, 36), np.uint8)
    envs = vectorised([lambda: Scripted(pixels, lambda t: np.full((1, 36, 36), t, np.uint8), space)] * 2)
    learner = tiny_learner(
        A2C(n_steps=8),
        distribution=for_space(space),
        observation_shape=(36, 36, 1),
        convolutions=((2, 8, 8),),
    )
    rollout = Rollout(ReplayedVector(stepper_of(envs)), learner.distribution, 8, seed=0)
    rollout.begin(0)
    policy, value = learner.networks.policy, learner.networks.values
    batch, episodes = rollout.collect(lambda x: np.array(policy(x)), lambda x: np.array(value(x)), 0)
    taken = envs.envs[0].actions
    assert len(taken) == 8
    assert all(space.contains(action) for action in taken)
    assert len({np.asarray(action).tobytes() for action in taken}) > 1
    assert batch.observations.dtype == np.uint8
    np.testing.assert_array_equal(batch.observations[:, 0, 0, 0, 0], [0, 1, 2, 0, 1, 2, 0, 1])
    assert episodes.total_return == 2 * 2 * 6.0
    before = weights(learner)
    assert learn(learner, batch)["update/applied"] == 1.0
    assert (weights(learner)["policy/head/kernel"] != before["policy/head/kernel"]).any()
    envs.close()


class Failing(Counter):
    """Returns NaN or infinity instead of a reward or an observation, in one of its steps."""

    def __init__(self, what: str, when: int):
        super().__init__(truncates=4)
        self.what, self.when, self.steps = what, when, 0

    def step(self, action):
        observation, reward, *rest = super().step(action)
        self.steps += 1
        if self.steps == self.when:
            reward = np.inf if self.what == "reward" else reward
            observation = observation * np.nan if self.what == "observation" else observation
        return observation, reward, *rest


@pytest.mark.parametrize(
    ("what", "when", "message"),
    [
        ("reward", 3, "returned the reward inf in step 2"),
        ("observation", 3, "returned the observation [nan] before step 3"),
        ("observation", 4, "returned the observation [nan] before step 4"),  # the final one of its episode
        ("observation", 6, "returned the observation [nan] before step 6"),  # the last one of the rollout
    ],
)
def test_what_is_not_finite_is_passed_on_and_named(what, when, message):
    envs = vectorised([lambda: Counter(truncates=4), lambda: Failing(what, when)])
    rollout = Rollout(ReplayedVector(stepper_of(envs)), Categorical(2), 6, seed=0)
    rollout.begin(0)
    batch, episodes = rollout.collect(uniform, lambda x: x[:, 0], 0)
    assert episodes.nonfinite is not None
    assert episodes.nonfinite == f"Counter: environment 1 of 2 {message} of a rollout"
    passed = [batch.rewards, batch.observations, batch.last_observations, batch.final_values]
    assert sum(int((~np.isfinite(x)).sum()) for x in passed) == 1
    assert (episodes.count, episodes.total_return) == ((1, 10.0) if what == "reward" else (2, 20.0))
    assert rollout.renew(1).any() == (what == "observation")
    batch, episodes = rollout.collect(uniform, lambda x: x[:, 0], 1)
    assert episodes.nonfinite is None
    # Whatever such an observation did to the environment's state must not stay: it begins afresh.
    assert batch.observations[0, 0, 0] == (2.0 if what == "reward" else 0.0)
    envs.close()
