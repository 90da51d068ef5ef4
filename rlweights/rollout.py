"""Rollouts in Gymnasium vector environments.

Shapes: T steps of N environments, time-major [T, N, ...].
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from rlweights.distributions import Distribution
from rlweights.learner import Batch
from rlweights.spaces import action_decoder, observation_encoder


class BrokenEnvironment(RuntimeError):
    """An environment did what no environment may do; the message names it and says what came."""


@dataclass
class Episodes:
    """The episodes that ended in one iteration."""

    count: int = 0
    total_return: float = 0.0
    total_length: int = 0


class Rollout:
    """Steps a vector environment with a policy, and knows which steps belong together.

    Every autoreset mode is handled. Under NEXT_STEP the step after an end ignores its action: it is kept,
    but `valid` is 0, and the observation before it is the final one. Under SAME_STEP the final observation
    comes in the info. With autoreset disabled the environments that ended are reset here.

    Args:
        envs: The vector environment.
        distribution: Of the actions, over the policy's output.
        n_steps: Steps T of each environment in one rollout.
        seed: Seed of the action noise and of the environments.
    """

    def __init__(self, envs: gym.vector.VectorEnv, distribution: Distribution, n_steps: int, seed: int):
        self.envs = envs
        self.encoder = observation_encoder(envs.single_observation_space)
        self.decode = action_decoder(envs.single_action_space)
        self.distribution = distribution
        self.n_steps = n_steps
        self.seed = seed
        self.num_envs = envs.num_envs
        self.name = envs.spec.id if envs.spec else type(envs).__name__
        mode = envs.metadata.get("autoreset_mode")
        self.mode = mode if isinstance(mode, AutoresetMode) else AutoresetMode.NEXT_STEP
        self._observations: Any = None
        self._resets: Any = None
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)

    def reset(self, iteration: int) -> None:
        """Resets all environments with seeds that derive from (seed, iteration); running episodes are cut."""
        state = np.random.SeedSequence([self.seed, iteration]).generate_state(self.num_envs, np.uint32)
        observations, _ = self.envs.reset(seed=[int(s >> 1) for s in state])
        self._observations = self._encoded(observations)
        self._resets = np.zeros(self.num_envs, bool)
        self._returns[:] = 0.0
        self._lengths[:] = 0

    def collect(
        self,
        policy: Callable[[np.ndarray], np.ndarray],
        value: Callable[[np.ndarray], np.ndarray],
        iteration: int,
    ) -> tuple[Batch, Episodes]:
        """Collects one rollout.

        Args:
            policy: From observations [N, ...] to distribution parameters [N, P], at the acting weights.
            value: From observations [K, ...] to V [K]; called for the ends that are no terminations.
            iteration: Numbers the rollout; the action noise is a function of (seed, iteration).
        """
        T, N = self.n_steps, self.num_envs
        rng = np.random.Generator(np.random.Philox(key=np.array([self.seed, iteration], np.uint64)))
        noise = self.distribution.noise(rng, (T, N))
        observations = np.empty((T, N, *self.encoder.shape), self.encoder.dtype)
        actions = np.empty((T, N, *self.distribution.action_shape), self.distribution.action_dtype)
        rewards, terminated, truncated = (np.empty((T, N), np.float32) for _ in range(3))
        valid = np.ones((T, N), np.float32)
        final_values, has_final = (np.zeros((T, N), np.float32) for _ in range(2))
        finals: list[tuple[int, int, np.ndarray]] = []
        episodes = Episodes()
        current = self._observations
        for t in range(T):
            observations[t] = current
            action = self.distribution.sample_numpy(policy(current), noise[t])
            actions[t] = action
            raw, reward, terminations, truncations, info = self.envs.step(self.decode(action))
            rewards[t], terminated[t], truncated[t] = reward, terminations, truncations
            if self._resets.any():
                valid[t] = ~self._resets
            ended = terminations | truncations
            self._returns += reward
            self._lengths += ~self._resets
            current = self._encoded(raw)
            if self.mode is AutoresetMode.NEXT_STEP:
                self._resets = ended
            if ended.any():
                episodes.count += int(ended.sum())
                episodes.total_return += float(self._returns[ended].sum())
                episodes.total_length += int(self._lengths[ended].sum())
                self._returns[ended] = 0.0
                self._lengths[ended] = 0
                if self.mode is not AutoresetMode.NEXT_STEP:
                    current = self._separate(t, ended, terminations, current, info, finals, has_final)
        self._observations = current
        if finals:
            times, places, states = zip(*finals, strict=True)
            final_values[list(times), list(places)] = value(np.stack(states))
        batch = Batch(
            observations,
            actions,
            rewards,
            terminated,
            truncated,
            valid,
            current,
            final_values,
            has_final,
        )
        return batch, episodes

    def _separate(self, t, ended, terminations, current, info, finals, has_final) -> np.ndarray:
        """Keeps the final observations of cut episodes apart; returns those that the next step acts on."""
        has_final[t] = ended
        cut = np.flatnonzero(ended & ~terminations)
        if self.mode is AutoresetMode.SAME_STEP:
            for n in cut:
                batched = _batched(info["final_obs"][n])
                finals.append((t, int(n), self._encoded(batched)[0]))
            return current
        finals.extend((t, int(n), current[n].copy()) for n in cut)
        raw, _ = self.envs.reset(options={"reset_mask": ended})
        return self._encoded(raw)

    def _encoded(self, observations: Any) -> np.ndarray:
        try:
            return self.encoder.encode(observations)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise BrokenEnvironment(
                f"{self.name}: an observation does not fit {self.envs.single_observation_space}: {error}"
            ) from error


def _batched(observation: Any) -> Any:
    """Adds the batch dimension to one observation."""
    if isinstance(observation, dict):
        return {key: _batched(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_batched(value) for value in observation)
    return np.asarray(observation)[None]
