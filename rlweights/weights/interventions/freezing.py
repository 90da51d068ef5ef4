"""Freezing of weights, for a while or for good."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.base import Intervention


class Freezing(Intervention):
    """Holds weights where they are until a step, all at once or layer by layer from the last one on.

        w <- w   while step < until + every (number of selected layers behind this one)

    The optimizer sees no gradient of them, and no other rule moves them, wherever it stands; what is written
    into them between two steps (a checkpoint that is loaded) stays. Put it last: a rule behind it moves
    weights already at the end of the step before they are free. It differs from `layer.trainable =
    False` in that it ends by itself in the middle of a compiled `fit`, and takes any selection. Entries
    within a weight are frozen by a rule of your own with a `mask`.

    Args:
        until: Optimizer step from which the weights are free, or the first layer of them; None: never.
        every: Steps from the layer that is freed to the one before it (gradual unfreezing); 0: all at once.
        **kwargs: See `Intervention`.

    Metrics: `frozen`, the share of the selected weights' entries that are held.

    Reference: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018,
    https://arxiv.org/abs/1801.06146, section 3.3 (gradual unfreezing).
    """

    when = "Fine-tuning: a new head first, then one layer after the other."
    example = "Freezing(until=1_000, every=500)"

    placements = ("after_step",)
    metric_names = ("frozen",)

    def __init__(self, until: int | None = None, every: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        if until is not None and until < 0:
            raise ValueError(f"`until` must be at least 0, or None. Received: {until!r}")
        if every < 0 or (every and until is None):
            raise ValueError(f"`every` must be at least 0, and 0 where `until` is None. Received: {every!r}")
        self.until, self.period = until, int(every)
        self._from: dict[int, int] = {}
        self._free: dict[int, Any] = {}

    def build(self, variables: Sequence[Variable]) -> None:
        """Creates what says which layers are free."""
        layers = list(dict.fromkeys(self.layer_of(v) for v in variables))[::-1]
        for v in variables:
            if self.until is not None:
                self._from[id(v)] = self.until + self.period * layers.index(self.layer_of(v))
            free = self.until is not None and self._from[id(v)] <= 0
            name = f"{v.path.replace('/', '_')}_free"
            self._free[id(v)] = self.add_variable(name, dtype="bool", initial=free)

    def update(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the weight itself: it is held by its mask."""
        return weight

    def mask(self, weight: Variable) -> Tensor:
        """Returns whether all of the weight is free, a scalar."""
        return ops.copy(self._free[id(weight)])

    def anchor(self, weight: Variable) -> None:
        """Returns None: weights are held where they are."""
        return None

    def finish(self, step: Scalar) -> None:
        """Frees what is free from the next step on."""
        for key, first in self._from.items():
            self._free[key].assign(step + 1 >= first)

    def observe(
        self, before: Sequence[Tensor], after: Sequence[Tensor], step: Scalar
    ) -> Mapping[str, Tensor]:
        """Counts the entries."""
        sizes = [float(math.prod(each.shape)) for each in before]
        pairs = zip(self.variables, sizes, strict=True)
        held = [ops.where(self._free[id(v)], 0.0, size) for v, size in pairs]
        total: Any = ops.sum(ops.stack(held))
        return {"frozen": total / sum(sizes)}
