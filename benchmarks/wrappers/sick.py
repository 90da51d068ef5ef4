"""Wrappers that make an environment sick, for `ward.py`."""

import gymnasium as gym
import numpy as np


class RewardTimes(gym.RewardWrapper):
    """Multiplies every reward."""

    def __init__(self, env: gym.Env, factor: float):
        super().__init__(env)
        self.factor = factor

    def reward(self, reward: float) -> float:
        """Returns the reward times the factor."""
        return self.factor * float(reward)


class EndPenalty(gym.Wrapper):
    """Adds a reward where an episode is ended by the environment."""

    def __init__(self, env: gym.Env, value: float):
        super().__init__(env)
        self.value = value

    def step(self, action: object) -> tuple:
        """Steps, and adds the value at an end."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward) + self.value * bool(terminated), terminated, truncated, info


class OneFeatureTimes(gym.ObservationWrapper):
    """Multiplies the first number of the observation, and adds as much."""

    def __init__(self, env: gym.Env, factor: float):
        super().__init__(env)
        self.factor = factor
        shape = env.observation_space.shape
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, shape, np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Returns the changed numbers."""
        changed = np.array(observation, np.float32)
        changed[0] = self.factor * (1.0 + changed[0])
        return changed
