"""A TensorFlow environment whose actions come in half ranges around the middle of its bounds."""

import gymnasium as gym

from rlweights.learning.environments.base import Draw, Environment
from rlweights.weights.arrays import Array, Tensor


class Rescaled(Environment):
    """Another environment, for a policy that works in half ranges: `environment.rescale_actions`.

    Args:
        environment: The environment.
        middle: Of the bounds of each dimension [A].
        half: Half the range of each dimension [A].
    """

    def __init__(self, environment: Environment, middle: Array, half: Array):
        self.environment = environment
        self.id = environment.id
        self.max_episode_steps = environment.max_episode_steps
        self.deterministic = environment.deterministic
        self._middle, self._half = middle, half

    @property
    def observation_space(self) -> gym.Space:
        """The environment's."""
        return self.environment.observation_space

    @property
    def action_space(self) -> gym.Space:
        """The environment's, in its own units."""
        return self.environment.action_space

    def reset(self, num_envs: int, draw: Draw) -> Tensor:
        """Returns the states in which episodes begin."""
        return self.environment.reset(num_envs, draw)

    def step(self, state: Tensor, action: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """Advances every environment by a step with actions [N, A] in half ranges around the middle."""
        return self.environment.step(state, action * self._half + self._middle, draw)

    def observe(self, state: Tensor) -> Tensor:
        """Returns what the agent sees of `state`."""
        return self.environment.observe(state)
