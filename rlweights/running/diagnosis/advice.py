"""What to try against a symptom: `key=value` as `--set` takes it, made of the agent's own settings."""

from collections.abc import Sequence

from rlweights.learning.algorithms.base import Linear
from rlweights.running.config.schema import Agent


def number(value: float) -> str:
    """Writes a number with two digits that mean something."""
    return f"{float(f'{value:.2g}'):g}"


def learning_rate(agent: Agent) -> float:
    """The learning rate at the beginning."""
    rate = agent.algorithm.learning_rate
    return rate.start if isinstance(rate, Linear) else rate


def rate(agent: Agent, factor: float) -> str:
    """The learning rate times a factor; one that is higher than any that works becomes a usual one."""
    start = learning_rate(agent)
    return f"algorithm.learning_rate={number(min(start * factor, 3e-4) if start > 5e-3 else start * factor)}"


def entropy_bonus(agent: Agent) -> float:
    """The entropy bonus at the beginning."""
    bonus = agent.algorithm.ent_coef
    return bonus.start if isinstance(bonus, Linear) else bonus


def smaller_steps(agent: Agent) -> list[str]:
    """What makes an update smaller."""
    epochs = agent.algorithm.n_epochs
    fewer = [f"algorithm.n_epochs={max(1, epochs // 2)}"] if epochs > 1 else []
    return [rate(agent, 1 / 3), "algorithm.target_kl=0.02", *fewer]


def longer_rollouts(agent: Agent) -> list[str]:
    """Rollouts that are four times as long."""
    return [f"algorithm.n_steps={4 * agent.algorithm.n_steps}"]


def scaled(agent: Agent, rules: Sequence[str], key: str, factor: float) -> list[str]:
    """The strength of the first of these rules that the file gives a number, times a factor."""
    for index, rule in enumerate(agent.interventions):
        value = (rule.model_extra or {}).get(key)
        if rule.rule in rules and isinstance(value, int | float):
            return [f"interventions.{index}.{key}={number(value * factor)}"]
    return []


def exploring(agent: Agent) -> list[str]:
    """What makes a policy try more."""
    bonus = entropy_bonus(agent)
    return [f"algorithm.ent_coef={number(10 * bonus) if bonus else 0.01}"]
