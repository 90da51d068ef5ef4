"""Vector environments that take their seed at their construction, and ignore that of `reset`."""

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector.utils import batch_space


class Reseeded(gym.vector.VectorWrapper):
    """Makes the environments anew whenever `reset` gets a seed, so that they do depend on it.

    Args:
        make: From a seed to the environments.
        seed: The first seed.
        name: Their registered id.
    """

    def __init__(self, make: Callable[[int], gym.vector.VectorEnv], seed: int, name: str):
        super().__init__(_made(make, seed))
        self.single_observation_space = self.env.single_observation_space
        self.single_action_space = self.env.single_action_space
        # Envpool gives the single spaces here as well.
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._make = make
        self._name = name

    @property
    def spec(self) -> EnvSpec:
        """Only the id: what else is registered under it is not what steps here."""
        return EnvSpec(self._name)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Begins new episodes: with a seed, as if they had just been made with it."""
        if seed is not None:
            self.env.close()
            self.env = _made(self._make, seed)
        return self.env.reset(options=options)


def _made(make: Callable[[int], gym.vector.VectorEnv], seed: int) -> gym.vector.VectorEnv:
    """Makes the environments and lets them find their spaces, about whose float64 bounds Gymnasium warns."""
    envs = make(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*precision lowered")
        _ = envs.single_observation_space, envs.single_action_space
    return envs
