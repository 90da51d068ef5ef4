"""Environments that return what is not finite, as functions of TensorFlow and in Gymnasium, or that raise."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import tensorflow as tf
from gymnasium.envs.classic_control import CartPoleEnv

from rlweights.learning.environments.cartpole import CartPole


class Glitchy(CartPole):
    """CartPole with a NaN at chosen vector steps of the run, though not in evaluations."""

    id = "Glitchy"
    deterministic = False

    def __init__(self):
        super().__init__()
        self._observed: Any = tf.Variable(False, trainable=False)
        self._first = tf.Variable(-1, trainable=False)
        self._last = tf.Variable(-1, trainable=False)
        self._chance = tf.Variable(0.0, trainable=False)

    def plan(
        self, what: str = "reward", at: Sequence[int] = (), lasting: bool = False, chance: float = 0.0
    ) -> None:
        """Says what goes wrong in the first environment, from when to when, and with which chance in all."""
        self._observed.assign(what == "observation")
        self._first.assign(at[0] if at else -1)
        self._last.assign(10**6 if at and lasting else at[-1] if at else -1)
        self._chance.assign(chance)

    def step(self, state, action, draw):
        state, reward, terminated = super().step(state, action, draw)
        if draw.stream == "evaluation":
            return state, reward, terminated
        size = reward.shape[0]
        due = (draw.clock >= self._first) & (draw.clock <= self._last)
        bad = (due & (tf.range(size) == 0)) | (draw.uniform((size,), name="glitch") < self._chance)
        state = tf.where((bad & self._observed)[:, None], float("nan"), state)
        return state, tf.where(bad & ~self._observed, float("nan"), reward), terminated & ~bad


class GlitchyEnv(CartPoleEnv):
    """CartPole with a NaN at chosen steps, counted over all copies in the process: glitches pass.

    With a `lasting` fault every step from the first chosen one on returns it.
    """

    made = 0
    at: Sequence[int] = ()
    what = "reward"
    lasting = False

    @classmethod
    def plan(cls, what: str = "reward", at: Sequence[int] = (), lasting: bool = False) -> None:
        """Says what goes wrong from now on, and when."""
        cls.made, cls.what, cls.at, cls.lasting = 0, what, at, lasting

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        cls = type(self)
        cls.made += 1
        if cls.made in cls.at or (cls.lasting and cls.at and cls.made >= min(cls.at)):
            if cls.what == "reward":
                reward = float("nan")
            else:
                observation = np.full_like(observation, np.nan)
        return observation, reward, terminated, truncated, info


class FrailEnv(CartPoleEnv):
    """CartPole whose simulator goes away now and then, in steps and in resets, as its seed has it."""

    def reset(self, *, seed=None, options=None):
        found = super().reset(seed=seed, options=options)
        self._lives(0.3)
        return found

    def step(self, action):
        self._lives(0.04)
        return super().step(action)

    def _lives(self, chance: float) -> None:
        if self.np_random.random() < chance:
            raise ConnectionError("the simulator is gone")


GLITCHY, FRAIL = "Glitchy-v0", "Frail-v0"

if GLITCHY not in gym.registry:
    gym.register(GLITCHY, entry_point=GlitchyEnv, max_episode_steps=500, disable_env_checker=True)
    gym.register(FRAIL, entry_point=FrailEnv, max_episode_steps=500, disable_env_checker=True)
