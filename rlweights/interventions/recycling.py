"""Recycling of dormant units."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from rlweights.interventions.base import KERNELS_AND_BIASES, Intervention
from rlweights.selection import owner_of


class Recycling(Intervention):
    """ReDo: re-initialises units that have fallen dormant, so that they may learn again.

    A unit is dormant if its score, its mean absolute activation relative to its layer's, is at most `tau`.
    Its incoming weights are drawn afresh (Gaussian, with the root mean square that they had when the
    optimizer was built), its bias becomes 0, its outgoing weights become 0, so that the network's function
    hardly changes, and the optimizer's slots of exactly these entries become 0. The optimizer's step count
    is global in Keras and stays.

    Scores come from outside, as the feedback "dormant_score/<layer path>" of shape [units]: the trainer
    writes them in every iteration, `WeightMonitor(probe=...)` in every epoch. Each is used once. Parameters
    of a layer norm between two layers are left alone.

    Args:
        tau: Threshold of the score.
        every: Iterations between two uses.
        units: Successors of layers, by the path or its end: {"hidden_1": ["policy/head", "value/head"]}. One
            that is not named is followed by the next kernel of the same network that takes its outputs; the
            last layer of a network has no successor and is not recycled.
        **kwargs: See `Intervention`.

    Metrics: `recycled`, the share of units re-initialised.

    Reference: Sokar et al., "The Dormant Neuron Phenomenon in Deep Reinforcement Learning", 2023,
    https://arxiv.org/abs/2302.12902, algorithm 1; tau from its published code.
    """

    placement = "after_iteration"
    placements = ("after_iteration", "after_step")
    default_on = KERNELS_AND_BIASES
    metric_names = ("recycled",)

    def __init__(
        self,
        tau: Any = 0.025,
        every: int = 1,
        units: Mapping[str, str | Sequence[str]] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every!r}")
        self.tau = self.strength(tau, "tau", minimum=0.0)
        self.every = int(every)
        self._units = {k: [v] if isinstance(v, str) else list(v) for k, v in (units or {}).items()}
        self._scores: dict[str, Any] = {}
        self._feeders: dict[str, str] = {}
        self._scales: dict[int, Any] = {}

    def build(self, variables):
        """Finds each layer's successors and declares its scores.

        Raises:
            ValueError: If a named layer does not exist or does not fit, or if no layer can be recycled.
        """
        kernels = {owner_of(v): v for v in variables if len(v.shape) >= 2}
        named = {
            self._named(layer, kernels): [self._named(each, kernels) for each in successors]
            for layer, successors in self._units.items()
        }
        for layer, successors in {**_chains(kernels), **named}.items():
            units = int(kernels[layer].shape[-1])
            for successor in successors:
                if int(kernels[successor].shape[-2]) != units:
                    raise ValueError(
                        f"{self.name}: {successor!r} takes {int(kernels[successor].shape[-2])} inputs and "
                        f"not the {units} units of {layer!r}"
                    )
                self._feeders[successor] = layer
            self._scores[layer] = self.feedback(f"dormant_score/{layer}", [float("nan")] * units)
            kernel = kernels[layer]
            scale = ops.sqrt(ops.mean(ops.square(ops.cast(kernel, "float32"))))
            self._scales[id(kernel)] = self.add_variable(f"{layer.replace('/', '_')}_scale", initial=scale)
        if not self._scores:
            raise ValueError(
                f"{self.name}: no layer is followed by another that takes its outputs; name them with "
                f"`units`. Layers: {', '.join(kernels)}"
            )

    def _named(self, name: str, kernels: Mapping[str, Any]) -> str:
        """The one layer whose path is `name`, or ends with it."""
        found = [layer for layer in kernels if layer == name or layer.endswith(f"/{name}")]
        if len(found) != 1:
            count = "no layer" if not found else "more than one layer"
            raise ValueError(f"{self.name}: {count} {name!r} among the selected: {', '.join(kernels)}")
        return found[0]

    def dormant(self, layer: str, step):
        """Returns which units [U] of a layer are re-initialised now; none where nothing was measured."""
        due = ops.equal(ops.mod(self._applications, self.every), self.every - 1)
        return ops.logical_and(self._scores[layer](step) <= self.tau(step), due)

    def update(self, weight, step):
        """Returns the weight with the entries of dormant units re-initialised."""
        layer, new = owner_of(weight), ops.copy(weight)
        if layer in self._scores:
            fresh = ops.zeros_like(new)
            if id(weight) in self._scales:
                fresh = ops.cast(self._scales[id(weight)], new.dtype) * self.normal(weight, step)
            new = ops.where(self.dormant(layer, step), fresh, new)
        if layer in self._feeders and len(weight.shape) >= 2:
            new = ops.where(self.dormant(self._feeders[layer], step)[:, None], ops.zeros_like(new), new)
        return new

    def update_slot(self, weight, slot, step):
        """Returns the optimizer slot with the entries of dormant units zeroed."""
        layer, new = owner_of(weight), ops.copy(slot)
        if layer in self._scores:
            new = ops.where(self.dormant(layer, step), ops.zeros_like(new), new)
        if layer in self._feeders and len(weight.shape) >= 2:
            new = ops.where(self.dormant(self._feeders[layer], step)[:, None], ops.zeros_like(new), new)
        return new

    def observe(self, before, after, step):
        """Counts the units."""
        masks = [ops.cast(self.dormant(layer, step), "float32") for layer in self._scores]
        units = sum(int(mask.shape[0]) for mask in masks)
        return {"recycled": sum(ops.sum(mask) for mask in masks) / float(units)}

    def finish(self, step):
        """Forgets the scores: a unit that was just re-initialised has not been measured yet."""
        for score in self._scores.values():
            score.variable.assign(ops.full_like(score.variable, float("nan")))


def _chains(kernels: Mapping[str, Any]) -> dict[str, list[str]]:
    """Each layer's successor: the next kernel of the same network, if it takes the layer's outputs."""
    chains: dict[str, list[str]] = {}
    layers = list(kernels)
    for layer, following in itertools.pairwise(layers):
        same = layer.rpartition("/")[0] == following.rpartition("/")[0]
        if same and int(kernels[layer].shape[-1]) == int(kernels[following].shape[-2]):
            chains[layer] = [following]
    return chains
