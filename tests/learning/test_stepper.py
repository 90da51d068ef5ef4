"""Vector environments as arrays: encodings through every mode, and errors that name the environment."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from rlweights.errors import BrokenEnvironment
from support.builders import stepper_of
from support.probes import Counter, Scripted, vectorised

NESTED = spaces.Dict(
    {
        "place": spaces.Tuple((spaces.Discrete(3, start=1), spaces.MultiBinary(2))),
        "speed": spaces.Box(-1.0, 1.0, (2,), np.float64),
    }
)


def nested(t):
    return {"place": (np.int64(1 + t % 3), np.array([t % 2, 1], np.int8)), "speed": np.array([t / 10, 0.5])}


def encoded(t):
    return [t % 3 == 0, t % 3 == 1, t % 3 == 2, t % 2, 1, t / 10, 0.5]


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_nested_observations_and_their_final_ones(mode, kind):
    envs = vectorised([lambda: Scripted(NESTED, nested, length=3)] * 2, mode, kind)
    stepper = stepper_of(envs)
    np.testing.assert_allclose(stepper.reset(0), [encoded(0)] * 2)
    for t in (1, 2):
        np.testing.assert_allclose(stepper.step(np.zeros(2, int)).observations, [encoded(t)] * 2)
    last = stepper.step(np.zeros(2, int))
    assert last.truncated.all()
    if mode is AutoresetMode.NEXT_STEP:
        np.testing.assert_allclose(last.observations, [encoded(3)] * 2)
        after = stepper.step(np.zeros(2, int))
        assert not after.valid.any()
        np.testing.assert_allclose(after.observations, [encoded(0)] * 2)
        assert stepper.step(np.zeros(2, int)).valid.all()
    else:
        assert list(last.finals) == [0, 1]
        np.testing.assert_allclose(last.finals[1], encoded(3), rtol=1e-6)
        np.testing.assert_allclose(last.observations, [encoded(0)] * 2)
    envs.close()


def test_one_seed_gives_each_environment_its_own():
    envs = gym.make_vec("CartPole-v1", 3, vectorization_mode="sync")
    stepper = stepper_of(envs)
    first = stepper.reset(7)
    assert len({tuple(row) for row in first}) == 3
    np.testing.assert_array_equal(first, stepper.reset(7))
    assert (first != stepper.reset(8)).any()
    envs.close()


def test_reset_forgets_a_pending_autoreset():
    envs = vectorised([lambda: Counter(terminates=1)], AutoresetMode.NEXT_STEP)
    stepper = stepper_of(envs)
    stepper.reset(0)
    assert stepper.step(np.zeros(1, int)).ended.all()
    stepper.reset(0)
    assert stepper.step(np.zeros(1, int)).valid.all()


class Vector(VectorEnv):
    """A vector environment of one's own, which returns what it is told to."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    single_observation_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
    single_action_space = spaces.Discrete(2)
    num_envs = 2

    def __init__(self, **returned):
        self.returned = returned

    def reset(self, *, seed=None, options=None):
        return self.returned.get("first", np.zeros((2, 4), np.float32)), {}

    def step(self, actions):
        given = self.returned.get
        return (
            given("observations", np.zeros((2, 4), np.float32)),
            given("rewards", np.zeros(2)),
            given("terminated", np.zeros(2, bool)),
            given("truncated", np.zeros(2, bool)),
            given("info", {}),
        )


def test_a_reset_step_earns_nothing():
    stepper = stepper_of(Vector(terminated=np.array([True, False]), rewards=np.array([3.0, 4.0])))
    stepper.reset(0)
    np.testing.assert_array_equal(stepper.step(np.zeros(2, int)).rewards, [3.0, 4.0])
    step = stepper.step(np.zeros(2, int))
    np.testing.assert_array_equal(step.valid, [False, True])
    np.testing.assert_array_equal(step.rewards, [0.0, 4.0])


WRONG = {
    "too few numbers": ({"observations": np.zeros((2, 3))}, r"Vector: observations .* Box.* \(2, 3\)"),
    # 8 numbers could be reshaped to 2 x 4 although nothing else fits.
    "too few environments": ({"observations": np.zeros((1, 4))}, r"observations of 2 .* \(1, 4\)"),
    "text": ({"observations": ["left", "right"]}, r"observations .* shape \(2,\), \['left', 'right'\]"),
    "nothing": ({"observations": None}, r"observations .* object of shape \(\), \[None\]"),
    "ragged": ({"observations": [[1.0], [1.0, 2.0]]}, r"observations .* a list of unequal parts"),
    "a single reward": ({"rewards": 1.0}, r"rewards must be numbers of shape \(2,\): float64 of shape \(\)"),
    "a column of rewards": ({"rewards": np.zeros((2, 1))}, r"rewards must be .* \(2, 1\)"),
    "rewards in words": ({"rewards": np.array(["a", "b"])}, r"rewards must be numbers .*'a'"),
    "integer ends": ({"terminated": np.zeros(2, int)}, r"terminations must be booleans .* int64"),
    "missing ends": ({"truncated": None}, r"truncations must be booleans"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_named(case):
    returned, message = WRONG[case]
    stepper = stepper_of(Vector(**returned))
    stepper.reset(0)
    with pytest.raises(BrokenEnvironment, match=message):
        stepper.step(np.zeros(2, int))


def test_first_observation_is_checked_too():
    with pytest.raises(BrokenEnvironment, match=r"Vector: observations .* \(2, 5\)"):
        stepper_of(Vector(first=np.zeros((2, 5)))).reset(0)


def test_images_must_keep_their_dtype():
    class Pixels(Vector):
        single_observation_space = spaces.Box(0, 255, (40, 40, 3), np.uint8)

    stepper = stepper_of(Pixels(first=np.zeros((2, 40, 40, 3), np.float32)))
    with pytest.raises(BrokenEnvironment, match=r"Pixels: .* uint8\).*float32 of shape \(2, 40, 40, 3\)"):
        stepper.reset(0)


def test_final_observation_must_be_in_the_info():
    class SameStep(Vector):
        metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    stepper = stepper_of(SameStep(truncated=np.array([False, True])))
    stepper.reset(0)
    with pytest.raises(BrokenEnvironment, match=r"SameStep: .* no info\['final_obs'\]\[1\]"):
        stepper.step(np.zeros(2, int))


def test_final_observations_are_copies_of_what_a_vector_changes_in_place():
    class Reusing(Vector):
        metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012
        final = np.zeros((2, 4), np.float32)

        def step(self, actions):
            self.final += 0.25
            observations, rewards, terminated, truncated, _ = super().step(actions)
            return observations, rewards, terminated, truncated, {"final_obs": self.final}

    stepper = stepper_of(Reusing(truncated=np.array([False, True])))
    stepper.reset(0)
    finals = [stepper.step(np.zeros(2, int)).finals[1] for _ in range(3)]
    assert [final[0] for final in finals] == [0.25, 0.5, 0.75]


def test_environment_without_a_mode_is_taken_as_gymnasium_has_it():
    class Silent(Vector):
        metadata = {}  # noqa: RUF012

    assert stepper_of(Silent()).mode is AutoresetMode.NEXT_STEP


class Raising(Counter):
    def step(self, action):
        raise ZeroDivisionError("no wind")


class Seedless(Counter):
    def reset(self, options=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        return np.zeros(1, np.float32), {}


def test_an_exception_is_chained_and_named():
    stepper = stepper_of(vectorised([Raising]))
    stepper.reset(0)
    with pytest.raises(
        BrokenEnvironment,
        match=r"^Raising: step\(\) raised ZeroDivisionError: no wind \(test_stepper.py, line ",
    ) as e:
        stepper.step(np.zeros(1, int))
    assert isinstance(e.value.__cause__, ZeroDivisionError)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*ERROR:UserWarning")
def test_an_exception_in_a_worker_process_is_named_and_leaves_nothing_running():
    envs = vectorised([Counter, Raising], kind="async")
    stepper = stepper_of(envs)
    stepper.reset(0)
    with pytest.raises(BrokenEnvironment, match=r"step\(\) raised ZeroDivisionError: no wind"):
        stepper.step(np.zeros(2, int))
    envs.close()
    assert not any(process.is_alive() for process in envs.processes)


def test_an_environment_without_a_seed_is_refused():
    with pytest.raises(BrokenEnvironment, match=r"Seedless: reset\(\) raised TypeError: .*'seed'"):
        stepper_of(vectorised([Seedless])).reset(0)


def test_a_registered_environment_is_called_by_its_id():
    envs = gym.make_vec("CartPole-v1", 2, vectorization_mode="sync")
    assert stepper_of(envs).name == "CartPole-v1"
    envs.close()


def test_unsupported_spaces_are_refused_at_once():
    space = spaces.Text(5)
    with pytest.raises(ValueError, match="unsupported observation space: Text"):
        stepper_of(vectorised([lambda: Scripted(space, lambda t: "a")]))
