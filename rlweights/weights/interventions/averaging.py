"""An average of the weights, for evaluation."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.base import Intervention

KINDS = ("exponential", "uniform")


class Averaging(Intervention):
    """Keeps an average of weights, which evaluations and exports use.

        exponential:  average <- decay * average + (1 - decay) * weight
        uniform:      average <- average + (weight - average) / n,  the n-th time

    The weights themselves stay as they are. Put it last: it averages what the rules before it have made of
    the weights, so an average of clipped weights lies within their bounds (Keras' own average is taken
    before constraints act, and may not).

    The exponential average starts at the weights that it meets when the optimizer is built, where training
    starts too, so that there is no bias to correct; with `begin`, at the weights of that step. The uniform
    one is stochastic weight averaging: `begin` late, with a constant rate and `every` an epoch, or with a
    cyclic rate and `every` a cycle, which averages where each cycle ends (`begin` counts steps). Statistics
    of batch normalization belong to weights that are evaluated: `rlweights.renew_batch_statistics`.

    Args:
        decay: Weight of the past at each step, in [0, 1): a number, a schedule of the step, or a `Feedback`;
            of the exponential average. 0.99 is Keras' own default.
        kind: "exponential" or "uniform".
        begin: Optimizer steps after which weights count first; until then evaluations have the weights.
        every: Steps from one time that weights are averaged to the next.
        **kwargs: See `Intervention`.

    Metrics: `distance`, the root mean square difference between weights and average.

    References: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992,
    https://doi.org/10.1137/0330046; Izmailov, Podoprikhin, Garipov, Vetrov and Wilson, "Averaging Weights
    Leads to Wider Optima and Better Generalization", 2018, https://arxiv.org/abs/1803.05407 (uniform).
    """

    when = "Better weights for evaluation than the last ones, at a constant or cyclic learning rate."
    example = "Averaging(0.999)"

    placements = ("after_step",)
    metric_names = ("distance",)

    def __init__(
        self, decay: Any = 0.99, kind: str = "exponential", begin: int = 0, every: int = 1, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if isinstance(decay, int | float) and not 0.0 <= decay < 1.0:
            raise ValueError(f"`decay` must be in [0, 1). Received: {decay!r}")
        if kind not in KINDS:
            raise ValueError(f"`kind` takes {' or '.join(map(repr, KINDS))}. Received: {kind!r}")
        if begin < 0:
            raise ValueError(f"`begin` must be at least 0. Received: {begin!r}")
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every!r}")
        self.decay = self.strength(decay, "decay", minimum=0.0)
        self.kind, self.begin, self.every = kind, int(begin), int(every)
        self.averages: list[Any] = []
        self._count: Any = None

    def build(self, variables: Sequence[Variable]) -> None:
        """Begins the averages at the present weights."""
        # In float32 whatever the weights are in: small steps towards them would be rounded away.
        self.averages = [
            self.add_variable(f"{v.path.replace('/', '_')}_average", shape=v.shape, initial=v)
            for v in variables
        ]
        if self.kind == "uniform" or self.begin:
            self._count = self.add_variable("count", initial=0.0)

    def due(self, step: Scalar) -> Scalar | None:
        """Returns whether weights are averaged after this step; None: after each."""
        if self.begin == 0:
            return super().due(step)
        regular = ops.equal(ops.mod(step + 1 - self.begin, self.every), 0)
        return ops.logical_and(step + 1 >= self.begin, regular)

    def update(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the weight itself: nothing is written."""
        return weight

    def finish(self, step: Scalar) -> None:
        """Moves the averages towards the weights."""
        for average, variable in zip(self.averages, self.variables, strict=True):
            average.assign(self._moved(average, variable, step))
        if self._count is not None:
            self._count.assign_add(1.0)

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
        """Returns the average, or the value as it is while there is none."""
        average = ops.cast(self.averages[self._places[id(weight)]], weight.dtype)
        return average if self._count is None else ops.where(self._count > 0.0, average, value)

    def _moved(self, average: Variable, weight: Variable, step: Scalar) -> Tensor:
        value = ops.cast(weight, "float32")
        decay: Any
        if self._count is None:
            decay = self.decay(step)
        elif self.kind == "uniform":
            decay = self._count / (self._count + 1.0)
        else:
            decay = ops.where(self._count > 0.0, self.decay(step), 0.0)
        return decay * average + (1.0 - decay) * value
