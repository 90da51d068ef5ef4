"""Checks of an agent file beyond its types: that its tables fit together."""

import math
import re
from typing import Any

from rlweights.learning.algorithms import Linear
from rlweights.running.config.messages import UnfitSetting

COUNTER_LIMIT = 2**31
"""Draws and environments of the compiled step count in int32."""


def check(agent: Any) -> None:
    """Checks that the tables of a `schema.Agent` fit together, which pydantic cannot see.

    Raises:
        ValueError: If they do not; the message names the key, the value, and why it does not fit.
    """
    for each in (
        _check_environment,
        _check_network,
        _check_schedules,
        _check_budget,
        _check_batches,
        _check_film,
    ):
        each(agent)


_RESERVED = {"id", "num_envs", "render_mode", "vector_kwargs", "vectorization_mode", "wrappers"}
"""Arguments with which rlweights itself calls Gymnasium."""


def _check_environment(agent: Any) -> None:
    section = agent.environment
    if ".py:" in section.id and section.backend == "envpool":
        why = f"an environment from a file, {section.id}, needs backend 'gymnasium' or 'tensorflow'"
        raise UnfitSetting("environment.backend", section.backend, why)
    single = section.backend == "gymnasium" and section.vectorization_mode != "vector_entry_point"
    for key in ("render_mode", "on_error"):
        value = getattr(section, key)
        if value != type(section).model_fields[key].default and not single:
            why = "is for backend 'gymnasium' with vectorization_mode 'sync' or 'async' only"
            raise UnfitSetting(f"environment.{key}", value, why)
    if section.timeout is not None and section.vectorization_mode != "async":
        raise UnfitSetting("environment.timeout", section.timeout, "is for vectorization_mode 'async' only")
    if agent.logging.info and not single:
        why = "infos are read from single environments: vectorization_mode 'sync' or 'async'"
        raise UnfitSetting("logging.info", agent.logging.info, why)
    if section.backend != "gymnasium" and section.vectorization_mode is not None:
        why = "is for backend 'gymnasium' only"
        raise UnfitSetting("environment.vectorization_mode", section.vectorization_mode, why)
    if section.backend != "envpool" and section.num_threads:
        raise UnfitSetting("environment.num_threads", section.num_threads, "is for backend 'envpool' only")
    wrappable = section.backend == "gymnasium" and section.vectorization_mode != "vector_entry_point"
    if section.wrappers and not wrappable:
        why = "is for backend 'gymnasium' with vectorization_mode 'sync' or 'async' only"
        names = [each if isinstance(each, str) else each.name for each in section.wrappers]
        raise UnfitSetting("environment.wrappers", names, why)
    for key in sorted(_RESERVED & set(section.kwargs)):
        why = "is no argument of the environment itself; rlweights gives it to Gymnasium"
        raise UnfitSetting(f"environment.kwargs.{key}", section.kwargs[key], why)
    for key in sorted(_RESERVED & set(agent.evaluation.kwargs)):
        why = "is no argument of the environment itself; rlweights gives it to Gymnasium"
        raise UnfitSetting(f"evaluation.kwargs.{key}", agent.evaluation.kwargs[key], why)


def _check_network(agent: Any) -> None:
    if agent.network.shared and agent.network.value_hidden_sizes is not None:
        why = "there are no layers of the value network's own with network.shared = true"
        raise UnfitSetting("network.value_hidden_sizes", agent.network.value_hidden_sizes, why)

    if agent.network.model is None:
        return
    if not re.search(r"\.py:\w+$", agent.network.model):
        raise UnfitSetting("network.model", agent.network.model, "takes file.py:Name, a function or a class")
    for key in ("hidden_sizes", "value_hidden_sizes", "activation", "layer_norm"):
        value = getattr(agent.network, key)
        if value != type(agent.network).model_fields[key].default:
            raise UnfitSetting(f"network.{key}", value, "the layers are those of network.model")


def _check_schedules(agent: Any) -> None:
    for name, value in agent.algorithm:
        if isinstance(value, Linear) and min(value.start, value.end) < 0:
            raise UnfitSetting(f"algorithm.{name}", value.model_dump(by_alias=True), "falls below 0")


def _check_budget(agent: Any) -> None:
    total, rollout = agent.budget.total_timesteps, agent.steps_per_iteration
    if rollout >= COUNTER_LIMIT:
        why = f"a rollout of n_steps * num_envs = {rollout} steps is too long"
        raise UnfitSetting("algorithm.n_steps", agent.algorithm.n_steps, why)
    if total < rollout:
        raise UnfitSetting("budget.total_timesteps", total, f"is less than {_rollout(agent)}")
    if agent.total_iterations * max(agent.algorithm.n_epochs, agent.algorithm.n_steps) >= COUNTER_LIMIT:
        why = "is more than the counters of the compiled step hold; take more num_envs or fewer n_epochs"
        raise UnfitSetting("budget.total_timesteps", total, why)


def _check_batches(agent: Any) -> None:
    size, rollout = agent.algorithm.batch_size, agent.steps_per_iteration
    if size is not None and rollout % size:
        small = [d for d in range(1, math.isqrt(rollout) + 1) if rollout % d == 0]
        divisor = min([*small, *(rollout // d for d in small)], key=lambda d: abs(d - size))
        why = f"does not divide {_rollout(agent)}; the nearest that does is {divisor}"
        raise UnfitSetting("algorithm.batch_size", size, why)


def _check_film(agent: Any) -> None:
    if agent.evaluation.film_frames == 1:
        raise UnfitSetting("evaluation.film_frames", 1, "a film has 2 frames or more; 0 switches films off")


def _rollout(agent: Any) -> str:
    steps, envs = agent.algorithm.n_steps, agent.environment.num_envs
    return f"the rollout of n_steps * num_envs = {steps} * {envs} = {agent.steps_per_iteration} steps"
