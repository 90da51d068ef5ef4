"""Recycling of dormant units."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlweights.weights.arrays import Scalar, Tensor
from rlweights.weights.backend import ops
from rlweights.weights.interventions.units import UnitRule


class Recycling(UnitRule):
    """ReDo: re-initializes units that have fallen dormant, so that they may learn again.

        s = E|h| / mean of E|h| over the layer;  units with s <= tau begin anew

    A unit is dormant if its score, its mean absolute activation relative to its layer's, is at most `tau`.
    Its incoming weights are drawn afresh (Gaussian, with the root mean square that they had when the
    optimizer was built), its bias becomes 0, its outgoing weights become 0, so that the network's function
    hardly changes, and the optimizer's slots of exactly these entries become 0. The optimizer's step count
    is global in Keras and stays. Parameters of a layer norm between two layers are left alone.

    Scores come from outside, as the feedback "dormant_score/<layer path>" of shape [units]: the trainer
    writes them in every iteration, `WeightMonitor(probe=...)` in every epoch. Each is used once; NaN stands
    for not measured.

    Which layer takes the outputs of which is read off the paths and shapes: within a network (what has the
    same path before the layer's name) a layer is followed by the next one in build order, the channels of a
    convolution also through a flattening, and the last one is an output layer, whose units stay. What cannot
    be read is an error, until `units` says it.

    Args:
        tau: Threshold of the score: a number, a schedule of the step, or a `Feedback`.
        every: Uses of the placement (iterations, or steps) from one recycling to the next.
        units: Layers that take the outputs of a layer, by path or the end of one: {"trunk/hidden_1":
            ["policy/head", "value/head"]}; an empty list says that nothing does, and its units stay.
        **kwargs: See `Intervention`.

    Metrics: `recycled`, the share of units re-initialized, and `recycled_units`, their number.

    Reference: Sokar et al., "The Dormant Neuron Phenomenon in Deep Reinforcement Learning", 2023,
    https://arxiv.org/abs/2302.12902, algorithm 1. The default of `tau` is that of Plasticine and of Juliani
    and Ash, 2024, who recycle every 10 iterations.
    """

    when = "Networks whose units fall dormant."
    example = "Recycling(0.025)"

    placement = "after_iteration"
    metric_names = ("recycled", "recycled_units")

    def __init__(
        self,
        tau: Any = 0.025,
        every: int = 1,
        units: Mapping[str, str | Sequence[str]] | None = None,
        **kwargs: Any,
    ):
        super().__init__(units, **kwargs)
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every!r}")
        self.tau = self.strength(tau, "tau", minimum=0.0)
        self._every = int(every)

    def renewed(self, layer: str, step: Scalar) -> Tensor:
        """Returns which units [U] of a layer are re-initialized now; none where nothing was measured."""
        return ops.logical_and(self._scores[layer](step) <= self.tau(step), self._due())

    def _due(self) -> Tensor:
        return ops.equal(ops.mod(self._applications + 1, self._every), 0)

    def observe(
        self, before: Sequence[Tensor], after: Sequence[Tensor], step: Scalar
    ) -> Mapping[str, Tensor]:
        """Counts the units."""
        recycled = sum(ops.sum(ops.cast(self.renewed(layer, step), "float32")) for layer in self._scores)  # pyright: ignore[reportCallIssue]
        return {"recycled": recycled / float(self.unit_count()), "recycled_units": recycled}

    def finish(self, step: Scalar) -> None:
        """Forgets the scores that were used: a re-initialized unit has not been measured yet."""
        used = self._due()
        for score in self._scores.values():
            score.variable.assign(ops.where(used, float("nan"), score.variable))
