"""Evaluation of an agent: whole episodes in the real environment."""

from collections.abc import Callable
from dataclasses import dataclass

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
    successes: Array | None = None  # [episodes] bool, where every episode's last info said `is_success`
    unfinished: str = ""  # why there are fewer episodes, or shorter ones, than were asked for

    def __repr__(self) -> str:
        success = "" if self.success_rate is None else f", success {self.success_rate:.0%}"
        unfinished = f", {self.unfinished}" if self.unfinished else ""
        return (
            f"Result({len(self.returns)} episodes, mean return {self.mean:.2f} +- {self.std:.2f}, "
            f"mean length {self.lengths.mean():.1f}{success}{unfinished})"
        )

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the return over episodes."""
        return float(self.returns.std())

    @property
    def success_rate(self) -> float | None:
        """Share of episodes that ended in success; None if the environment does not say."""
        return None if self.successes is None else float(self.successes.mean())

    def cut(self, limit: int | None) -> str:
        """Says in words how many episodes `evaluation.max_episode_steps` has cut off; "" if none."""
        count = 0 if limit is None else int((self.lengths >= limit).sum())
        said = f"{count} of {len(self.lengths)} episodes cut off after {limit:,} steps" if count else ""
        return "; ".join(filter(None, (said, self.unfinished)))


def evaluation_seed(seed: int) -> int:
    """Returns the seed of the environments in which an agent of a seed is evaluated and filmed."""
    return seed + 10_000


def evaluate(
    policy: Callable[[Array], Array],
    envs: gym.vector.VectorEnv,
    distribution: Distribution,
    translation: Translation,
    episodes: int,
    seed: int,
    deterministic: bool = True,
    max_steps: int | None = None,
) -> Result:
    """Runs episodes in a vector environment, in any autoreset mode.

    Each of the N environments contributes the same number of episodes, its first ones (give or take one):
    taking whichever episodes end first would favor short ones.

    Args:
        policy: From observations [N, ...] to distribution parameters [N, P].
        envs: N environments.
        distribution: Of the actions.
        translation: See `Stepper`.
        episodes: Number of episodes.
        seed: Seed of environments and of sampled actions.
        deterministic: Whether to take the most likely action rather than to sample.
        max_steps: Steps of all environments together after which no episode is finished any more: those that
            have ended count, and of an environment that has finished none, what it has done so far.

    Raises:
        BrokenEnvironment: If the environment fails, or returns what its spaces do not promise.
    """
    N = envs.num_envs
    stepper = Stepper(envs, translation)
    rng = None if deterministic else np.random.Generator(np.random.Philox(key=np.array([seed, 1], np.uint64)))
    quota = np.full(N, episodes // N) + (np.arange(N) < episodes % N)
    returns: list[list[float]] = [[] for _ in range(N)]
    lengths: list[list[int]] = [[] for _ in range(N)]
    successes: list[list[float | None]] = [[] for _ in range(N)]
    spent, failed, unfinished = 0, 0, ""
    running, steps = np.zeros(N), np.zeros(N, np.int64)
    observations = stepper.reset(int(np.random.SeedSequence([seed, 2]).generate_state(1, np.uint32)[0] >> 1))
    while any(len(done) < wanted for done, wanted in zip(returns, quota, strict=True)):
        if max_steps is not None and spent >= max_steps:
            for n in np.flatnonzero(quota):
                if not returns[n]:
                    returns[n].append(float(running[n]))
                    lengths[n].append(int(steps[n]))
                    successes[n].append(None)
            finished = sum(map(len, returns))
            unfinished = (
                f"{finished} of {episodes} episodes made, the last ones cut off: {spent:,} steps were spent "
                f"(evaluation.max_steps)"
            )
            break
        step = stepper.step(distribution.choose_numpy(policy(observations), rng))
        observations = step.observations
        failed += len(stepper.remade)
        running += step.rewards
        steps += step.valid
        spent += int(step.valid.sum())
        for n in np.flatnonzero(step.ended):
            told = step.told.get(int(n), {})
            failed += "failure" in told
            if len(returns[n]) < quota[n] and "failure" not in told:
                returns[n].append(float(running[n]))
                lengths[n].append(int(steps[n]))
                successes[n].append(told.get("reported", {}).get("is_success"))
            running[n], steps[n] = 0.0, 0
    if failed:
        again = f"{failed} episodes played anew: their environment raised"
        unfinished = "; ".join(filter(None, (unfinished, again)))
    flat = [value for each in successes for value in each]
    return Result(
        np.array([value for each in returns for value in each], np.float64),
        np.array([value for each in lengths for value in each], np.int64),
        None if None in flat else np.array(flat, bool),
        unfinished,
    )
