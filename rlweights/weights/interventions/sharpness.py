"""Flat minima: gradients that are taken a step ahead along the momentum."""

from collections.abc import Sequence
from typing import Any

import keras

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.base import Intervention

_WITH = (keras.optimizers.SGD,)
"""Optimizers whose momentum is what is added to the weights."""
_AGAINST = (
    *(keras.optimizers.Adam, keras.optimizers.Nadam, keras.optimizers.Adamax, keras.optimizers.Lion),
    *(keras.optimizers.Lamb, keras.optimizers.RMSprop),
)
"""Optimizers whose momentum points where the gradient does, against what is added to the weights."""


class SharpnessAware(Intervention):
    """Momentum-SAM: takes each gradient at weights that are moved along the momentum, all to one distance.

        w <- w + radius v / |v|        v: the momentum, as it moves the weights; |v| over all weights together

    Sharpness-aware minimization takes the gradient where the loss is higher nearby; it needs two gradients a
    step, this rule one. Evaluations see the weights themselves, so nothing has to be moved back. The
    momentum is the inner optimizer's: `SGD(momentum=...)`, Adam and its family, Lion, Lamb, RMSprop with
    `momentum`; others are refused by name.

    Args:
        radius: Distance ρ of the move: a number, a schedule of the step, or a `Feedback`. The reference has
            0.3 for SGD and 1 for AdamW, at sizes of networks that are far beyond a thousand weights: a small
            network needs less.
        **kwargs: See `Intervention`.

    Metrics: `momentum`, the norm |v|.

    References: Becker, Altrock and Risse, "Momentum-SAM: Sharpness Aware Minimization without Computational
    Overhead", 2024, https://arxiv.org/abs/2401.12033, algorithm 1, with the sign of its published code;
    Foret, Kleiner, Mobahi and Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving
    Generalization", 2021, https://arxiv.org/abs/2010.01412 (with two gradients).
    """

    when = "Generalization in flat minima at the price of one gradient a step."
    example = "SharpnessAware(0.05)"

    placement = "during_gradient"
    placements = ("during_gradient",)
    metric_names = ("momentum",)

    def __init__(self, radius: Any = 0.05, **kwargs: Any):
        super().__init__(**kwargs)
        self.radius = self.strength(radius, "radius", minimum=0.0)
        self._momenta: dict[int, Any] = {}
        self._sign = 1.0
        self.norm: Any = None

    def build(self, variables: Sequence[Variable]) -> None:
        """Finds the momentum of each weight.

        Raises:
            ValueError: If the inner optimizer keeps none, or the direction of it is not known.
        """
        inner = self._owner.inner
        if not isinstance(inner, _WITH + _AGAINST):
            known = ", ".join(each.__name__ for each in _WITH + _AGAINST)
            raise ValueError(f"{self.name}: of {type(inner).__name__} no momentum is known. Use {known}")
        self._sign = 1.0 if isinstance(inner, _WITH) else -1.0
        self._momenta = {id(v): self.slot(v, "momentum") for v in variables}
        self.norm = self.add_variable("norm")

    def survey(self, weights: Sequence[Variable], step: Scalar) -> None:
        """Measures the momentum of all weights together."""
        squares = [ops.sum(ops.square(ops.cast(self._momenta[id(w)], "float32"))) for w in weights]
        self.norm.assign(ops.sqrt(ops.sum(ops.stack(squares))))

    def delta(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the move along the momentum; none before there is one."""
        if id(weight) not in self._momenta:
            raise ValueError(f"{self.name}: momentum needs a weight of a built optimizer.")
        factor = self._sign * self.radius(step) / ops.maximum(self.norm, 1e-12)
        return ops.cast(factor * ops.cast(self._momenta[id(weight)], "float32"), weight.dtype)

    def observe(self, before: Sequence[Tensor], after: Sequence[Tensor], step: Scalar) -> dict[str, Tensor]:
        """Reports the norm."""
        return {"momentum": ops.copy(self.norm)}
