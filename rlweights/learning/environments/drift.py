"""Environments whose physics change while training runs, for studies of plasticity.

The change is a function of the clock (vector steps since the run began), so it needs no state, comes back
unchanged after a resume and can be recomputed for many steps in one batch. The agent does not see it.
"""

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from rlweights.learning.environments.base import Draw, Environment
from rlweights.learning.environments.cartpole import CartPole
from rlweights.learning.environments.pendulum import Pendulum
from rlweights.learning.environments.wrapper import EnvironmentWrapper
from rlweights.weights.arrays import Tensor


class Schedule(Protocol):
    """A parameter as a function of time."""

    def __call__(self, clock: Tensor) -> Tensor:
        """Returns the float32 value at each entry of the int32 tensor `clock`, in its shape."""
        ...


@dataclasses.dataclass(frozen=True)
class Steps:
    """Piecewise constant: each of `values` for `period` vector steps, then from the first one again."""

    values: Sequence[float]
    period: int

    def __post_init__(self) -> None:
        _require(len(self.values) > 0, "Steps: values must not be empty.")
        _require(self.period >= 1, f"Steps: period must be at least 1, got {self.period}.")

    def __call__(self, clock: Tensor) -> Tensor:
        """The value of the piece that `clock` lies in."""
        piece = tf.math.floormod(clock // self.period, len(self.values))
        return tf.gather(tf.constant(self.values, tf.float32), piece)


@dataclasses.dataclass(frozen=True)
class Sinusoid:
    """Swings between `low` and `high` once in `period` vector steps; midway and rising at first."""

    low: float
    high: float
    period: int

    def __post_init__(self) -> None:
        _require(self.low <= self.high, f"Sinusoid: low {self.low} lies above high {self.high}.")
        _require(self.period >= 1, f"Sinusoid: period must be at least 1, got {self.period}.")

    def __call__(self, clock: Tensor) -> Tensor:
        """The value at `clock`; the phase is counted in integers, so it never loses precision."""
        phase = tf.cast(tf.math.floormod(clock, self.period), tf.float32) / self.period
        middle, reach = (self.high + self.low) / 2, (self.high - self.low) / 2
        return middle + reach * tf.sin(2 * math.pi * phase)


class Drifting(EnvironmentWrapper):
    """Any environment, with some of its parameters on a schedule.

    `Drifting(CartPole(), length=Steps([0.5, 1.0], period=20_000))` swaps the pole every 20,000 vector
    steps. The running episodes go on with the new parameter. `observe` always uses the constants of
    `environment`.

    Args:
        environment: The environment.
        **schedules: By name of the parameter, an attribute of type float that the environment's constructor
            sets: its `Schedule`.

    Raises:
        ValueError: If the environment has no such parameter, or no schedule is given.
    """

    def __init__(self, environment: Environment, **schedules: Schedule):
        parameters = [name for name, value in vars(environment).items() if type(value) is float]
        _require(bool(schedules), f"{environment.id}: nothing drifts; name a parameter.")
        for name in schedules:
            _require(
                name in parameters,
                f"{environment.id} has no parameter {name!r} that can drift; it has "
                f"{', '.join(parameters) or 'none'}.",
            )
        super().__init__(environment)
        self.schedules = schedules
        self.id = f"Drifting{environment.id}"

    def at(self, clock: Tensor) -> Environment:
        """Returns the environment as it is at `clock`, a scalar or [N]."""
        present = copy.copy(self.environment)
        for name, schedule in self.schedules.items():
            setattr(present, name, schedule(clock))
        return present

    def reset(self, num_envs: int, draw: Draw) -> Tensor:
        """Begins episodes with the physics of the time."""
        return self.at(draw.clock).reset(num_envs, draw)

    def step(self, state: Tensor, action: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """Steps with the physics of the time."""
        return self.at(draw.clock).step(state, action, draw)


class DriftingCartPole(Drifting):
    """CartPole whose pushes change direction every now and then, unless told to drift otherwise.

    Args:
        drift: By name of the parameter, the values that it takes; ``{force_mag = [10, -10]}`` by default.
        period: Vector steps for which a value holds, or which a swing takes.
        shape: ``"steps"``: each value in turn, over and over; ``"sinusoid"``: smoothly from the smallest
            to the largest value and back.
        **parameters: Arguments of `CartPole`.
    """

    def __init__(
        self,
        *,
        drift: Mapping[str, Sequence[float]] | None = None,
        period: int = 20_000,
        shape: str = "steps",
        **parameters: Any,
    ):
        drift = {"force_mag": [10.0, -10.0]} if drift is None else drift
        super().__init__(CartPole(**parameters), **_schedules(drift, period, shape, parameters))


class DriftingPendulum(Drifting):
    """Pendulum under a gravity that changes every now and then, unless told to drift otherwise.

    Args:
        drift: By name of the parameter, the values that it takes; ``{g = [10, 5, 15]}`` by default.
        period: Vector steps for which a value holds, or which a swing takes.
        shape: ``"steps"``: each value in turn, over and over; ``"sinusoid"``: smoothly from the smallest
            to the largest value and back.
        **parameters: Arguments of `Pendulum`.
    """

    def __init__(
        self,
        *,
        drift: Mapping[str, Sequence[float]] | None = None,
        period: int = 20_000,
        shape: str = "steps",
        **parameters: Any,
    ):
        drift = {"g": [10.0, 5.0, 15.0]} if drift is None else drift
        super().__init__(Pendulum(**parameters), **_schedules(drift, period, shape, parameters))


def _schedules(
    drift: Mapping[str, Sequence[float]], period: int, shape: str, parameters: Mapping[str, object]
) -> dict[str, Schedule]:
    """Turns the settings of an agent file into schedules; `parameters` are the constant ones."""
    for name in drift:
        _require(name not in parameters, f"{name!r} cannot both drift and be {parameters.get(name)}.")
    _require(shape in ("steps", "sinusoid"), f"shape must be 'steps' or 'sinusoid', got {shape!r}.")
    if shape == "steps":
        return {name: Steps(values, period) for name, values in drift.items()}
    return {name: Sinusoid(min(values), max(values), period) for name, values in drift.items()}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
