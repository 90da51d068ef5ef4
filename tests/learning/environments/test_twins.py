"""Twins of Gymnasium's environments against the originals, transition by transition."""

import dataclasses
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from rlweights.learning import environments
from rlweights.learning.environments import Draw

PAIRS = 10_000
NEAR = 1e-5  # Pairs this close to a termination threshold may fall on either side of it.


@dataclasses.dataclass(frozen=True)
class Twin:
    """How to test one twin.

    Attributes:
        id: The Gymnasium id.
        low: Lower bounds of the states to try; wider than an episode gets, so that all limits are hit.
        high: Upper bounds of the states to try.
        margin: Distance of the next state [N, S] from the nearest termination threshold.
        start: Bounds of the uniform distribution of each column of the first state.
        terminates: Whether the pairs must contain terminations.
    """

    id: str
    low: list[float]
    high: list[float]
    margin: Callable[[np.ndarray], np.ndarray]
    start: list[tuple[float, float]]
    terminates: bool = True


def cartpole_margin(s):
    return np.minimum(abs(abs(s[:, 0]) - 2.4), abs(abs(s[:, 2]) - np.radians(12)))


def acrobot_margin(s):
    return abs(-np.cos(s[:, 0]) - np.cos(s[:, 0] + s[:, 1]) - 1)


def car_margin(goal, goal_velocity=0.0):
    def margin(s):
        slow = np.where(s[:, 0] > goal - NEAR, abs(s[:, 1] - goal_velocity), np.inf)
        return np.minimum(abs(s[:, 0] - goal), slow)

    return margin


def no_threshold(s):
    return np.full(len(s), np.inf)


PI = np.pi
CARTPOLE = Twin("CartPole-v1", [-2.5, -4, -0.25, -4], [2.5, 4, 0.25, 4], cartpole_margin, [(-0.05, 0.05)] * 4)
# Half of the velocities' limits: beyond, one Runge-Kutta step of 0.2 s amplifies float32's rounding.
ACROBOT = Twin(
    "Acrobot-v1",
    [-PI, -PI, -2 * PI, -4.5 * PI],
    [PI, PI, 2 * PI, 4.5 * PI],
    acrobot_margin,
    [(-0.1, 0.1)] * 4,
)
PENDULUM = Twin("Pendulum-v1", [-10, -8], [10, 8], no_threshold, [(-PI, PI), (-1, 1)], terminates=False)
CAR = Twin("MountainCar-v0", [-1.2, -0.07], [0.6, 0.07], car_margin(0.5), [(-0.6, -0.4), (0, 0)])
CONTINUOUS_CAR = Twin(
    "MountainCarContinuous-v0", [-1.2, -0.07], [0.6, 0.07], car_margin(0.45), [(-0.6, -0.4), (0, 0)]
)
TWINS = [CARTPOLE, ACROBOT, PENDULUM, CAR, CONTINUOUS_CAR]
all_twins = pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.id)


def random_pairs(twin: Twin, space: gym.Space, count: int):
    """Random states float32 [N, S], and actions; continuous ones reach beyond what is clipped."""
    rng = np.random.default_rng(1)
    states = rng.uniform(twin.low, twin.high, [count, len(twin.low)]).astype(np.float32)
    if isinstance(space, gym.spaces.Discrete):
        return states, rng.integers(space.n, size=count).astype(np.int32)
    assert isinstance(space, gym.spaces.Box)
    return states, (1.5 * rng.uniform(space.low, space.high, [count, *space.shape])).astype(np.float32)


def step_original(original, states, actions):
    """Steps Gymnasium's environment from each state."""
    observations, rewards, flags, following = [], [], [], []
    for state, action in zip(states, actions, strict=True):
        original.state = state.astype(np.float64)
        original.steps_beyond_terminated = None  # CartPole's memory of an episode that is over
        observation, reward, terminated, truncated, _ = original.step(action)
        assert not truncated
        observations.append(observation)
        rewards.append(reward)
        flags.append(terminated)
        following.append(original.state)
    return np.array(observations), np.array(rewards), np.array(flags), np.array(following, np.float64)


def assert_same_transitions(twin: Twin, environment, original, count: int, tolerance: float = 1e-5):
    states, actions = random_pairs(twin, original.action_space, count)
    observations, rewards, flags, following = step_original(original, states, actions)
    state, reward, terminated = environment.step(tf.constant(states), tf.constant(actions), Draw(0, 0))
    clear = twin.margin(following) > NEAR
    assert np.mean(~clear) < 1e-3
    assert flags.any() == twin.terminates
    assert not flags.all()
    np.testing.assert_array_equal(terminated.numpy()[clear], flags[clear])
    np.testing.assert_allclose(reward.numpy()[clear], rewards[clear], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(environment.observe(state), observations, rtol=tolerance, atol=tolerance)


@all_twins
def test_transitions_equal_gymnasium(twin):
    original = gym.make(twin.id).unwrapped
    assert_same_transitions(twin, environments.get(twin.id), original, PAIRS)


def test_acrobot_clips_velocities_and_wraps_angles_like_gymnasium():
    low, high = [-PI, -PI, -4 * PI, -9 * PI], [PI, PI, 4 * PI, 9 * PI]
    wild = dataclasses.replace(ACROBOT, low=low, high=high)
    environment, original = environments.get("Acrobot-v1"), gym.make("Acrobot-v1").unwrapped
    assert_same_transitions(wild, environment, original, 2_000, tolerance=2e-3)
    states, actions = random_pairs(wild, environment.action_space, 2_000)
    state = environment.step(tf.constant(states), tf.constant(actions), Draw(0, 0))[0].numpy()
    assert abs(state[:, :2]).max() <= PI + 1e-6
    assert np.sum(abs(state[:, 2:]) == np.array(high[2:], np.float32), axis=0).min() > 20


@pytest.mark.parametrize(
    ("twin", "options"),
    [
        (CARTPOLE, {"sutton_barto_reward": True}),
        (PENDULUM, {"g": 7.0}),
        (dataclasses.replace(CAR, margin=car_margin(0.5, 0.03)), {"goal_velocity": 0.03}),
        (dataclasses.replace(CONTINUOUS_CAR, margin=car_margin(0.45, 0.03)), {"goal_velocity": 0.03}),
    ],
    ids=lambda value: getattr(value, "id", None),
)
def test_options_of_gymnasium_mean_the_same(twin, options):
    original = gym.make(twin.id, **options).unwrapped
    assert_same_transitions(twin, environments.get(twin.id, **options), original, 2_000)


@pytest.mark.parametrize(
    ("twin", "parameters", "attributes"),
    [
        (
            CARTPOLE,
            {"gravity": 7.0, "masscart": 1.5, "masspole": 0.2, "length": 0.8, "force_mag": -6.0, "tau": 0.03},
            {
                "gravity": 7.0,
                "masscart": 1.5,
                "masspole": 0.2,
                "total_mass": 1.7,
                "length": 0.8,
                "polemass_length": 0.16,
                "force_mag": -6.0,
                "tau": 0.03,
            },
        ),
        (
            PENDULUM,
            {"mass": 1.3, "length": 0.7, "max_torque": 1.0, "max_speed": 6.0, "dt": 0.04},
            {"m": 1.3, "l": 0.7, "max_torque": 1.0, "max_speed": 6.0, "dt": 0.04},
        ),
        (
            ACROBOT,
            {
                "link_length_1": 0.9,
                "link_mass_1": 1.1,
                "link_mass_2": 0.8,
                "link_com_pos_1": 0.4,
                "link_com_pos_2": 0.6,
                "link_moi": 1.2,
            },
            {
                "LINK_LENGTH_1": 0.9,
                "LINK_MASS_1": 1.1,
                "LINK_MASS_2": 0.8,
                "LINK_COM_POS_1": 0.4,
                "LINK_COM_POS_2": 0.6,
                "LINK_MOI": 1.2,
            },
        ),
        (CAR, {"force": 0.002, "gravity": 0.003}, {"force": 0.002, "gravity": 0.003}),
        (CONTINUOUS_CAR, {"power": 0.002}, {"power": 0.002}),
    ],
    ids=lambda value: getattr(value, "id", None),
)
def test_physical_parameters_mean_what_the_originals_mean(twin, parameters, attributes):
    original = gym.make(twin.id).unwrapped
    for name, value in attributes.items():
        assert hasattr(original, name)
        setattr(original, name, value)
    assert_same_transitions(twin, environments.get(twin.id, **parameters), original, 2_000)


@all_twins
@pytest.mark.parametrize("autoreset", [False, True])
def test_first_states_are_distributed_as_in_gymnasium(twin, autoreset):
    environment = environments.get(twin.id)
    start = environments.reset_all(environment, 4096, Draw(3, 0)).state
    if autoreset:
        # Out of time everywhere, so that the step begins 4,096 new episodes.
        running = environments.VectorState(
            start, tf.fill([4096], environment.max_episode_steps), tf.zeros([4096])
        )
        space = environment.action_space
        actions = tf.constant(random_pairs(twin, space, 4096)[1])
        start = environments.step_all(environment, running, actions, Draw(3, 0))[0].state
    start = start.numpy()
    original = gym.make(twin.id).unwrapped
    original.reset(seed=0)
    reals = []
    for _ in range(2_000):
        original.reset()
        reals.append(original.state)
    reals = np.array(reals)
    for column, (low, high) in enumerate(twin.start):
        if low == high:
            assert np.all(start[:, column] == low)
            assert np.all(reals[:, column] == low)
            continue
        uniform = scipy.stats.uniform(low, high - low)
        assert scipy.stats.kstest(start[:, column], uniform.cdf).pvalue > 0.01
        assert scipy.stats.ks_2samp(start[:, column], reals[:, column]).pvalue > 0.01
        assert start[:, column].min() >= low
        assert start[:, column].max() <= high
    varied = start[:, [low < high for low, high in twin.start]]
    correlations = np.corrcoef(varied, rowvar=False) - np.eye(varied.shape[1])
    assert np.abs(correlations).max() < 0.05


@all_twins
def test_spaces_and_time_limit_equal_gymnasium(twin):
    environment, original = environments.get(twin.id), gym.make(twin.id)
    assert environment.id == original.spec.id
    assert environment.observation_space == original.observation_space
    assert environment.action_space == original.action_space
    assert environment.max_episode_steps == original.spec.max_episode_steps


@all_twins
def test_time_limit_cuts_where_gymnasium_cuts(twin):
    """An episode that nothing terminates, counted in Gymnasium; its last two steps in the twin."""
    environment, original = environments.get(twin.id), gym.make(twin.id)

    def act(observation):
        if twin is CARTPOLE:  # a hand-made controller that never drops the pole
            return np.int32(observation @ [0.1, 0.3, 1.0, 0.5] > 0)
        return np.int32(1) if isinstance(original.action_space, gym.spaces.Discrete) else np.zeros(1, "f4")

    observation, _ = original.reset(seed=0)
    steps, truncated = 0, False
    while not truncated:
        observation, _, terminated, truncated, _ = original.step(act(observation))
        assert not terminated
        steps += 1

    start = environments.reset_all(environment, 1, Draw(0, 0))
    action = tf.constant(np.array([act(observation)]))
    for elapsed, expected in ((steps - 2, False), (steps - 1, True)):
        running = start._replace(elapsed=tf.constant([elapsed]))
        outcome = environments.step_all(environment, running, action, Draw(0, 0))[1]
        assert bool(outcome.truncated[0]) is expected
        assert not outcome.terminated[0]
        assert int(outcome.episode_length[0]) == elapsed + 1
