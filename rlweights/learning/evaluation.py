"""Evaluation of an agent: whole episodes in the real environment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from rlweights.learning.distributions import Distribution
from rlweights.learning.spaces import Translation
from rlweights.learning.stepper import Stepper
from rlweights.weights.arrays import Array


@dataclass(frozen=True)
class Result:
    """Returns and lengths of evaluated episodes, in a fixed order."""

    returns: Array  # [episodes] float64
    lengths: Array  # [episodes] int64

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the return over episodes."""
        return float(self.returns.std())

    def cut(self, limit: int | None) -> str:
        """Says in words how many episodes `evaluation.max_episode_steps` has cut off; "" if none."""
        count = 0 if limit is None else int((self.lengths >= limit).sum())
        if not count:
            return ""
        return f"{count} of {len(self.lengths)} episodes cut off after {limit:,} steps"


def evaluation_seed(seed: int) -> int:
    """Returns the seed of the environments in which an agent of a seed is evaluated and filmed."""
    return seed + 10_000


def evaluate(
    policy: Callable[[Array], Array],
    envs: gym.vector.VectorEnv,
    distribution: Distribution,
    episodes: int,
    seed: int,
    deterministic: bool = True,
    translation: Translation | None = None,
) -> Result:
    """Runs episodes in a vector environment, in any autoreset mode.

    Each of the N environments contributes the same number of episodes, its first ones (give or take one):
    taking whichever episodes end first would favor short ones.

    Args:
        policy: From observations [N, ...] to distribution parameters [N, P].
        envs: N environments.
        distribution: Of the actions.
        episodes: Number of episodes.
        seed: Seed of environments and of sampled actions.
        deterministic: Whether to take the most likely action rather than to sample.
        translation: See `Stepper`.

    Raises:
        BrokenEnvironment: If the environment fails, or returns what its spaces do not promise.
    """
    N = envs.num_envs
    stepper = Stepper(envs, translation)
    rng = None if deterministic else np.random.Generator(np.random.Philox(key=np.array([seed, 1], np.uint64)))
    quota = np.full(N, episodes // N) + (np.arange(N) < episodes % N)
    returns: list[list[float]] = [[] for _ in range(N)]
    lengths: list[list[int]] = [[] for _ in range(N)]
    running, steps = np.zeros(N), np.zeros(N, np.int64)
    observations = stepper.reset(int(np.random.SeedSequence([seed, 2]).generate_state(1, np.uint32)[0] >> 1))
    while any(len(done) < wanted for done, wanted in zip(returns, quota, strict=True)):
        step = stepper.step(distribution.choose_numpy(policy(observations), rng))
        observations = step.observations
        running += step.rewards
        steps += step.valid
        for n in np.flatnonzero(step.ended):
            if len(returns[n]) < quota[n]:
                returns[n].append(float(running[n]))
                lengths[n].append(int(steps[n]))
            running[n], steps[n] = 0.0, 0
    flat: Any = [r for each in returns for r in each]
    return Result(np.array(flat), np.array([n for each in lengths for n in each]))
