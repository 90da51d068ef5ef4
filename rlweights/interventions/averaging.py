"""An average of the weights, for evaluation."""

import math
from typing import Any

from keras import ops

from rlweights.interventions.base import Intervention


class Averaging(Intervention):
    """Keeps an exponential moving average of weights, which evaluations and exports use.

    The weights themselves stay as they are. Put it last: it averages what the rules before it have made of
    the weights, so an average of clipped weights lies within their bounds (Keras' own average is taken
    before constraints act, and may not). It starts at the weights that it meets when it is built, where
    training starts too, so that there is no bias to correct.

    Args:
        decay: Weight of the past at each step, in [0, 1): a number, a schedule, or a `Feedback`. 0.99 is
            Keras' own default.
        **kwargs: See `Intervention`.

    Metrics: `distance`, the root mean square difference of weights and average.

    Reference: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992,
    https://doi.org/10.1137/0330046.
    """

    placements = ("after_step",)
    metric_names = ("distance",)

    def __init__(self, decay: Any = 0.99, **kwargs):
        super().__init__(**kwargs)
        if isinstance(decay, int | float) and not 0.0 <= decay < 1.0:
            raise ValueError(f"`decay` must be in [0, 1). Received: {decay!r}")
        self.decay = self.strength(decay, "decay", minimum=0.0)
        self.averages: list[Any] = []

    def build(self, variables):
        """Begins the averages at the present weights."""
        self.averages = [self.add_variable("average", like=v, initial=v) for v in variables]

    def update(self, weight, step):
        """Returns the weight as it is."""
        return ops.copy(weight)

    def finish(self, step):
        """Moves the averages towards the weights."""
        for average, variable in zip(self.averages, self.variables, strict=True):
            decay = ops.cast(self.decay(step), variable.dtype)
            average.assign(decay * average + (1 - decay) * variable)

    def observe(self, before, after, step):
        """Measures how far the average lags behind."""
        pairs = list(zip(self.averages, after, strict=True))
        total = sum(ops.sum(ops.square(ops.cast(new - average, "float32"))) for average, new in pairs)
        size = sum(math.prod(average.shape) for average, _ in pairs)
        return {"distance": ops.sqrt(total / float(size))}

    def evaluation_weights(self) -> dict[int, Any]:
        """Returns the averages by the identity of their weights."""
        return {id(v): average for v, average in zip(self.variables, self.averages, strict=True)}
