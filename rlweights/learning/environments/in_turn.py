"""Single environments that are stepped one after the other, with little work around each step."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import concatenate, iterate


class SteppedInTurn(gym.vector.SyncVectorEnv):
    """Gymnasium's `SyncVectorEnv` with autoreset in the same step: what it gives, in less time.

    Where an observation is one array it is written into its row at once, and infos that say nothing are not
    batched: with environments as quick as CartPole these cost a sixth of a step. Observations are not
    copied: the next step overwrites them.

    Args:
        makers: Make one environment each, in `SeededEpisodes`: what they return fits their spaces.
    """

    def __init__(self, makers: Any):
        super().__init__(makers, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
        single = isinstance(
            self.single_observation_space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary
        )
        self._rows: Any = self._observations if single else None

    def step(self, actions: Any) -> Any:
        """Steps all environments, and resets those whose episodes have ended."""
        infos: dict[str, Any] = {}
        rewards, terminations, truncations = [], [], []
        rows, kept = self._rows, self._env_obs
        for i, (env, action) in enumerate(zip(self.envs, iterate(self.action_space, actions), strict=True)):
            observation, reward, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                infos = self._add_info(infos, {"final_obs": observation, "final_info": info}, i)
                observation, info = env.reset()
            if info:
                infos = self._add_info(infos, info, i)
            rewards.append(reward)
            terminations.append(terminated)
            truncations.append(truncated)
            kept[i] = observation
            if rows is not None:
                rows[i] = observation
        if rows is None:
            self._observations = concatenate(self.single_observation_space, kept, self._observations)
        return (
            self._observations,
            np.array(rewards, np.float64),
            np.array(terminations, bool),
            np.array(truncations, bool),
            infos,
        )
