"""How much: a number, a schedule of the optimizer step, or feedback that somebody writes from outside."""

import numbers
from collections.abc import Callable
from typing import Any

import keras
import numpy as np


@keras.saving.register_keras_serializable(package="rlweights")
class Feedback:
    """A named scalar or tensor that is written from outside the graph while training runs.

    A rule reads it inside the compiled step; writing it neither retraces nor waits. Rules that name the
    same feedback share it, and `optimizer.feedback["name"] = value` writes it: from the trainer, a Keras
    callback, another thread.

    Args:
        name: The name under which it is written.
        initial: Value before the first write; its shape, () for a number, is the shape for good.
    """

    def __init__(self, name: str, initial: Any = 0.0):
        self.name = name
        self.initial = np.asarray(initial, np.float32)
        self.variable: Any = None

    def __call__(self, step):
        """Returns the value last written; the step does not matter."""
        if self.variable is None:
            return keras.ops.convert_to_tensor(self.initial)
        return keras.ops.copy(self.variable)

    def get_config(self):
        """Returns name and initial value."""
        return {"name": self.name, "initial": self.initial.tolist()}

    @classmethod
    def from_config(cls, config):
        """Makes the feedback that `get_config` described."""
        return cls(**config)

    def __repr__(self):
        return f"Feedback({self.name!r})"


class Constant:
    """A strength that never changes."""

    def __init__(self, value: float):
        self.value = float(value)

    def __call__(self, step):
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
        if not np.isfinite(value) or (minimum is not None and value < minimum):
            least = "" if minimum is None else f" of at least {minimum:g}"
            raise ValueError(f"`{argument}` must be a finite number{least}. Received: {value!r}")
        return Constant(float(value))
    if callable(value):
        return value
    raise TypeError(
        f"`{argument}` takes a number, a schedule of the step, or a Feedback. Received: {value!r}"
    )
