"""A TensorFlow environment around another one: what it does not change is the other one's."""

import gymnasium as gym

from rlweights.learning.environments.base import Draw, Environment
from rlweights.weights.arrays import Tensor


class EnvironmentWrapper(Environment):
    """Another environment, of which a subclass changes something. Shapes as of `Environment`.

    Args:
        environment: The environment.
    """

    def __init__(self, environment: Environment):
        self.environment = environment
        self.id = environment.id
        self.max_episode_steps = environment.max_episode_steps
        self.deterministic = environment.deterministic

    @property
    def observation_space(self) -> gym.Space:
        """The environment's."""
        return self.environment.observation_space

    @property
    def action_space(self) -> gym.Space:
        """The environment's."""
        return self.environment.action_space

    def reset(self, num_envs: int, draw: Draw) -> Tensor:
        """Returns the states in which episodes of the environment begin."""
        return self.environment.reset(num_envs, draw)

    def step(self, state: Tensor, action: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """Advances every environment by a step."""
        return self.environment.step(state, action, draw)

    def observe(self, state: Tensor) -> Tensor:
        """Returns what the environment shows of `state`."""
        return self.environment.observe(state)

    def action_mask(self, state: Tensor) -> Tensor | None:
        """Returns the environment's masks."""
        return self.environment.action_mask(state)

    def phase(self, state: Tensor) -> Tensor | None:
        """Returns the environment's phases."""
        return self.environment.phase(state)
