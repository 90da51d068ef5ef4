"""Continual backpropagation: units of little use are renewed, a few at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.units import UnitRule
from rlweights.weights.ranking import largest


class ContinualBackpropagation(UnitRule):
    """Renews, each now and then, the least useful units among those that are old enough.

        u <- decay u + (1 - decay) s Σ |outgoing weights|      the utility of a unit; s: its mean activation
        n <- n + rate every (number of units of age > maturity);  floor(n) of these are renewed

    Incoming weights are drawn afresh, biases, outgoing weights and the optimizer's slots of them become 0,
    age and utility too (see `Recycling` for what feeds what). s comes from outside, as the feedback
    "dormant_score/<layer path>" of shape [units], relative to the layer's mean, which changes no order in a
    layer. Looks between two measurements see the last one; as long as there is none, nothing is renewed.

    Args:
        rate: Share of the mature units that is renewed a step: a number, a schedule of the step, or a
            `Feedback`.
        maturity: Age in steps below which a unit is left alone.
        decay: Weight of the past in the utility, at each look, in [0, 1).
        every: Steps from one look to the next.
        units: Layers that take the outputs of a layer, as of `Recycling`.
        **kwargs: See `Intervention`.

    Metrics: `renewed_units`, the number of units renewed at the last look; `mature`, the share of units that
    were old enough.

    Reference: Dohare, Hernandez-Garcia, Lan, Rahman, Mahmood and Sutton, "Loss of plasticity in deep
    continual learning", 2024, https://doi.org/10.1038/s41586-024-07711-7, algorithm 1; defaults from there,
    the accumulated number from its published code. The bias of the next layer is not corrected for what a
    unit has given on average.
    """

    when = "Endless training on data that changes."
    example = "ContinualBackpropagation()"

    placement = "after_step"
    metric_names = ("renewed_units", "mature")

    def __init__(
        self,
        rate: Any = 1e-4,
        maturity: int = 100,
        decay: float = 0.99,
        every: int = 10,
        units: Mapping[str, str | Sequence[str]] | None = None,
        **kwargs: Any,
    ):
        super().__init__(units, **kwargs)
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every!r}")
        if maturity < 0:
            raise ValueError(f"`maturity` must be at least 0. Received: {maturity!r}")
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"`decay` must be in [0, 1). Received: {decay!r}")
        self.rate = self.strength(rate, "rate", minimum=0.0)
        self.maturity, self.decay, self.every = int(maturity), float(decay), int(every)
        self._utilities: dict[str, Any] = {}
        self._ages: dict[str, Any] = {}
        self._waiting: dict[str, Any] = {}
        self._renewed: dict[str, Any] = {}

    def build(self, variables: Sequence[Variable]) -> None:
        """Finds what each layer feeds (errors as of `Recycling`), and begins utilities and ages at 0."""
        super().build(variables)
        for layer, size in self._sizes.items():
            name = layer.replace("/", "_")
            self._utilities[layer] = self.add_variable(f"{name}_utility", shape=(size,))
            self._ages[layer] = self.add_variable(f"{name}_age", shape=(size,))
            self._waiting[layer] = self.add_variable(f"{name}_waiting")
            self._renewed[layer] = self.add_variable(
                f"{name}_renewed", shape=(size,), dtype="bool", initial=False
            )

    def renewed(self, layer: str, step: Scalar) -> Tensor:
        """Returns which units [U] the last look has chosen."""
        return ops.copy(self._renewed[layer])

    def survey(self, weights: Sequence[Variable], step: Scalar) -> None:
        """Measures utilities, and chooses the units to renew."""
        for layer, score in self._scores.items():
            size, outgoing = self._sizes[layer], ops.zeros((self._sizes[layer],))
            for weight in weights:
                if layer in self._feeders.get(id(weight), ()):
                    magnitude = ops.abs(ops.cast(weight, "float32"))
                    by_input = ops.sum(ops.reshape(magnitude, (-1, *weight.shape[-2:])), axis=(0, 2))
                    outgoing = outgoing + ops.sum(ops.reshape(by_input, (-1, size)), axis=0)
            activity = score(step)
            measured = ops.logical_not(ops.any(ops.isnan(activity)))
            use = ops.where(ops.isnan(activity), 0.0, activity) * outgoing
            utility = self.decay * self._utilities[layer] + (1.0 - self.decay) * use
            utility = ops.where(measured, utility, self._utilities[layer])
            age = self._ages[layer] + float(self.every)
            mature = ops.logical_and(age > float(self.maturity), measured)
            number = ops.sum(ops.cast(mature, "float32"))
            waiting = self._waiting[layer] + self.rate(step) * self.every * number
            count = ops.minimum(ops.floor(waiting), number)
            staying: Any = size - ops.cast(count, "int32")  # pyright: ignore[reportOperatorIssue]
            rank = ops.where(mature, utility, float("inf"))
            chosen = ops.logical_not(largest(rank, staying))
            self._waiting[layer].assign(waiting - count)
            self._renewed[layer].assign(chosen)
            self._utilities[layer].assign(ops.where(chosen, 0.0, utility))
            self._ages[layer].assign(ops.where(chosen, 0.0, age))

    def observe(
        self, before: Sequence[Tensor], after: Sequence[Tensor], step: Scalar
    ) -> Mapping[str, Tensor]:
        """Counts the units."""
        chosen = [ops.sum(ops.cast(each, "float32")) for each in self._renewed.values()]
        mature = [ops.sum(ops.cast(each > float(self.maturity), "float32")) for each in self._ages.values()]
        return {
            "renewed_units": ops.sum(ops.stack(chosen)),
            "mature": ops.sum(ops.stack(mature)) / float(self.unit_count()),
        }
