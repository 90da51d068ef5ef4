"""Environments that raise on every action that their mask forbids; masks are others at each step."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import tensorflow as tf
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from rlweights.learning.environments.base import Environment

PARTS = {"discrete": spaces.Discrete(4, start=3), "multi": spaces.MultiDiscrete([2, 3], start=[1, 5])}
"""Spaces of actions whose masks have four and five entries."""


def counts(space) -> list[int]:
    return [int(n) for n in np.ravel(space.nvec if isinstance(space, spaces.MultiDiscrete) else space.n)]


def drawn(rng, space) -> np.ndarray:
    """A random mask [P]: of each part at least one action is allowed, and often only one."""
    parts = []
    for n in counts(space):
        part = rng.random(n) < 0.3
        part[rng.integers(n)] = True
        parts.append(part)
    return np.concatenate(parts).astype(np.int8)


class Strict(gym.Env):
    """Six steps; the reward is 1 for the first action that is allowed.

    Args:
        kind: Of `PARTS`.
        source: Where it tells its masks: "info", "method", "observation"; "" nowhere.
        full: Whether all actions are always allowed.
        empty: The step whose mask allows nothing.
    """

    metadata: ClassVar[dict] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, kind="discrete", source="info", full=False, empty=-1, render_mode=None):
        self.action_space = PARTS[kind]
        self.source, self.full, self.empty = source, full, empty
        self.render_mode = render_mode
        self.size = sum(counts(self.action_space))
        inner = spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.observation_space: Any = inner
        if source == "observation":
            mask = spaces.Box(0, 1, (self.size,), np.int8)
            self.observation_space = spaces.Dict({"action_mask": mask, "look": inner})
        if source == "method":
            self.action_masks = lambda: self.mask.astype(bool)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._seen()

    def _seen(self):
        look = self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32)
        self.mask = drawn(self.np_random, self.action_space)
        if self.full:
            self.mask[:] = 1
        if self.steps in (self.empty, 6):
            self.mask[:] = 0
        if self.source == "observation":
            return {"look": look, "action_mask": self.mask.copy()}, {}
        return look, ({"action_mask": self.mask.copy()} if self.source == "info" else {})

    def step(self, action):
        first = np.ravel(getattr(self.action_space, "start", 0))
        places = np.ravel(action) - first
        parts = np.split(self.mask, np.cumsum(counts(self.action_space))[:-1])
        for place, part in zip(places, parts, strict=True):
            if not part[place]:
                raise ValueError(f"action {place} is forbidden by {part}")
        reward = float(
            all(place == np.flatnonzero(part)[0] for place, part in zip(places, parts, strict=True))
        )
        self.steps += 1
        return (observed := self._seen())[0], reward, self.steps == 6, False, observed[1]

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)


class StrictVector(gym.vector.VectorEnv):
    """Two columns of `Strict`, stepped as one, in any autoreset mode; its state cannot be read."""

    def __init__(self, num_envs=2, mode=AutoresetMode.SAME_STEP, **arguments):
        self.num_envs, self.metadata = num_envs, {"autoreset_mode": mode}
        self._envs = [Strict(**arguments) for _ in range(num_envs)]
        self.single_observation_space = self._envs[0].observation_space
        self.single_action_space = self._envs[0].action_space
        batch = gym.vector.utils.batch_space
        self.observation_space = batch(self.single_observation_space, num_envs)
        self.action_space = batch(self.single_action_space, num_envs)
        self._ended = np.zeros(num_envs, bool)

    def _given(self, told):
        observations = np.stack([observation for observation, _ in told])
        info: dict[str, Any] = {}
        for n, (_, each) in enumerate(told):
            info = self._add_info(info, each, n)
        return observations, info

    def reset(self, *, seed=None, options=None):
        which = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        told = []
        for n, env in enumerate(self._envs):
            told.append(
                env.reset(seed=None if seed is None else seed + n) if which[n] else (env_look(env), {})
            )
        self._ended[which] = False
        return self._given(told)

    def step(self, actions):
        mode, told, finals = self.metadata["autoreset_mode"], [], np.empty(self.num_envs, object)
        rewards, terminated = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        for n, env in enumerate(self._envs):
            if mode is AutoresetMode.NEXT_STEP and self._ended[n]:
                told.append(env.reset())
                continue
            observation, rewards[n], terminated[n], _, info = env.step(actions[n])
            if mode is AutoresetMode.SAME_STEP and terminated[n]:
                finals[n] = observation
                observation, info = env.reset()
            told.append((observation, info))
        self._ended = terminated.copy()
        observations, info = self._given(told)
        if mode is AutoresetMode.SAME_STEP and terminated.any():
            info |= {"final_obs": finals, "_final_obs": terminated}
        return observations, rewards, terminated, np.zeros(self.num_envs, bool), info


def env_look(env):
    return np.zeros(3, np.float32)


class StrictTensors(Environment):
    """Its state counts up; the actions of the state's parity are allowed, and another one costs 100."""

    id = "StrictTensors"
    max_episode_steps = 5

    def __init__(self, empty: bool = False):
        self.empty = empty

    @property
    def observation_space(self):
        return spaces.Box(0.0, 100.0, (1,), np.float32)

    @property
    def action_space(self):
        return spaces.Discrete(4)

    def reset(self, num_envs, draw):
        return tf.floor(draw.uniform([num_envs, 1], 0.0, 3.0))

    def action_mask(self, state):
        parity = tf.math.floormod(tf.cast(state, tf.int32), 2)
        mask = tf.math.floormod(tf.range(4)[None], 2) == parity
        return mask & (state < 3.0) if self.empty else mask

    def step(self, state, action, draw):
        fits = tf.math.floormod(action, 2) == tf.math.floormod(tf.cast(state[:, 0], tf.int32), 2)
        return state + 1.0, tf.where(fits, 1.0, -100.0), state[:, 0] > 6.0


class AllAllowed(StrictTensors):
    """Its masks allow everything."""

    def action_mask(self, state):
        return super().action_mask(state) | True
