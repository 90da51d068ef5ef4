"""Tests for `rlweights.learning.environments.in_turn`: what Gymnasium's own vector gives, to the last bit."""

import copy

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from rlweights.learning.environments.in_turn import SteppedInTurn
from rlweights.learning.environments.replay import SeededEpisodes


class InPlace(gym.Env):
    """Gives the same array again and again, changed in place; ends in both ways, and tells a phase."""

    action_space = spaces.MultiDiscrete([3, 2])
    observation_space = spaces.Box(-1e3, 1e3, (2, 2), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._observation = np.zeros((2, 2)) + self.np_random.random()
        self._steps = 0
        return self._observation, {"phase": int(self.np_random.integers(9))}

    def step(self, action):
        self._steps += 1
        self._observation += action[0] - 0.5 * action[1]
        return self._observation, 0.1 * action[0], self._steps == 5, self._observation.max() > 3.0, {"a": 1}


class OfParts(InPlace):
    """Gives a dict."""

    observation_space = spaces.Dict({"box": InPlace.observation_space, "steps": spaces.Discrete(9)})

    def _given(self):
        return {"box": self._observation, "steps": self._steps}

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed)
        return self._given(), info

    def step(self, action):
        return self._given(), *super().step(action)[1:]


@pytest.mark.parametrize("make", [lambda: gym.make("CartPole-v1"), InPlace, OfParts])
def test_it_gives_what_gymnasiums_own_vector_gives(make):
    makers = [lambda i=i: SeededEpisodes(make(), i, ["a"]) for i in range(3)]
    reference = gym.vector.SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP, copy=False)
    envs = SteppedInTurn(makers)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert_same(envs.reset(seed=3), reference.reset(seed=3))
    envs.action_space.seed(0)
    for i in range(60):
        if i % 20 == 19:  # some are begun anew while others run
            options = {"reset_mask": np.array([False, True, False])}
            assert_same(envs.reset(options=dict(options)), reference.reset(options=dict(options)))
        actions = envs.action_space.sample()
        given, expected = envs.step(actions), reference.step(actions)
        assert_same(given, expected)
        assert [array.dtype for array in given[1:4]] == [array.dtype for array in expected[1:4]]
        before = copy.deepcopy(given[1:4])
        envs.step(actions)
        reference.step(actions)
        assert_same(given[1:4], before)  # what is looked at after the rollout does not change


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, np.ndarray) and a.dtype == object:
        assert_same(tuple(a), tuple(b))
    else:
        np.testing.assert_array_equal(a, b)
