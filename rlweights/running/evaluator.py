"""Evaluation during training: whole episodes in the real environment, and films of some."""

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from rlweights.errors import ConfigError
from rlweights.learning.evaluation import Result, evaluation_seed
from rlweights.learning.intervals import bootstrap_interval
from rlweights.running.building.policy import Policy
from rlweights.running.config.messages import first_line
from rlweights.running.video import Film, film
from rlweights.weights.arrays import Array

Act = Callable[[Array], Array]
"""From encoded observations [N, ...] to distribution parameters [N, P]."""


class Evaluator:
    """Evaluates and films an agent, in environments that are kept from one evaluation to the next.

    Args:
        policy: The agent.
        say: Shows one line about something that happened.
    """

    def __init__(self, policy: Policy, say: Callable[[str], Any]):
        self._policy = policy
        self._section = section = policy.agent.evaluation
        self._seed = evaluation_seed(policy.agent.seed)
        self._say = say
        self._films = section.film_frames > 0
        self._envs: gym.vector.VectorEnv | None = None
        most = max(section.episodes if section.every else 0, section.final_episodes)
        if most:
            # Before the first step: what cannot be evaluated must not come out after hours of training.
            self._envs = policy.environments.vector(min(most, section.num_envs), evaluation=True)

    @property
    def plan(self) -> str:
        """What will be evaluated, and how long that takes at most, in words; "" if nothing is."""
        section, environments = self._section, self._policy.environments
        parts = []
        if section.every and section.episodes:
            parts.append(f"{section.episodes} episodes every {section.every:,} steps")
        if section.final_episodes:
            parts.append(f"{section.final_episodes} at the end")
        if not parts:
            return ""
        if (limit := environments.evaluation_limit) is not None:
            parts.append(f"each of {limit:,} steps at most")
        if (most := environments.evaluation_steps) is not None:
            parts.append(f"all of one together of {most:,}")
        return ", ".join(parts)

    def evaluate(self, act: Act, episodes: int) -> Result:
        """Runs whole episodes, from the same seeds each time."""
        assert self._envs is not None
        return self._policy.evaluate(act, self._envs, episodes, self._seed)

    def scalars(self, result: Result) -> dict[str, float]:
        """Returns the scalars of an evaluation by tag; says in one line what no scalar can hold."""
        if cut := result.cut(self._policy.environments.evaluation_limit):
            self._say(f"evaluation: {cut}")
        scalars = {"eval/mean_ep_length": float(result.lengths.mean())}
        if result.success_rate is not None:
            scalars["eval/success_rate"] = result.success_rate
        if not np.isfinite(result.returns).all():
            self._say("evaluation: an episode's return is not finite")
            return scalars
        interval = bootstrap_interval(result.returns, np.mean, resamples=1_000)
        return scalars | {
            "eval/mean_reward": result.mean,
            "eval/mean_reward_lower": float(interval.low),
            "eval/mean_reward_upper": float(interval.high),
        }

    def film(self, act: Act) -> Film | None:
        """Films an episode; returns None where the environment does not render, and does not try again."""
        if not self._films:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what cannot be rendered is not worth more than one line
            try:
                env = self._policy.environments.rendered("rgb_array")
            except ConfigError as error:
                self._films = False
                cause, missing = error.__cause__, gym.error.DependencyNotInstalled
                if cause is not None and (
                    isinstance(cause, missing) or not isinstance(cause, gym.error.Error | TypeError)
                ):
                    self._say(f"no film of the agent: {first_line(error)}")
                return None  # most often it renders nowhere
            try:
                performer = self._policy.performer(act, self._seed)
                return film(env, performer, self._seed, self._section.film_frames)
            except Exception as error:  # rendering may fail in any way: no screen, no driver, no library
                self._films = False
                self._say(f"no film of the agent: {first_line(error)}")
                return None
            finally:
                with contextlib.suppress(Exception):
                    env.close()

    def close(self) -> None:
        """Closes the environments."""
        if self._envs is not None:
            with contextlib.suppress(Exception):  # all that they were made for is done
                self._envs.close()
