"""Tiny environments whose returns, values and best actions are known by hand.

The probes follow Jones, "Debugging Reinforcement Learning Systems", 2021: each adds one thing that a
learner must get right, so the first one that fails says where to look.
"""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv


class Probe(gym.Env):
    """Two actions, one number as observation."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space: spaces.Space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.first()
        return self.observation(), {}

    def first(self) -> float:
        return 0.0

    def observation(self):
        return np.array([self.state], np.float32)

    def random_sign(self) -> float:
        return float(self.np_random.choice([-1.0, 1.0]))


class ConstantReward(Probe):
    """One step, reward 1. V(0) = 1."""

    def step(self, action):
        return self.observation(), 1.0, True, False, {}


class ObservedReward(Probe):
    """One step, the reward is the observation, -1 or 1. V(x) = x."""

    def first(self):
        return self.random_sign()

    def step(self, action):
        return self.observation(), self.state, True, False, {}


class DelayedReward(Probe):
    """Two steps, observed as 0 and 1; the reward of 1 comes with the second. V(0) = gamma, V(1) = 1."""

    def step(self, action):
        if self.state == 0.0:
            self.state = 1.0
            return self.observation(), 0.0, False, False, {}
        return self.observation(), 1.0, True, False, {}


class ActionMatters(Probe):
    """One step; action 1 is rewarded by 1, action 0 by -1."""

    def step(self, action):
        return self.observation(), 2.0 * int(action) - 1.0, True, False, {}


class ActionMustMatch(Probe):
    """One step; the action must match the observation: 1 for 1, 0 for -1."""

    def first(self):
        return self.random_sign()

    def step(self, action):
        return self.observation(), self.state * (2.0 * int(action) - 1.0), True, False, {}


class ContinuousMustMatch(ActionMustMatch):
    """One step; the reward falls with the squared distance between the action and the observation / 2."""

    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def step(self, action):
        return self.observation(), -float((action[0] - self.state / 2.0) ** 2), True, False, {}


class Counter(gym.Env):
    """Observes the steps taken in the episode; step k (from 1) is rewarded by k.

    Args:
        terminates: Length at which episodes terminate.
        truncates: Length at which they are cut off.
    """

    observation_space = spaces.Box(0.0, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, terminates: int = 10**6, truncates: int = 10**6):
        self.terminates, self.truncates = terminates, truncates

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        ends = self.count >= self.terminates
        return np.array([self.count], np.float32), float(self.count), ends, self.count >= self.truncates, {}


class Scripted(gym.Env):
    """Observes and rewards what it is told to; notes its actions.

    Args:
        space: Observation space.
        observe: From the step in the episode to an observation.
        action_space: Action space.
        length: Length at which episodes are cut off.
        reward: From the step in the episode to a reward.
    """

    def __init__(
        self,
        space: spaces.Space,
        observe: Callable[[int], Any],
        action_space: spaces.Space | None = None,
        length: int = 3,
        reward: Callable[[int], Any] = float,
    ):
        self.observation_space = space
        self.action_space = action_space or spaces.Discrete(2)
        self.observe, self.length, self.reward = observe, length, reward
        self.actions: list[Any] = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.observe(0), {}

    def step(self, action):
        self.actions.append(action)
        self.count += 1
        return self.observe(self.count), self.reward(self.count), False, self.count >= self.length, {}


def vectorised(
    makers: Sequence[Callable[[], gym.Env]], mode: AutoresetMode = AutoresetMode.SAME_STEP, kind: str = "sync"
) -> Any:
    """A vector environment of several single ones."""
    cls = {"sync": SyncVectorEnv, "async": AsyncVectorEnv}[kind]
    return cls(list(makers), autoreset_mode=mode)
