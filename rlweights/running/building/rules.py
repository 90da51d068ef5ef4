"""Rules and their strengths, from the tables of an agent file."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from rlweights.errors import ConfigError
from rlweights.learning.networks import ActorCritic
from rlweights.learning.spaces import ObservationEncoder
from rlweights.running.building.keras_objects import check_argument, schedule_of
from rlweights.running.building.user_code import UserCode, arguments_of
from rlweights.running.config.messages import choices, first_line, refusal
from rlweights.running.config.schema import Agent, Rule
from rlweights.weights.interventions import RULES, Feedback, Intervention
from rlweights.weights.interventions.schedules import OverBudget
from rlweights.weights.optimizer import InterventionOptimizer
from rlweights.weights.selection import path, select


def rules_of(agent: Agent, files: UserCode, networks: ActorCritic) -> list[Intervention]:
    """Makes the rules of an agent, in their order.

    Raises:
        ConfigError: If there is no such rule, it does not take its arguments, or selects no weight.
    """
    return [
        _rule(agent, files, networks, f"interventions.{i}", section)
        for i, section in enumerate(agent.interventions)
    ]


def try_rules(agent: Agent, files: UserCode, rules: Sequence[Intervention]) -> None:
    """Computes once what each rule of a built optimizer would write, without writing it.

    Raises:
        ConfigError: If a rule fails, as it would in the graph; one line.
    """
    step = tf.zeros([], tf.int64)
    for index, rule in enumerate(rules):
        try:
            for variable in rule.variables:
                rule.try_on(variable, step)
        except Exception as error:  # the user's rule may raise anything
            section = agent.interventions[index]
            raise _rule_error(files, f"interventions.{index}", section, error) from error


def check_scores(
    source: str, optimizer: InterventionOptimizer, networks: ActorCritic, encoder: ObservationEncoder
) -> None:
    """Refuses rules that read dormant scores of a layer that has none.

    Raises:
        ConfigError: If there is one; the message names the layers that are measured.
    """
    example = np.zeros((1, *encoder.shape), encoder.dtype)
    measured, prefix = networks.activations(example), "dormant_score/"
    for name in optimizer.feedback:
        layer = name.removeprefix(prefix)
        if name.startswith(prefix) and layer not in measured:
            why = f"nothing measures the dormant units of {layer!r}; measured are: {', '.join(measured)}"
            raise ConfigError(f"{source}: interventions: {why}")


def _rule(agent: Agent, files: UserCode, networks: ActorCritic, key: str, section: Rule) -> Intervention:
    source = files.source
    rule = _rule_class(files, f"{key}.rule", section.rule)
    arguments = section.model_dump(exclude={"rule"}, exclude_none=True)
    for name, value in arguments.items():
        check_argument(source, rule, name, f"{key}.{name}", value)
        arguments[name] = strength_of(value, source, f"{key}.{name}")
    if "seed" in arguments_of(rule):
        arguments.setdefault("seed", agent.seed)
    undone = arguments.get("placement", rule.placement) in ("during_gradient", "during_iteration")
    if "on" not in arguments and rule.default_on is not None and undone:
        # Noise that is undone is for acting and its gradient: the critic is left alone.
        arguments["on"] = rule.default_on & path("(policy|trunk)/.*")
    on = arguments.get("on")
    try:
        if on is not None:
            arguments["on"] = select(on)
            arguments["on"](networks.trainable_variables)
    except Exception as error:  # a selector's arguments may be anything
        raise refusal(source, f"{key}.on", on, first_line(error)) from error
    try:
        return rule(**arguments)
    except Exception as error:  # the user's rule may raise anything
        raise _rule_error(files, key, section, error) from error


def _rule_class(files: UserCode, key: str, name: str) -> type[Intervention]:
    if ".py:" not in name:
        if name not in RULES:
            hint = choices(name, RULES)
            raise refusal(files.source, key, name, "there is no such rule", hint=hint)
        return RULES[name]
    found = files.load(key, name)
    if not issubclass(found, Intervention):
        raise refusal(files.source, key, name, "is no rlweights.Intervention")
    return found


def _rule_error(files: UserCode, key: str, section: Rule, error: Exception) -> ConfigError:
    """The error of a rule that failed; it names the argument with which its message begins in backticks."""
    found = re.match(r"`(\w+)` (.+?)(?:\. Received: .*)?$", first_line(error))
    given = section.model_dump()
    if found and found[1] in given:
        return refusal(files.source, f"{key}.{found[1]}", given[found[1]], found[2])
    return ConfigError(f"{files.source}: {key} ({section.rule}): {files.place(error)}")


def strength_of(value: Any, source: str, key: str) -> Any:
    """Turns a table that describes a schedule or a feedback into it; leaves everything else as it is.

    ===================================================  ==============================================
    `{ from = 1.0, to = 0.0 }`                           linear over the budget
    `{ schedule = "ExponentialDecay", ... }`             a Keras schedule of the optimizer step
    `{ feedback = "name", initial = 0.1 }`               a value that is written from outside
    ===================================================  ==============================================

    Raises:
        ConfigError: If a table has a key of one of these, but is not one of them.
    """
    if not isinstance(value, Mapping):
        return value
    if "from" in value or "to" in value:
        ends = [value.get("from"), value.get("to")]
        if len(value) != 2 or not all(_is_number(end) for end in ends):
            raise refusal(source, key, value, "must be a table of two numbers, from and to")
        return OverBudget(*map(float, ends))
    if "feedback" in value:
        name, initial = value["feedback"], value.get("initial", 0.0)
        numbers = all(map(_is_number, initial)) if isinstance(initial, list) else _is_number(initial)
        if set(value) - {"feedback", "initial"} or not (isinstance(name, str) and name) or not numbers:
            raise refusal(source, key, value, "must be a table of feedback, a name, and initial, a number")
        return Feedback(name, initial)
    if "schedule" in value:
        return schedule_of(value, source, key)
    return dict(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
