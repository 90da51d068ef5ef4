"""Environments as pure batched TensorFlow functions, for training loops that are one XLA program.

`base` holds the protocol and the episode bookkeeping; each other module holds environments. Twins of
Gymnasium's environments go by Gymnasium's ids and are tested against them transition by transition.
"""

import difflib
from typing import Any

from rlweights.learning.environments.acrobot import Acrobot
from rlweights.learning.environments.base import (
    Draw,
    Environment,
    StepOutcome,
    VectorState,
    final_observations,
    reset_all,
    step_all,
)
from rlweights.learning.environments.cartpole import CartPole
from rlweights.learning.environments.chain import Chain
from rlweights.learning.environments.changing_mujoco import ChangingMujoco
from rlweights.learning.environments.drift import Drifting, DriftingCartPole, DriftingPendulum
from rlweights.learning.environments.mountain_car import MountainCar, MountainCarContinuous
from rlweights.learning.environments.new_tasks import (
    NewTasks,
    NewTasksAcrobot,
    NewTasksCartPole,
    NewTasksPendulum,
)
from rlweights.learning.environments.pendulum import Pendulum

__all__ = [
    "ENVIRONMENTS",
    "Acrobot",
    "CartPole",
    "Chain",
    "ChangingMujoco",
    "Draw",
    "Drifting",
    "DriftingCartPole",
    "DriftingPendulum",
    "Environment",
    "MountainCar",
    "MountainCarContinuous",
    "NewTasks",
    "NewTasksAcrobot",
    "NewTasksCartPole",
    "NewTasksPendulum",
    "Pendulum",
    "StepOutcome",
    "VectorState",
    "final_observations",
    "get",
    "reset_all",
    "step_all",
]

ENVIRONMENTS: dict[str, type[Environment]] = {
    "Acrobot-v1": Acrobot,
    "CartPole-v1": CartPole,
    "Chain": Chain,
    "DriftingCartPole-v1": DriftingCartPole,
    "DriftingPendulum-v1": DriftingPendulum,
    "MountainCar-v0": MountainCar,
    "MountainCarContinuous-v0": MountainCarContinuous,
    "NewTasksAcrobot-v1": NewTasksAcrobot,
    "NewTasksCartPole-v1": NewTasksCartPole,
    "NewTasksPendulum-v1": NewTasksPendulum,
    "Pendulum-v1": Pendulum,
}


def get(id_or_name: str, **kwargs: Any) -> Environment:
    """Makes an environment.

    Args:
        id_or_name: A key of `ENVIRONMENTS`: a Gymnasium id such as ``"CartPole-v1"``, or another name.
        **kwargs: Arguments of its constructor.

    Raises:
        ValueError: There is no such environment; the message names the nearest one and all others.
    """
    if id_or_name not in ENVIRONMENTS:
        lowered = {name.lower(): name for name in ENVIRONMENTS}
        near = difflib.get_close_matches(str(id_or_name).lower(), lowered, n=1, cutoff=0.5)
        hint = f" Did you mean {lowered[near[0]]!r}?" if near else ""
        raise ValueError(
            f"There is no TensorFlow environment {id_or_name!r}.{hint} There are: {', '.join(ENVIRONMENTS)}."
        )
    return ENVIRONMENTS[id_or_name](**kwargs)
