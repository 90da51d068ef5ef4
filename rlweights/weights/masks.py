"""Entries of weights that rules hold where they are: pruned ones at zero, frozen ones at their values."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlweights.weights.arrays import Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.base import Intervention


class Masks:
    """What all rules together hold, which nothing that writes weights gets past.

    The optimizer's step is given gradients that are zero there, so that its moments stay at zero, too; what
    it, a later rule, a draw of noise or an average still makes of a held entry is put right before it is
    written. So the order of the rules does not matter to what is held.

    Args:
        rules: All rules of an optimizer, in their order.
    """

    def __init__(self, rules: Sequence[Intervention]):
        self._rules = [rule for rule in rules if rule.holds]

    def of(self, weight: Variable) -> list[tuple[Tensor, Tensor | None]]:
        """Returns masks (True where an entry is free) and anchors of a weight, each broadcast to [...]."""
        found = []
        for rule in self._rules:
            if any(weight is each for each in rule.variables) and (mask := rule.mask(weight)) is not None:
                found.append((mask, rule.anchor(weight)))
        return found

    def held(self, weight: Variable, value: Tensor, present: Tensor | None = None) -> Tensor:
        """Returns a value [...] of a weight with the held entries at their anchors.

        Args:
            weight: The weight.
            value: Its new value.
            present: The value in which entries without an anchor stay; None: that which it has now.
        """
        for mask, anchor in self.of(weight):
            if anchor is None:
                anchor = ops.copy(weight) if present is None else present
            value = ops.where(mask, ops.cast(value, weight.dtype), ops.cast(anchor, weight.dtype))
        return value

    def free(self, weight: Variable, change: Tensor) -> Tensor:
        """Returns a gradient or difference [...] of a weight with zeros for the held entries."""
        for mask, _ in self.of(weight):
            change = ops.convert_to_tensor(change)
            change = ops.where(mask, change, ops.zeros_like(change))
        return change

    def gradients(self, weights: Sequence[Variable], gradients: Sequence[Tensor | None]) -> list[Any]:
        """Returns gradients of weights, in their order, with zeros for the held entries."""
        if not self._rules:
            return list(gradients)
        # In a branch TensorFlow wants all of them to be of the branch, also those of which nothing is held.
        pairs = zip(weights, gradients, strict=True)
        return [None if g is None else self.free(w, g) if self.of(w) else ops.copy(g) for w, g in pairs]

    def values(self, weights: Sequence[Variable]) -> dict[int, Tensor]:
        """Returns the present values of those weights of which entries are held there, by identity."""
        return {id(w): ops.copy(w) for w in weights if any(anchor is None for _, anchor in self.of(w))}

    def hold(self, weights: Sequence[Variable], before: Mapping[int, Tensor]) -> None:
        """Puts held entries back, after a step that began with the values `before`."""
        for weight in weights:
            if self.of(weight):
                weight.assign(self.held(weight, ops.copy(weight), before.get(id(weight))))
