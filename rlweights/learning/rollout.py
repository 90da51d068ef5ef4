"""Rollouts in Gymnasium vector environments.

Shapes: T steps of N environments, time-major [T, N, ...].
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rlweights.errors import BrokenEnvironment
from rlweights.learning.batch import Batch, Episodes
from rlweights.learning.continuation import Continuation, as_bits, from_bits
from rlweights.learning.distributions import Distribution
from rlweights.weights.arrays import Array

__all__ = ["BrokenEnvironment", "Episodes", "Rollout"]


class Rollout:
    """Collects rollouts in a vector environment, and knows which steps belong together.

    Every autoreset mode is handled, see `Stepper`: a step that was a reset stays in the rollout, with
    `valid` 0. Rewards and observations that are not finite are passed on, for the learner's guard to skip;
    environments that returned such an observation begin the next rollout afresh.

    Args:
        episodes: The vector environment, and how it goes on where it was.
        distribution: Of the actions, over the policy's output.
        n_steps: Steps T of each environment in one rollout.
        seed: Seed of the action noise and of the environments.
    """

    def __init__(self, episodes: Continuation, distribution: Distribution, n_steps: int, seed: int):
        self.episodes = episodes
        self.stepper = episodes.stepper
        self.distribution = distribution
        self.n_steps = n_steps
        self.seed = seed
        self.num_envs = self.stepper.num_envs
        self._observations: Any = None
        self._attempt = 0
        self._broken = np.zeros(self.num_envs, bool)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._recreated = np.zeros(self.num_envs, np.int64)
        self._failures: list[str] = []

    def begin(self, iteration: int, attempt: int = 0) -> None:
        """Begins new episodes everywhere, seeded by (seed, iteration, attempt)."""
        self._attempt = attempt
        self._observations = self.episodes.reset(self._env_seed(iteration))
        self._note_remade()
        self._returns[:] = 0.0
        self._lengths[:] = 0

    def state(self) -> dict[str, Array]:
        """Returns what another rollout needs to go on from here, by name."""
        own = {
            "attempt": np.array(self._attempt, np.int64),
            "returns": as_bits(self._returns),
            "lengths": self._lengths.copy(),
            "recreated": self._recreated.copy(),
        }
        return own | {f"envs/{name}": value for name, value in self.episodes.state().items()}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Goes on from a state.

        Raises:
            BrokenEnvironment: If the environments do not come out where they were.
        """
        self._attempt = int(state["attempt"])
        self._returns[:] = from_bits(state["returns"])
        self._lengths[:] = state["lengths"]
        self._recreated[:] = state.get("recreated", 0)
        envs = {name.removeprefix("envs/"): x for name, x in state.items() if name.startswith("envs/")}
        self._observations = self.episodes.restore(envs)

    def renew(self, iteration: int) -> Array:
        """Begins new episodes where the last rollout broke one, or everywhere if that has become due.

        Returns:
            Where that was [N]; what ran there is cut.
        """
        seed, cut = self._env_seed(iteration), np.zeros(self.num_envs, bool)
        if self.episodes.due():
            self._observations, cut = self.episodes.reset(seed), np.ones(self.num_envs, bool)
        elif self._broken.any():
            self._observations, cut = self.episodes.restart(self._broken, seed)
        self._note_remade()
        self._broken = np.zeros(self.num_envs, bool)
        self._returns[cut] = 0.0
        self._lengths[cut] = 0
        return cut

    def _env_seed(self, iteration: int) -> int:
        state = np.random.SeedSequence([self.seed, iteration, self._attempt]).generate_state(1, np.uint32)
        return int(state[0] >> 1)

    def collect(
        self,
        policy: Callable[[Array], Array],
        value: Callable[[Array], Array],
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
        T, N = self.n_steps, self.num_envs
        stepper, distribution = self.stepper, self.distribution
        key = np.random.SeedSequence([self.seed, iteration, self._attempt]).generate_state(2, np.uint64)
        noise = distribution.noise(np.random.Generator(np.random.Philox(key=key)), (T, N))
        observations = np.empty((T, N, *stepper.encoder.shape), stepper.encoder.dtype)
        actions = np.empty((T, N, *distribution.action_shape), distribution.action_dtype)
        rewards, terminated, truncated, valid = (np.empty((T, N), np.float32) for _ in range(4))
        final_values, has_final = (np.zeros((T, N), np.float32) for _ in range(2))
        finals: dict[tuple[int, int], Array] = {}
        episodes = Episodes()
        current = self._observations
        for t in range(T):
            observations[t] = current
            actions[t] = action = distribution.sample_numpy(policy(current), noise[t])
            phases = stepper.phases
            step = self.episodes.step(action)
            current = step.observations
            rewards[t], terminated[t], truncated[t] = step.rewards, step.terminated, step.truncated
            valid[t] = step.valid
            self._returns += step.rewards
            self._lengths += step.valid
            if stepper.remade:
                self._note_remade()
            if step.ended.any():
                self._close(step.ended, step.told, episodes, phases)
                if stepper.separates:
                    has_final[t] = step.ended
                finals |= {(t, n): final for n, final in step.finals.items()}
        self._observations = current
        if stepper.phases is not None:
            episodes.running_phases = int(stepper.phases.min()), int(stepper.phases.max())
        episodes.recreated = int(self._recreated.sum())
        episodes.failures, self._failures = self._failures, []
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

    def _close(
        self, ended: Array, told: Mapping[int, dict[str, Any]], episodes: Episodes, phases: Array | None
    ) -> None:
        """Adds the episodes that ended, in their phases, to the iteration's; begins new ones instead.

        An episode that ended because its environment raised says nothing about the agent and does not count.
        """
        known = ended & np.isfinite(self._returns)  # one NaN would hide a hundred other returns
        for n, each in told.items():
            if "failure" in each:
                self._note_failure(n, each)
                known[n] = False
            elif known[n]:
                for name, value in each.get("reported", {}).items():
                    total, count = episodes.reported.get(name, (0.0, 0))
                    episodes.reported[name] = total + value, count + 1
        returns = self._returns[known]
        episodes.count += len(returns)
        episodes.total_return += float(returns.sum())
        episodes.total_length += int(self._lengths[known].sum())
        if each := returns.tolist():
            low, high = episodes.extremes or (np.inf, -np.inf)
            episodes.extremes = min(low, *each), max(high, *each)
        if phases is not None:
            for n in np.flatnonzero(known):
                count, total = episodes.phases.get(int(phases[n]), (0, 0.0))
                episodes.phases[int(phases[n])] = count + 1, total + float(self._returns[n])
        self._returns[ended] = 0.0
        self._lengths[ended] = 0

    def _note_remade(self) -> None:
        """Takes note of environments whose reset raised; the episodes that then began are whole."""
        for n, told in self.stepper.remade.items():
            self._note_failure(n, told)
        self.stepper.remade = {}

    def _note_failure(self, n: int, told: Mapping[str, Any]) -> None:
        self._recreated[n] = max(self._recreated[n], told["recreated"])
        self._failures.append(told["failure"])

    def _look_for_nonfinite(
        self,
        observations: Array,
        rewards: Array,
        finals: Mapping[tuple[int, int], Array],
        episodes: Episodes,
    ) -> None:
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
            if kind == "observation":
                self._broken |= self._of(values, finite, environment)

    def _of(self, values: Array, finite: Array, environment: int) -> Array:
        """Which environments [N] have something not finite in [T, K, ...], of K from `environment` on."""
        bad = ~finite.all(axis=(0, *range(2, values.ndim)))
        broken = np.zeros(self.num_envs, bool)
        broken[environment : environment + len(bad)] = bad
        return broken
