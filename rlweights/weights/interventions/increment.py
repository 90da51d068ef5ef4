"""Increments: anything that is added to weights, from a constant to a learning rule of the user's own."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.base import Intervention
from rlweights.weights.interventions.feedback import Feedback


class Increment(Intervention):
    """Adds something to weights with `assign_add`.

        w <- w + scale amount

    Args:
        amount: What to add: a number, a schedule of the step or a scalar `Feedback` (broadcast to the
            weight); an array or a `Feedback` of exactly the weight's shape; a mapping from path to such
            an array; or a function `f(weight, step)` or `f(weight, step, feedback)` that returns a tensor
            of the weight's shape, where `feedback["name"]` reads what somebody writes from outside: a
            custom learning rule.
        feedback: Names (and initial values) of the feedback that the function reads.
        scale: Factor on the amount: a number, a schedule of the step, or a `Feedback`.
        **kwargs: See `Intervention`.
    """

    when = "Learning rules of your own, and a first look at what a rule does."
    example = "Increment(1e-6)"

    def __init__(
        self,
        amount: Any,
        *,
        feedback: Mapping[str, Any] | None = None,
        scale: Any = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.scale = self.strength(scale, "scale")
        self.amount = amount
        self._declared = dict(feedback or {})
        self._signals: dict[str, Feedback] = {}
        self._rule: Callable | None = None
        self._arrays: Mapping[str, np.ndarray] | None = None
        if isinstance(amount, Mapping):
            self._arrays = {path: np.asarray(array) for path, array in amount.items()}
        elif isinstance(amount, list | tuple | np.ndarray):
            self._rule = lambda weight, step: ops.convert_to_tensor(amount, weight.dtype)
        elif inspect.isfunction(amount) and len(inspect.signature(amount).parameters) >= 2:
            takes_feedback = len(inspect.signature(amount).parameters) >= 3
            self._rule = self._with_feedback if takes_feedback else amount
        else:
            value = self.strength(amount, "amount")
            self._rule = lambda weight, step: self._broadcast(value(step), weight)

    def build(self, variables: Sequence[Variable]) -> None:
        """Declares the feedback and checks that a mapping names every selected weight."""
        self._signals = {name: self.feedback(name, value) for name, value in self._declared.items()}
        if self._arrays is not None:
            missing = [v.path for v in variables if v.path not in self._arrays]
            if missing:
                raise ValueError(f"{self.name}: `amount` has no entry for {', '.join(missing)}")

    def preserves(self, promise: str) -> bool:
        """What is added breaks every promise, unless it is undone."""
        return self.undone

    def delta(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns scale times amount."""
        if self._arrays is not None:
            amount = ops.convert_to_tensor(self._arrays[weight.path], weight.dtype)
        else:
            assert self._rule is not None
            amount = self._rule(weight, step)
        return ops.cast(self.scale(step), weight.dtype) * amount  # pyright: ignore[reportOperatorIssue]

    def _with_feedback(self, weight: Variable, step: Scalar) -> Tensor:
        values = {name: signal(step) for name, signal in self._signals.items()}
        return self.amount(weight, step, values)

    def _broadcast(self, value: Any, weight: Variable) -> Tensor:
        value = ops.cast(value, weight.dtype)
        return ops.broadcast_to(value, weight.shape) if len(value.shape) == 0 else value
