"""How much: a number, a schedule of the optimizer step, or feedback that somebody writes from outside."""

import numbers
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from rlweights.weights.arrays import Scalar
from rlweights.weights.interventions.feedback import Feedback


class Constant:
    """A strength that never changes."""

    def __init__(self, value: float):
        self.value = float(value)

    def __call__(self, step: Scalar):
        """Returns the value, whatever the step."""
        return keras.ops.convert_to_tensor(self.value, "float32")

    def __repr__(self):
        return f"{self.value:g}"


def strength(value: Any, argument: str = "strength", minimum: float | None = None) -> Callable:
    """Makes a function of the optimizer step of a number, a schedule or a feedback.

    Args:
        value: A number, a Keras `LearningRateSchedule`, any callable of the step, or a `Feedback`.
        argument: Name of the argument, for the error.
        minimum: Smallest number that is allowed; schedules and feedback are not checked.

    Raises:
        TypeError: If `value` is none of these.
        ValueError: If a number is not finite or lies below `minimum`.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        if not np.isfinite(value) or (minimum is not None and value < minimum):  # pyright: ignore[reportCallIssue]
            least = "" if minimum is None else f" of at least {minimum:g}"
            raise ValueError(f"`{argument}` must be a finite number{least}. Received: {value!r}")
        return Constant(float(value))
    if callable(value):
        return value
    raise TypeError(
        f"`{argument}` takes a number, a schedule of the step, or a Feedback. Received: {value!r}"
    )


def formatted(value: Any) -> str:
    """`repr`, but of Keras' constraints and schedules, which have none, the expression that makes them."""
    if isinstance(value, keras.constraints.Constraint | keras.optimizers.schedules.LearningRateSchedule):
        given = {k: v for k, v in value.get_config().items() if v is not None}
        return f"{type(value).__name__}({', '.join(f'{k}={v!r}' for k, v in given.items())})"
    return getattr(value, "__qualname__", repr(value))


@keras.saving.register_keras_serializable(package="rlweights")
class OverBudget(Feedback):
    """A strength that changes linearly over the whole budget: the trainer writes the progress."""

    def __init__(self, first: float, last: float):
        super().__init__("progress")
        self.first, self.last = first, last

    def __call__(self, step: Scalar) -> Scalar:
        """Returns the value at the present progress."""
        return self.first + (self.last - self.first) * super().__call__(step)

    def get_config(self) -> dict[str, Any]:
        """Returns both ends."""
        return {"first": self.first, "last": self.last}

    def __repr__(self):
        return f"{self.first:g} to {self.last:g}"
