"""A TensorFlow environment whose observations have its masks of allowed actions behind them."""

import gymnasium as gym
import tensorflow as tf

from rlweights.learning.environments.base import Draw, Environment
from rlweights.weights.arrays import Tensor


class Masked(Environment):
    """Another environment, as an agent with masks sees it: observations [N, D + P], flat.

    Args:
        environment: The environment; its `action_mask` returns masks.
    """

    def __init__(self, environment: Environment):
        self.environment = environment
        self.id = environment.id
        self.max_episode_steps = environment.max_episode_steps
        self.deterministic = environment.deterministic

    @property
    def observation_space(self) -> gym.Space:
        """The environment's, without masks."""
        return self.environment.observation_space

    @property
    def action_space(self) -> gym.Space:
        """The environment's."""
        return self.environment.action_space

    def reset(self, num_envs: int, draw: Draw) -> Tensor:
        """Returns the states in which episodes begin."""
        return self.environment.reset(num_envs, draw)

    def step(self, state: Tensor, action: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """Advances every environment by a step."""
        return self.environment.step(state, action, draw)

    def observe(self, state: Tensor) -> Tensor:
        """Returns what the agent sees of `state`, and which actions it may choose."""
        seen, mask = self.environment.observe(state), self.environment.action_mask(state)
        assert mask is not None
        return tf.concat([tf.reshape(seen, [seen.shape[0], -1]), tf.cast(mask, seen.dtype)], axis=1)

    def phase(self, state: Tensor) -> Tensor | None:
        """Returns the environment's phases."""
        return self.environment.phase(state)
