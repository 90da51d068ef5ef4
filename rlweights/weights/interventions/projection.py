"""Projection of weights onto a set: any Keras constraint, at any placement, on any selection."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.base import Intervention
from rlweights.weights.selection import kernels


class Projection(Intervention):
    """Replaces each weight by its projection.

        w <- the point of the set that is nearest to w

    A Keras constraint gives here, bit for bit, what it gives as the `kernel_constraint` of a layer.

    Args:
        constraint: One of

            * "norm": the weight scaled to the L2 norm that it had when the optimizer was built,
              W <- W ||W₀|| / ||W|| (NaP);
            * "unit_norm": the incoming weights of each unit scaled to the norm 1 (SimbaV2). For a dense
              kernel this is Keras' constraint of that name; of a convolution all axes but the last are
              inputs, as Keras' `UnitNorm(axis=[0, 1, 2])` has it;
            * a Keras constraint: the object, its class, its name ("max_norm"), or its configuration;
            * a function from a weight to a weight.
        **kwargs: See `Intervention`.

    Metrics: `relative_change` alone.

    References: Lyle et al., "Normalization and effective learning rates in reinforcement learning", 2024,
    https://arxiv.org/abs/2407.01800 ("norm"); Lee et al., "Hyperspherical Normalization for Scalable Deep
    Reinforcement Learning", 2025, https://arxiv.org/abs/2502.15280 ("unit_norm", after every step).
    """

    when = "Weights that are to stay on a set: units of norm 1, the first norm, any Keras constraint."
    example = 'Projection("unit_norm")'

    default_on = kernels()

    def __init__(self, constraint: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self._keeps_norm = constraint == "norm"
        if constraint in ("norm", "unit_norm"):  # what other constraints promise, nobody can say
            self.promise = "norm"
        self._norms: dict[int, Any] = {}
        self._project: Callable[[Any], Any]
        if self._keeps_norm:
            self._project = self._to_initial_norm
        elif constraint == "unit_norm":
            self._project = self._to_unit_norm
        elif isinstance(constraint, type):
            # A class cannot be saved; what it makes can.
            self._project = self._arguments["constraint"] = constraint()
        elif isinstance(constraint, str | dict):
            try:
                self._project = keras.constraints.get(constraint)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"`constraint` = {constraint!r} is neither 'norm' nor 'unit_norm' nor a constraint of "
                    f"Keras'"
                ) from error
        elif callable(constraint):
            self._project = constraint
        else:
            raise TypeError(f"`constraint` takes a Keras constraint or a function. Received: {constraint!r}")

    def build(self, variables: Sequence[Variable]) -> None:
        """Keeps the initial norms, if they are what is projected to.

        Raises:
            ValueError: If one of them is 0: such a weight could never leave it again.
        """
        for variable in variables if self._keeps_norm else ():
            norm = ops.norm(ops.cast(variable, "float32"))
            if not float(norm) > 0.0:
                raise ValueError(
                    f"{self.name}: {variable.path} has the norm 0 and would have to keep it; leave it out "
                    f"with `on=`"
                )
            name = f"{variable.path.replace('/', '_')}_norm"
            self._norms[id(variable)] = self.add_variable(name, initial=norm)

    def preserves(self, promise: str) -> bool:
        """What else was promised need not hold of a projection."""
        return self.undone

    def update(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the projected weight."""
        return self._project(weight)

    def _to_initial_norm(self, weight: Variable) -> Tensor:
        if id(weight) not in self._norms:
            raise ValueError(f"{self.name}: 'norm' needs a weight of a built optimizer.")
        value = ops.cast(weight, "float32")
        factor = self._norms[id(weight)] / ops.maximum(ops.norm(value), keras.backend.epsilon())
        return ops.cast(value * factor, weight.dtype)

    def _to_unit_norm(self, weight: Variable) -> Tensor:
        inputs = [0] if self.is_bias(weight) else list(self.inputs_of(weight)) or [0]
        return keras.constraints.UnitNorm(axis=inputs)(weight)
