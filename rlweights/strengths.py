"""Strengths in agent files: tables that stand for schedules and feedback."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras.optimizers import schedules

from rlweights.interventions import Feedback
from rlweights.mistakes import choices, first_line, refusal

SCHEDULES: dict[str, type] = {
    name: each
    for name, each in vars(schedules).items()
    if inspect.isclass(each) and each is not schedules.LearningRateSchedule
}
"""Keras' schedules by name."""


def strength_of(value: Any, source: str, key: str) -> Any:
    """Turns a table that stands for a schedule or a feedback into it; leaves everything else as it is.

    ===================================================  ==============================================
    `{ from = 1.0, to = 0.0 }`                           linear over the budget
    `{ schedule = "ExponentialDecay", ... }`             a Keras schedule of the optimizer step
    `{ feedback = "name", initial = 0.1 }`               what somebody writes from outside
    ===================================================  ==============================================

    Raises:
        ConfigError: If it is none of these although it begins like one.
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
        return _schedule(value, source, key)
    return dict(value)


@keras.saving.register_keras_serializable(package="rlweights")
class OverBudget(Feedback):
    """A strength that changes linearly over the whole budget: the trainer writes the progress."""

    def __init__(self, first: float, last: float):
        super().__init__("progress")
        self.first, self.last = first, last

    def __call__(self, step):
        """Returns the value at the present progress."""
        return self.first + (self.last - self.first) * super().__call__(step)

    def get_config(self):
        """Returns both ends."""
        return {"first": self.first, "last": self.last}

    def __repr__(self):
        return f"{self.first:g} to {self.last:g}"


def _schedule(value: Mapping[str, Any], source: str, key: str) -> Any:
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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
