import numpy as np
import pytest
import tensorflow as tf

from rlweights.learning import environments
from rlweights.learning.environments import CartPole, Chain, Draw, Drifting, MountainCar, Pendulum
from rlweights.learning.environments.drift import Sinusoid, Steps


def test_steps_hold_each_value_for_a_period_and_begin_again():
    schedule = Steps([1.0, 5.0, -2.0], period=10)
    clocks = [0, 9, 10, 19, 20, 29, 30, 2_000_000_000]
    expected = [1, 1, 5, 5, -2, -2, 1, [1, 5, -2][2_000_000_000 // 10 % 3]]
    np.testing.assert_array_equal(schedule(tf.constant(clocks)), np.array(expected, np.float32))
    for clock, value in zip(clocks, expected, strict=True):
        assert schedule(tf.constant(clock)).shape == []
        assert float(schedule(tf.constant(clock))) == value
        assert float(schedule(clock)) == value


def test_sinusoid_swings_between_its_bounds():
    schedule = Sinusoid(2.0, 6.0, period=8)
    values = schedule(tf.range(8)).numpy()
    np.testing.assert_allclose(values, 4 + 2 * np.sin(2 * np.pi * np.arange(8) / 8), atol=1e-6)
    np.testing.assert_array_equal(schedule(tf.range(8) + 8 * 200_000_000), values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Steps([], 10), "values must not be empty"),
        (lambda: Steps([1.0], 0), "period must be at least 1, got 0"),
        (lambda: Sinusoid(2.0, 1.0, 10), "low 2.0 lies above high 1.0"),
        (lambda: Sinusoid(1.0, 2.0, -3), "period must be at least 1, got -3"),
        (lambda: Drifting(CartPole()), "nothing drifts"),
        (
            lambda: Drifting(CartPole(), mass=Steps([1.0], 1)),
            "no parameter 'mass' that can drift; it has grav",
        ),
        (lambda: Drifting(CartPole(), sutton_barto_reward=Steps([1.0], 1)), "no parameter 'sutton"),
        (lambda: Drifting(Chain(), length=Steps([3.0], 1)), "it has none"),
        (
            lambda: environments.get("DriftingCartPole-v1", shape="square"),
            "'steps' or 'sinusoid', got 'square'",
        ),
        (
            lambda: environments.get("DriftingPendulum-v1", drift={"g": [1.0]}, g=2.0),
            "'g' cannot both drift and be 2.0",
        ),
        (lambda: environments.get("DriftingPendulum-v1", g=2.0), "'g' cannot both drift and be 2.0"),
    ],
)
def test_mistakes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_each_time_steps_like_an_environment_built_for_it():
    lengths, gravities = [0.5, 1.0, 0.3], [9.8, 5.0]
    drifting = Drifting(CartPole(masscart=2.0), length=Steps(lengths, 4), gravity=Steps(gravities, 6))
    state = Draw(0, 0).uniform([5, 4], -1.0, 1.0)
    action = tf.constant([0, 1, 0, 1, 1])
    for clock in range(0, 24, 3):
        fixed = CartPole(masscart=2.0, length=lengths[clock // 4 % 3], gravity=gravities[clock // 6 % 2])
        moved = drifting.step(state, action, Draw(0, tf.constant(clock)))
        for one, other in zip(moved, fixed.step(state, action, Draw(0, clock)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["DriftingCartPole-v1", "DriftingPendulum-v1"])
@pytest.mark.parametrize("shape", ["steps", "sinusoid"])
def test_many_times_in_one_batch_equal_one_by_one(name, shape):
    environment = environments.get(name, period=3, shape=shape)
    state = environment.reset(12, Draw(0, 0))
    action = tf.zeros([12, 1]) if name == "DriftingPendulum-v1" else tf.ones([12], tf.int32)
    clocks = tf.range(12)
    batch = environment.step(state, action, Draw(0, clocks))[0].numpy()
    for k in range(12):
        alone = environment.step(state[k : k + 1], action[k : k + 1], Draw(0, clocks[k]))[0]
        np.testing.assert_allclose(batch[k], alone[0], rtol=1e-6, atol=1e-6)
    # The same state again, all at one time: the physics did differ.
    frozen = environment.step(state, action, Draw(0, tf.constant(0)))[0].numpy()
    assert np.abs(batch - frozen).max() > 1e-2


def test_defaults_swap_the_direction_of_a_push():
    environment = environments.get("DriftingCartPole-v1", period=100)
    state, right = tf.zeros([1, 4]), tf.constant([1])
    velocities = [
        float(environment.step(state, right, Draw(0, tf.constant(t)))[0][0, 1])
        for t in (0, 99, 100, 199, 200)
    ]
    assert velocities[0] > 0.1
    np.testing.assert_allclose(velocities, velocities[0] * np.array([1, 1, -1, -1, 1]), rtol=1e-6)


def test_a_drift_of_an_agent_file():
    environment = environments.get(
        "DriftingPendulum-v1", drift={"max_torque": [1.0, 2.0], "mass": [1.0, 3.0]}, period=7, g=9.0
    )
    now = environment.at(tf.constant(8))
    assert isinstance(now, Pendulum)
    assert (float(now.max_torque), float(now.mass), now.g) == (2.0, 3.0, 9.0)
    assert environment.max_episode_steps == 200
    assert environment.observation_space == Pendulum().observation_space


def test_drift_reaches_reset_and_leaves_the_wrapped_environment_alone():
    class Launcher(MountainCar):
        def reset(self, num_envs, draw):
            return tf.fill([num_envs, 2], 1.0) * self.force

    inner = Launcher()
    drifting = Drifting(inner, force=Steps([2.0, 3.0], 5))
    assert drifting.id == "DriftingMountainCar-v0"
    np.testing.assert_array_equal(drifting.reset(2, Draw(0, tf.constant(5))), np.full([2, 2], 3.0))
    assert inner.force == 0.001
