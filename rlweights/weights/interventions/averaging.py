"""An average of the weights, for evaluation."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.interventions.base import Intervention


class Averaging(Intervention):
    """Keeps an exponential moving average of weights, which evaluations and exports use.

        average <- decay * average + (1 - decay) * weight

    The weights themselves stay as they are. Put it last: it averages what the rules before it have made of
    the weights, so an average of clipped weights lies within their bounds (Keras' own average is taken
    before constraints act, and may not). It starts at the weights that it meets when the optimizer is built,
    where training starts too, so that there is no bias to correct.

    Args:
        decay: Weight of the past at each step, in [0, 1): a number, a schedule of the step, or a `Feedback`.
            0.99 is Keras' own default.
        **kwargs: See `Intervention`.

    Metrics: `distance`, the root mean square difference between weights and average.

    Reference: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992,
    https://doi.org/10.1137/0330046.
    """

    placements = ("after_step",)
    metric_names = ("distance",)

    def __init__(self, decay: Any = 0.99, **kwargs: Any):
        super().__init__(**kwargs)
        if isinstance(decay, int | float) and not 0.0 <= decay < 1.0:
            raise ValueError(f"`decay` must be in [0, 1). Received: {decay!r}")
        self.decay = self.strength(decay, "decay", minimum=0.0)
        self.averages: list[Any] = []

    def build(self, variables: Sequence[Variable]) -> None:
        """Begins the averages at the present weights."""
        # In float32 whatever the weights are in: small steps towards them would be rounded away.
        self.averages = [
            self.add_variable(f"{v.path.replace('/', '_')}_average", shape=v.shape, initial=v)
            for v in variables
        ]

    def update(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the weight itself: nothing is written."""
        return weight

    def finish(self, step: Scalar) -> None:
        """Moves the averages towards the weights."""
        for average, variable in zip(self.averages, self.variables, strict=True):
            average.assign(self._moved(average, variable, step))

    def observe(
        self, before: Sequence[Tensor], after: Sequence[Tensor], step: Scalar
    ) -> Mapping[str, Tensor]:
        """Measures how far the averages will lag behind the weights once they have moved."""
        size = float(sum(math.prod(average.shape) for average in self.averages))
        total = sum(  # pyright: ignore[reportCallIssue]
            ops.sum(ops.square(ops.cast(weight, "float32") - self._moved(average, weight, step)))
            for average, weight in zip(self.averages, after, strict=True)
        )
        return {"distance": ops.sqrt(total / size)}

    def evaluated(self, weight: Variable, value: Tensor) -> Tensor:
        """Returns the average."""
        return ops.cast(self.averages[self._places[id(weight)]], weight.dtype)

    def _moved(self, average: Variable, weight: Variable, step: Scalar) -> Tensor:
        decay = self.decay(step)
        return decay * average + (1.0 - decay) * ops.cast(weight, "float32")
