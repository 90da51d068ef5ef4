"""Rollouts in Gymnasium vector environments.

Shapes: T steps of N environments, time-major [T, N, ...].
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from rlweights.errors import BrokenEnvironment
from rlweights.learning.batch import Batch, Episodes
from rlweights.learning.distributions import Distribution
from rlweights.learning.stepper import Stepper

__all__ = ["BrokenEnvironment", "Episodes", "Rollout"]


class Rollout:
    """Collects rollouts in a vector environment, and knows which steps belong together.

    Every autoreset mode is handled, see `Stepper`: a step that was a reset stays in the rollout, with
    `valid` 0. Rewards and observations that are not finite are passed on, for the learner's guard to skip;
    environments that returned such an observation begin the next rollout afresh.

    Args:
        envs: The vector environment.
        distribution: Of the actions, over the policy's output.
        n_steps: Steps T of each environment in one rollout.
        seed: Seed of the action noise and of the environments.
    """

    def __init__(self, envs: gym.vector.VectorEnv, distribution: Distribution, n_steps: int, seed: int):
        self.stepper = Stepper(envs)
        self.distribution = distribution
        self.n_steps = n_steps
        self.seed = seed
        self.num_envs = envs.num_envs
        self._observations: Any = None
        self._attempt = 0
        self._spoiled = False
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)

    def reset(self, iteration: int, attempt: int = 0) -> None:
        """Resets all environments, seeded by (seed, iteration, attempt); running episodes are cut."""
        self._attempt = attempt
        state = np.random.SeedSequence([self.seed, iteration, attempt]).generate_state(1, np.uint32)
        self._observations = self.stepper.reset(int(state[0] >> 1))
        self._spoiled = False
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

        Raises:
            BrokenEnvironment: If the environment fails, or returns what its spaces do not promise.
        """
        if self._spoiled:
            self.reset(iteration, self._attempt)
        T, N = self.n_steps, self.num_envs
        stepper, distribution = self.stepper, self.distribution
        key = np.random.SeedSequence([self.seed, iteration, self._attempt]).generate_state(2, np.uint64)
        noise = distribution.noise(np.random.Generator(np.random.Philox(key=key)), (T, N))
        observations = np.empty((T, N, *stepper.encoder.shape), stepper.encoder.dtype)
        actions = np.empty((T, N, *distribution.action_shape), distribution.action_dtype)
        rewards, terminated, truncated, valid = (np.empty((T, N), np.float32) for _ in range(4))
        final_values, has_final = (np.zeros((T, N), np.float32) for _ in range(2))
        finals: dict[tuple[int, int], np.ndarray] = {}
        episodes = Episodes()
        current = self._observations
        for t in range(T):
            observations[t] = current
            actions[t] = action = distribution.sample_numpy(policy(current), noise[t])
            phases = stepper.phases
            step = stepper.step(action)
            current = step.observations
            rewards[t], terminated[t], truncated[t] = step.rewards, step.terminated, step.truncated
            valid[t] = step.valid
            self._returns += step.rewards
            self._lengths += step.valid
            if step.ended.any():
                self._close(step.ended, episodes, phases)
                if stepper.separates:
                    has_final[t] = step.ended
                finals |= {(t, n): final for n, final in step.finals.items()}
        self._observations = current
        if stepper.phases is not None:
            episodes.running_phases = int(stepper.phases.min()), int(stepper.phases.max())
        if finals:
            times, places = zip(*finals, strict=True)
            final_values[list(times), list(places)] = value(np.stack(list(finals.values())))
        self._look_for_nonfinite(observations, rewards, finals, episodes)
        batch = Batch(
            observations,
            actions,
            rewards,
            terminated,
            truncated,
            valid,
            current.copy(),
            final_values,
            has_final,
        )
        return batch, episodes

    def _close(self, ended: np.ndarray, episodes: Episodes, phases: np.ndarray | None) -> None:
        """Adds the episodes that ended, in their phases, to the iteration's; begins new ones in their place."""
        known = ended & np.isfinite(self._returns)  # one NaN would hide a hundred other returns
        episodes.count += int(known.sum())
        episodes.total_return += float(self._returns[known].sum())
        episodes.total_length += int(self._lengths[known].sum())
        for n in np.flatnonzero(known) if phases is not None else ():
            count, total = episodes.phases.get(int(phases[n]), (0, 0.0))
            episodes.phases[int(phases[n])] = count + 1, total + float(self._returns[n])
        self._returns[ended] = 0.0
        self._lengths[ended] = 0

    def _look_for_nonfinite(self, observations, rewards, finals, episodes: Episodes) -> None:
        """Describes the first reward or observation that is not finite."""
        looks = [("reward", "in", rewards, 0, 0)]
        if observations.dtype.kind == "f":
            looks.append(("observation", "before", observations, 0, 0))
            looks.append(("observation", "before", self._observations[None], self.n_steps, 0))
            looks += [("observation", "before", x[None, None], t + 1, n) for (t, n), x in finals.items()]
        for kind, when, values, first, environment in looks:
            finite = np.isfinite(values)
            if finite.all():
                continue
            t, n = np.argwhere(~finite)[0][:2]
            shown = np.array2string(values[t, n], threshold=4, separator=", ")
            episodes.nonfinite = episodes.nonfinite or (
                f"{self.stepper.name}: environment {environment + n} of {self.num_envs} returned the {kind} "
                f"{shown} {when} step {first + t} of a rollout"
            )
            self._spoiled |= kind == "observation"
