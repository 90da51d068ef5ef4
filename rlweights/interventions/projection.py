"""Projection of weights onto a set: any Keras constraint, at any placement, on any selection."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from rlweights.interventions.base import Intervention
from rlweights.selection import kind


class Projection(Intervention):
    """Replaces each weight by its projection.

    Args:
        constraint: A Keras constraint (the object, its name, or its configuration); a function from a
            weight to a weight; "initial_norm", which gives each weight the L2 norm back that it had when
            the optimizer was built; or "unit_inputs", which gives the incoming weights of each unit the
            norm 1.
        **kwargs: See `Intervention`.

    References: Lyle et al., "Normalization and effective learning rates in reinforcement learning", 2024,
    https://arxiv.org/abs/2407.01800 ("initial_norm"); Lee et al., "Hyperspherical Normalization for
    Scalable Deep Reinforcement Learning", 2025, https://arxiv.org/abs/2502.15280 ("unit_inputs").
    """

    default_on = kind("kernel")

    def __init__(self, constraint: Any, **kwargs):
        super().__init__(**kwargs)
        self._keeps_norm = constraint == "initial_norm"
        self._norms: dict[int, Any] = {}
        self._project: Callable[[Any], Any]
        if self._keeps_norm:
            self._project = self._with_initial_norm
        elif constraint == "unit_inputs":
            self._project = _unit_inputs
        elif isinstance(constraint, str | dict | keras.constraints.Constraint):
            try:
                found = keras.constraints.get(constraint)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"`constraint` = {constraint!r} is neither a Keras constraint nor 'initial_norm' nor "
                    f"'unit_inputs'"
                ) from error
            self._project = found
        elif callable(constraint):
            self._project = constraint
        else:
            raise TypeError(f"`constraint` takes a Keras constraint or a function. Received: {constraint!r}")

    def build(self, variables):
        """Keeps the initial norms, if they are what is projected to."""
        if self._keeps_norm:
            self._norms = {
                id(v): self.add_variable(f"{v.path.replace('/', '_')}_norm", initial=ops.norm(v))
                for v in variables
            }

    def update(self, weight, step):
        """Returns the projected weight."""
        return self._project(weight)

    def _with_initial_norm(self, weight):
        if id(weight) not in self._norms:
            raise ValueError(f"{self.name}: 'initial_norm' needs a weight of a built optimizer.")
        norm = ops.maximum(ops.norm(weight), keras.backend.epsilon())
        return weight * ops.cast(ops.cast(self._norms[id(weight)], weight.dtype) / norm, weight.dtype)


def _unit_inputs(weight):
    axes = tuple(range(len(weight.shape) - 1)) or (0,)
    norm = ops.sqrt(ops.sum(ops.square(weight), axis=axes, keepdims=True))
    return weight / ops.maximum(norm, keras.backend.epsilon())
