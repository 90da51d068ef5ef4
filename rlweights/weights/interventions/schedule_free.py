"""Schedule-free steps of any optimizer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.base import Intervention


class ScheduleFree(Intervention):
    """Replaces a decaying learning rate by an average, and momentum by where the gradient is taken.

        y = (1 - beta) z + beta x        where loss and gradient are taken
        z <- z - step(gradient at y)     the weights themselves, moved by the inner optimizer
        x <- (1 - c) x + c z             what evaluations and exports have;  c = γ^power / Σ γ^power

    γ is the largest learning rate so far: while it is constant, x is the plain mean of all z. Rules placed
    "after_step" act on z. Give the inner optimizer a constant learning rate, if need be after a warm-up, and
    no momentum (`SGD`, `Adam(beta_1=0.0)`): beta is in its place. Keras' `ScheduleFreeAdamW` is this rule on
    Adam, and may be an inner optimizer itself: then evaluations have its x, and rules act on its y.

    Args:
        beta: Weight of the average in the point where gradients are taken, in [0, 1).
        power: Power of the learning rate in the weights of the average; 0 for a plain mean.
        **kwargs: See `Intervention`.

    Metrics: `distance`, the root mean square difference between z and x.

    Reference: Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky, "The Road Less Scheduled", 2024,
    https://arxiv.org/abs/2405.15682, eq. 3 to 5; defaults and the weights by the learning rate from its
    published wrapper.
    """

    when = "Training whose length is not known beforehand, without a decay of the learning rate."
    example = "ScheduleFree()"

    placement = "during_gradient"
    placements = ("during_gradient",)
    metric_names = ("distance",)

    def __init__(self, beta: float = 0.9, power: float = 2.0, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"`beta` must be in [0, 1). Received: {beta!r}")
        self.beta, self.power = float(beta), self.strength(power, "power", minimum=0.0)
        self._averages: dict[int, Any] = {}
        self._steps: Any = None
        self._largest: Any = None
        self._total: Any = None

    def build(self, variables: Sequence[Variable]) -> None:
        """Begins the averages at the present weights."""
        for v in variables:
            # In float32 whatever the weights are in: small steps towards them would be rounded away.
            name = f"{v.path.replace('/', '_')}_average"
            self._averages[id(v)] = self.add_variable(name, shape=v.shape, initial=v)
        self._steps = self.add_variable("steps", dtype="int", initial=0)
        self._largest = self.add_variable("largest_rate")
        self._total = self.add_variable("total")

    def survey(self, weights: Sequence[Variable], step: Scalar) -> None:
        """Moves the averages, once for each step that was made; a draw without one moves nothing."""
        made = ops.cast(step, self._steps.dtype) > self._steps
        largest = ops.maximum(self._largest, ops.cast(self._owner.learning_rate, "float32"))
        weight = ops.power(largest, self.power(step))
        total = self._total + weight
        share = ops.where(ops.logical_and(made, total > 0.0), weight / ops.maximum(total, 1e-38), 0.0)
        for each in weights:
            average = self._averages[id(each)]
            average.assign(average + share * (ops.cast(each, "float32") - average))
        self._largest.assign(ops.where(made, largest, self._largest))
        self._total.assign(ops.where(made, total, self._total))
        self._steps.assign(ops.maximum(ops.cast(step, self._steps.dtype), self._steps))

    def delta(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns y - z = beta (x - z)."""
        if id(weight) not in self._averages:
            raise ValueError(f"{self.name}: an average needs a weight of a built optimizer.")
        difference = self._averages[id(weight)] - ops.cast(weight, "float32")
        return ops.cast(self.beta * difference, weight.dtype)

    def evaluated(self, weight: Variable, value: Tensor) -> Tensor:
        """Returns the average x."""
        return ops.cast(self._averages[id(weight)], weight.dtype)

    def observe(
        self, before: Sequence[Tensor], after: Sequence[Tensor], step: Scalar
    ) -> Mapping[str, Tensor]:
        """Measures how far the weights are from their average."""
        pairs = zip(self.variables, before, strict=True)
        squares = [ops.sum(ops.square(ops.cast(z, "float32") - self._averages[id(v)])) for v, z in pairs]
        size = float(sum(math.prod(each.shape) for each in before))
        return {"distance": ops.sqrt(ops.sum(ops.stack(squares)) / size)}
