"""The objects of Keras that agent files name: optimizers, activations, schedules."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras.optimizers import schedules

from rlweights.running.building.user_code import arguments_of
from rlweights.running.config.messages import choices, first_line, nearest, refusal
from rlweights.running.config.schema import Agent

ACTIVATIONS = [
    name
    for name in vars(keras.activations)
    if name.islower() and not name.startswith("_") and name not in ("deserialize", "get", "serialize")
]
"""Names of Keras' activations."""

OPTIMIZERS: dict[str, type[keras.optimizers.Optimizer]] = {
    name.lower(): each
    for name, each in vars(keras.optimizers).items()
    if inspect.isclass(each)
    and issubclass(each, keras.optimizers.Optimizer)
    and name not in ("LossScaleOptimizer", "MultiOptimizer", "Optimizer")  # these make no step themselves
}
"""Keras' optimizers by their names in lower case."""

SCHEDULES: dict[str, type] = {
    name: each
    for name, each in vars(schedules).items()
    if inspect.isclass(each) and each is not schedules.LearningRateSchedule
}
"""Keras' schedules by name."""


def check_activation(source: str, name: str) -> None:
    """Makes sure that Keras has an activation.

    Raises:
        ConfigError: If there is no such activation.
    """
    if name not in ACTIVATIONS:
        hint = nearest(name, ACTIVATIONS)
        raise refusal(source, "network.activation", name, "Keras has no such activation", hint=hint)


def inner_optimizer(agent: Agent, source: str) -> keras.optimizers.Optimizer:
    """Makes the optimizer of an agent, or that of its algorithm.

    Raises:
        ConfigError: If there is no such optimizer, or it does not take its arguments.
    """
    default = agent.algorithm.default_optimizer
    given = agent.optimizer.model_dump(exclude_none=True)
    name = given.pop("name", default["name"])
    if name not in OPTIMIZERS:
        hint = choices(name, OPTIMIZERS)
        raise refusal(source, "optimizer.name", name, "Keras has no such optimizer", hint=hint)
    if "learning_rate" in given:
        why = "is algorithm.learning_rate's business"
        raise refusal(source, "optimizer.learning_rate", given["learning_rate"], why)
    for key in given:
        check_argument(source, OPTIMIZERS[name], key, f"optimizer.{key}", given[key])
    arguments = default | given if name == default["name"] else {"name": name} | given
    try:
        _step(OPTIMIZERS[name](learning_rate=1e-3, **arguments))
        return OPTIMIZERS[name](learning_rate=1e-3, **arguments)
    except Exception as error:  # Keras checks few of its arguments before it uses them
        raise refusal(source, "optimizer", arguments, first_line(error)) from error


def check_argument(source: str, owner: type, name: str, key: str, value: Any) -> None:
    """Makes sure that a class takes an argument; the learning rate has its own key, so it is refused.

    Raises:
        ConfigError: If the class does not take it; the message names the nearest that it takes.
    """
    known = [each for each in arguments_of(owner) if each != "learning_rate"]
    if name not in known:
        why = f"is no argument of {owner.__name__}"
        raise refusal(source, key, value, why, hint=choices(name, known))


def schedule_of(value: Mapping[str, Any], source: str, key: str) -> Any:
    """Makes the Keras schedule of a table: `schedule`, its name, and its arguments.

    Raises:
        ConfigError: If there is no such schedule, or it does not take its arguments.
    """
    name = value["schedule"]
    if name not in SCHEDULES:
        hint = choices(str(name), SCHEDULES)
        raise refusal(source, f"{key}.schedule", name, "Keras has no such schedule", hint=hint)
    try:
        schedule = SCHEDULES[name](**{k: v for k, v in value.items() if k != "schedule"})
        begins_at = float(schedule(0))
    except Exception as error:  # Keras checks few of the arguments before it uses them
        raise refusal(source, key, value, first_line(error)) from error
    if not np.isfinite(begins_at):
        raise refusal(source, key, value, f"begins at {begins_at}")
    return schedule


def _step(optimizer: keras.optimizers.Optimizer) -> None:
    """Lets an optimizer make one step, of a kernel made for that."""
    kernel = keras.Variable(np.ones((2, 2), np.float32), name="kernel")
    optimizer.apply([np.ones((2, 2), np.float32)], [kernel])
    if not np.isfinite(kernel.numpy()).all():
        raise ValueError("its first step is not finite")
