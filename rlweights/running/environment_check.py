"""Tries an environment with random actions before anything is trained in it."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlweights.learning.environments.action_masks import KEY, NAMES, MaskedObservations, random_action
from rlweights.learning.environments.conformity import Conformity, Misfit
from rlweights.running.building.action_masks import MaskChoice
from rlweights.running.config.messages import first_line
from rlweights.running.config.schema import Agent
from rlweights.running.diagnosis.judgement import Finding
from rlweights.running.diagnosis.table import RANKS
from rlweights.weights.arrays import Array

STEPS = 1_000
"""Random steps of a check, over all of its episodes."""

UNSCALED = 100.0
"""Ratio of deviations of two features, and size of a feature, above which observations want normalization."""


@dataclass
class RandomTrial:
    """What random actions have met.

    Attributes:
        observations: Numbers of each observation, flat, resets included [steps, D].
        rewards: Of each step.
        lengths: Of the episodes that have ended.
        returns: Of these.
        terminated: How many of these were ended by the environment itself.
        seconds: All steps together.
        changed: Whether a returned array was changed afterwards.
        misfit: What did not fit the spaces, or was not finite, in words; "" if everything did.
        raised: What the environment raised, in words.
    """

    observations: list[Array] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    terminated: int = 0
    seconds: float = 0.0
    changed: bool = False
    misfit: str = ""
    raised: str = ""

    def equals(self, other: "RandomTrial") -> bool:
        """Whether both have met the same observations and rewards."""
        return (
            len(self.observations) == len(other.observations)
            and self.rewards == other.rewards
            and all(
                a.shape == b.shape and np.array_equal(a, b, equal_nan=True)
                for a, b in zip(self.observations, other.observations, strict=True)
            )
        )


@dataclass(frozen=True)
class Check:
    """What is known of an environment after a check.

    Attributes:
        facts: By a word for each.
        findings: What is wrong, the gravest first.
    """

    facts: dict[str, str]
    findings: list[Finding]


def check(agent: Agent, make: Callable[[], gym.Env], steps: int = STEPS) -> Check:
    """Tries an environment as the agent would meet it, wrappers included.

    Two instances live at the same time; each trial takes random actions of a fixed seed.

    Args:
        agent: Its settings are held against what the environment does.
        make: Makes the environment.
        steps: Steps of each trial, at least 50.
    """
    findings: list[Finding] = []

    def add(name: str, kind: str, text: str, *advice: str, confused: str = "") -> None:
        findings.append(Finding(name, kind, text, 0, (), advice, confused, "docs/gymnasium.md", ""))

    def masked(env: gym.Env) -> gym.Env:
        source: Any = MaskChoice(agent.environment, agent.environment.id).of(env, env.action_space)
        return env if source == "none" else MaskedObservations(env, source)

    with contextlib.ExitStack() as stack:
        env = masked(stack.enter_context(contextlib.closing(make())))
        try:
            other = masked(stack.enter_context(contextlib.closing(make())))
        except Exception as error:
            other = env
            add(
                "one_instance",
                "cause",
                f"a second instance beside the first fails: {first_line(error)}",
                "environment.num_envs=1",
                "evaluation.every=0",
                "evaluation.final_episodes=0",
            )
        first = trial(env, steps, seed=0, actions=0)
        again = trial(other, steps, seed=0, actions=0)
        seeded = trial(other, steps, seed=1, actions=0)
        acted = trial(env, steps, seed=0, actions=1)
        if first.raised:
            add("raises", "cause", first.raised)
        if first.misfit:
            add("misfit", "cause", first.misfit)
        if not (first.raised or first.misfit):
            if not first.equals(again):
                add(
                    "not_deterministic",
                    "cause",
                    "the same seed and the same actions give other observations or rewards: no run can be "
                    "resumed exactly",
                )
            elif first.equals(seeded):
                add("seed_ignored", "note", "all seeds give the same: environments side by side see the same")
            if first.equals(acted) and _can_differ(env.action_space):
                add("actions_ignored", "cause", "other actions change nothing in observations or rewards")
        if first.changed:
            add(
                "array_changed",
                "note",
                "an observation is changed in place after it was returned; rlweights copies it",
            )
        _judge_actions(agent, env.action_space, add)
        _judge_rewards(agent, first, add)
        _judge_episodes(agent, first, add)
        _judge_observations(agent, _seen(env), first, add)
        facts = _facts(env, first)
    return Check(facts, sorted(findings, key=lambda each: RANKS[each.kind]))


def trial(env: gym.Env, steps: int, seed: int, actions: int) -> RandomTrial:
    """Takes random actions.

    Args:
        env: The environment; with masks, only what they allow is taken.
        steps: How many.
        seed: Of the first episode; each further one has the next seed.
        actions: Seed of the actions.
    """
    found, space, mask = RandomTrial(), env.action_space, None
    space.seed(actions)
    conformity = Conformity(_seen(env))

    def apart(observation: Any) -> tuple[Any, Any]:
        if isinstance(env, MaskedObservations):
            return observation["observation"], observation[KEY]
        return observation, None

    started = time.perf_counter()
    try:
        observation, mask = apart(env.reset(seed=seed)[0])
        kept = _look(found, conformity, observation)
        episode, length, total = 0, 0, 0.0
        for _ in range(steps):
            action = space.sample() if mask is None else random_action(space, mask)
            outcome, reward, terminated, truncated, _ = env.step(action)
            following, mask = apart(outcome)
            found.changed |= not np.array_equal(kept, _numbers(observation), equal_nan=True)
            observation = following
            kept = _look(found, conformity, observation)
            found.rewards.append(conformity.reward(reward))
            if not np.isfinite(found.rewards[-1]):
                raise Misfit(f"the reward {found.rewards[-1]}")
            length, total = length + 1, total + found.rewards[-1]
            if terminated or truncated:
                found.lengths.append(length)
                found.returns.append(total)
                found.terminated += bool(terminated)
                episode, length, total = episode + 1, 0, 0.0
                observation, mask = apart(env.reset(seed=seed + episode)[0])
                kept = _look(found, conformity, observation)
    except Misfit as error:
        found.misfit = f"step {len(found.rewards):,}: {error}"
    except Exception as error:
        found.raised = f"step {len(found.rewards):,} raised {type(error).__name__}: {first_line(error)}"
    found.seconds = time.perf_counter() - started
    return found


def _look(found: RandomTrial, conformity: Conformity, observation: Any) -> Array:
    """Takes note of an observation; returns its numbers.

    Raises:
        Misfit: If it does not fit its space, or is not finite.
    """
    conformity.observation(observation)
    numbers = _numbers(observation)
    found.observations.append(numbers)
    if not np.isfinite(numbers).all():
        raise Misfit("an observation that is not finite")
    return numbers


def _numbers(observation: Any) -> Array:
    """All numbers of an observation, as a copy [D]."""
    if isinstance(observation, dict):
        observation = list(observation.values())
    if isinstance(observation, tuple | list) and not np.isscalar(observation):
        parts = [_numbers(each) for each in observation]
        return np.concatenate(parts) if parts else np.zeros(0)
    return np.array(observation, np.float64).reshape(-1)


def _can_differ(space: gym.Space) -> bool:
    return not (isinstance(space, spaces.Discrete) and space.n == 1)


Add = Callable[..., None]


def _judge_actions(agent: Agent, space: gym.Space, add: Add) -> None:
    if not isinstance(space, spaces.Box):
        return
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        add(
            "actions_unbounded",
            "note",
            f"the actions {space} have no bounds: the policy begins near 0",
        )
        return
    if (space.low == space.high).any():
        add("actions_fixed", "cause", f"the actions {space} leave no choice: low and high are equal")
    elif not agent.environment.rescale_actions and (np.abs(space.low + space.high) > 2.0).any():
        add(
            "actions_off_center",
            "cause",
            f"the actions {space} do not lie around 0, where the policy begins",
            "environment.rescale_actions=true",
        )


def _judge_rewards(agent: Agent, found: RandomTrial, add: Add) -> None:
    rewards = np.array(found.rewards)
    if len(rewards) < 50:
        return
    sizes = np.abs(rewards[rewards != 0.0])
    if not len(sizes):
        add(
            "no_reward",
            "note",
            f"random actions meet no reward other than 0 in {len(rewards):,} steps: exploration will decide",
            confused="a goal that is far away",
        )
        return
    if np.ptp(rewards) == 0.0 and len(set(found.lengths)) <= 1:
        add(
            "reward_constant",
            "note",
            f"every step pays {rewards[0]:g}, and episodes are equally long: random play sees no more",
            confused="a goal that ends episodes and is far away",
        )
    if agent.environment.normalize_rewards:
        return
    # Of few rewards that are not 0 nothing can be said.
    ratio = float(sizes.max() / np.median(sizes))
    if len(sizes) >= 20 and ratio > 50.0:
        add(
            "reward_outlier",
            "note",
            f"the largest reward is {ratio:,.0f} times the median of those that are not 0",
            "environment.normalize_rewards=true",
        )
    horizon = min(1.0 / max(1.0 - agent.algorithm.gamma, 1e-3), np.mean(found.lengths or [len(rewards)]))
    size = float(np.mean(np.abs(rewards)) * horizon)
    if size > 1_000.0 or (len(sizes) > 0.5 * len(rewards) and size < 0.01):
        add(
            "reward_scale",
            "note",
            f"returns will be of the size of {size:,.2g}: values learn best within some tens",
            "environment.normalize_rewards=true",
        )


def _judge_episodes(agent: Agent, found: RandomTrial, add: Add) -> None:
    lengths = np.array(found.lengths)
    if not len(lengths):
        if not (found.raised or found.misfit):
            add(
                "no_end",
                "note",
                f"no episode has ended in {len(found.rewards):,} steps",
                confused="episodes that are longer than that",
            )
        return
    if found.terminated == len(lengths) and len(lengths) >= 3 and np.ptp(lengths) == 0 and lengths[0] >= 10:
        add(
            "time_limit_in_disguise",
            "note",
            f"every episode ends after {lengths[0]} steps and says terminated: a time limit says truncated",
            confused="tasks that end at a fixed step for good",
        )
    horizon = 1.0 / max(1.0 - agent.algorithm.gamma, 1e-9)
    if horizon < 0.02 * lengths.mean():
        add(
            "horizon_short",
            "note",
            f"gamma = {agent.algorithm.gamma:g} looks {horizon:.0f} steps ahead, and an episode has "
            f"{lengths.mean():,.0f}",
            "algorithm.gamma=0.999",
        )


def _seen(env: gym.Env) -> gym.Space:
    """The space of what networks see: observations without masks."""
    space: Any = env.observation_space
    return space["observation"] if isinstance(env, MaskedObservations) else space


def _judge_observations(agent: Agent, space: gym.Space, found: RandomTrial, add: Add) -> None:
    flat = isinstance(space, spaces.Box) and len(space.shape) == 1 and space.dtype.kind == "f"
    if not flat or len(found.observations) < 50 or agent.environment.normalize_observations:
        return
    table = np.stack(found.observations)
    deviation = table.std(axis=0)
    varies = deviation > 1e-6 * np.maximum(np.abs(table).max(axis=0), 1e-3)
    if not varies.all():
        constant = np.flatnonzero(~varies)
        shown = ", ".join(map(str, constant[:5])) + (", ..." if len(constant) > 5 else "")
        add("observation_constant", "note", f"numbers of the observation that never change: {shown}")
    if varies.any():
        ratio = float(deviation[varies].max() / deviation[varies].min())
        if ratio > UNSCALED or np.abs(table).max() > 10.0 * UNSCALED:
            add(
                "observation_scale",
                "note",
                f"numbers of the observation reach {np.abs(table).max():,.3g}, and one varies {ratio:,.0f} "
                f"times as much as another",
                "environment.normalize_observations=true",
            )


def _facts(env: gym.Env, found: RandomTrial) -> dict[str, str]:
    facts = {"observations": str(_seen(env)), "actions": str(env.action_space)}
    if isinstance(env, MaskedObservations):
        facts["masks"] = NAMES[env.source]
    if found.lengths:
        lengths, returns = np.array(found.lengths), np.array(found.returns)
        facts["episodes"] = (
            f"{len(lengths)}, of {lengths.min()} to {lengths.max()} steps; {found.terminated} terminated, "
            f"{len(lengths) - found.terminated} cut off"
        )
        facts["returns"] = f"{returns.min():.4g} to {returns.max():.4g}, mean {returns.mean():.4g}, at random"
        rewarded = np.mean([each != 0.0 for each in found.returns])
        facts["rewarded"] = f"{rewarded:.0%} of the episodes returned something other than 0"
    facts["speed"] = f"{len(found.rewards) / max(found.seconds, 1e-9):,.0f} steps/s, one environment"
    return facts
