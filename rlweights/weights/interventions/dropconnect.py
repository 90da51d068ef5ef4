"""DropConnect: dropout of weights."""

from typing import Any

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.base import Intervention
from rlweights.weights.selection import kernels


class DropConnect(Intervention):
    """Drops each weight with a probability while a gradient is computed, and scales up the others.

        w <- w m / (1 - rate),  m = 0 with probability `rate`, else 1

    One mask holds for the whole batch, where the paper draws one for each example, and evaluations see the
    weights themselves, which are the expectation, where the paper samples the units' inputs.

    Args:
        rate: Probability of a weight to be dropped, in [0, 1): a number, a schedule of the step, or a
            `Feedback`.
        **kwargs: See `Intervention`.

    Metrics: `relative_change` alone.

    Reference: Wan, Zeiler, Zhang, LeCun and Fergus, "Regularization of Neural Networks using DropConnect",
    2013, https://proceedings.mlr.press/v28/wan13.html.
    """

    when = "Large layers and little data, where dropout of whole units is too coarse."
    example = "DropConnect(0.2)"

    placement = "during_gradient"
    placements = ("during_gradient", "during_iteration")
    default_on = kernels()

    def __init__(self, rate: Any = 0.2, **kwargs: Any):
        super().__init__(**kwargs)
        if isinstance(rate, int | float) and not 0.0 <= rate < 1.0:
            raise ValueError(f"`rate` must be in [0, 1). Received: {rate!r}")
        self.rate = self.strength(rate, "rate", minimum=0.0)

    def update(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the weight with entries dropped."""
        rate: Any = ops.cast(self.rate(step), weight.dtype)
        kept = ops.cast(self.uniform(weight, step) >= rate, weight.dtype)
        return weight * kept / (1.0 - rate)
