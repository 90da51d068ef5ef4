"""A MuJoCo body that changes by phases: each change against the body as it is."""

import gymnasium as gym
import numpy as np
import pytest

from rlweights.learning.environments import ChangingMujoco

pytestmark = pytest.mark.filterwarnings("ignore:.*settotalmass.*")
PERIOD = 20


def cheetah():
    return gym.make("HalfCheetah-v5", max_episode_steps=8)


def changing(*changes, **arguments):
    return ChangingMujoco(cheetah(), list(changes), **({"period": PERIOD} | arguments))


def actions(count=5, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 6)).astype(np.float32)


def run(env, seed=0, count=5):
    """Observations, rewards and infos of a few steps after a reset."""
    first, info = env.reset(seed=seed)
    steps = [env.step(action) for action in actions(count)]
    return (
        np.array([first, *(s[0] for s in steps)]),
        np.array([s[1] for s in steps]),
        [info, *(s[4] for s in steps)],
    )


def in_phase(env, phase):
    env.steps_made = phase * PERIOD
    return env


def test_the_first_phase_is_the_body_itself():
    seen, rewards, infos = run(changing("direction", "motors", "sensors", "friction", "gravity"))
    expected = run(cheetah())
    np.testing.assert_array_equal(seen, expected[0])
    np.testing.assert_allclose(rewards, expected[1], rtol=1e-6)  # signs make actions float64
    assert all(info["phase"] == 0 for info in infos)


def test_direction_changes_the_sign_of_the_forward_reward_only():
    env = changing("direction")
    plain = run(cheetah())
    forward = np.array([info["reward_forward"] for info in plain[2][1:]])
    for phase, sign in ((1, -1.0), (2, 1.0), (5, -1.0)):
        seen, rewards, infos = run(in_phase(env, phase))
        np.testing.assert_array_equal(seen, plain[0])
        np.testing.assert_allclose(rewards, plain[1] - forward + sign * forward, rtol=1e-6)
        assert infos[0]["phase"] == phase


def test_motors_and_sensors_change_places_and_signs():
    motors, sensors, plain = changing("motors"), changing("sensors"), cheetah()
    in_phase(motors, 3).reset(seed=1)
    plain.reset(seed=1)
    order, signs = motors._motors
    assert sorted(order) == list(range(6))
    for action in actions():
        seen = motors.step(action)[0]
        np.testing.assert_array_equal(seen, plain.step(action[order] * signs)[0])
    there = run(in_phase(sensors, 3))[0]
    order, signs = sensors._sensors
    np.testing.assert_allclose(there, run(cheetah())[0][:, order] * signs)
    assert sorted(order) == list(range(17))
    assert np.any(signs < 0)


def test_friction_and_gravity_change_the_world_and_come_back():
    env = changing("friction", "gravity")
    model = env.unwrapped.model
    friction, gravity = model.geom_friction.copy(), model.opt.gravity.copy()
    factors = []
    for phase in range(1, 30):
        in_phase(env, phase).reset(seed=0)
        np.testing.assert_array_equal(model.geom_friction[:, 1:], friction[:, 1:])
        ratio = model.geom_friction[:, 0] / friction[:, 0]
        np.testing.assert_allclose(ratio, ratio[0])
        factors.append((ratio[0], model.opt.gravity[2] / gravity[2]))
    low, high = np.min(factors, axis=0), np.max(factors, axis=0)
    assert 10**-1.3 < low[0] < 0.15
    assert 2.0 < high[0] < 10**0.7
    assert 0.5 < low[1] < 0.7
    assert 1.3 < high[1] < 1.5
    in_phase(env, 0).reset(seed=0)
    np.testing.assert_array_equal(model.geom_friction, friction)
    np.testing.assert_array_equal(model.opt.gravity, gravity)


def test_a_phase_lasts_from_an_episodes_reset_to_its_end():
    env = changing("direction")
    env.reset(seed=0)
    phases = []
    for step in range(3 * PERIOD):
        *_, truncated, info = env.step(actions(1, step)[0])
        phases.append(info["phase"])
        if truncated:
            assert env.reset()[1]["phase"] == env.steps_made // PERIOD
    assert env.steps_made == 3 * PERIOD
    # Episodes of 8 steps begin at 0, 8, 16 | 24, 32 | 40 ...: the one that begins at 16 ends in phase 0.
    assert phases[PERIOD : PERIOD + 4] == [0] * 4
    assert phases[PERIOD + 4 : 40] == [1] * 16
    assert phases[40:48] == [2] * 8


def test_environments_side_by_side_change_alike_and_the_seed_decides():
    one, other, third = changing("motors"), changing("motors"), changing("motors", seed=1)
    for env in (one, other, third):
        in_phase(env, 2).reset(seed=0)
    np.testing.assert_array_equal(one._motors, other._motors)
    assert not np.array_equal(one._motors, third._motors)


def test_a_change_means_the_same_with_and_without_others():
    alone, together = changing("sensors"), changing("motors", "sensors", "friction")
    for env in (alone, together):
        in_phase(env, 4).reset(seed=0)
    np.testing.assert_array_equal(alone._sensors, together._sensors)


def test_the_phase_can_be_told():
    env = changing("direction", phase=1)
    assert run(env)[2][-1]["phase"] == 1
    np.testing.assert_array_equal(run(env)[1], run(in_phase(changing("direction"), 1))[1])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"changes": ["wind"]}, r"changes must be some of direction, .*, gravity, got \['wind'\]"),
        ({"changes": []}, "changes must be some of"),
        ({"changes": "motors"}, "changes must be some of"),
        ({"period": 0}, "period must be at least 1, got 0"),
        ({"phase": -2}, "phase must be at least 0, got -2"),
    ],
)
def test_bad_arguments_are_named(arguments, says):
    with pytest.raises(ValueError, match=says):
        ChangingMujoco(cheetah(), **arguments)


def test_it_is_for_mujoco():
    with pytest.raises(ValueError, match=r"CartPole-v1 is no MuJoCo environment"):
        ChangingMujoco(gym.make("CartPole-v1"))
