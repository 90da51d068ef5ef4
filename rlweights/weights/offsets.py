"""Clean and live weights: live = clean + offsets, and only live weights are ever computed with."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import has_value, ops
from rlweights.weights.interventions.base import Intervention

_UNITS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
_ROOM = 8.0
"""Units in the last place by which a live weight may differ from clean plus offset, and still be it: XLA
draws and adds in one fused operation, which rounds once where a sum rounds twice."""


class Offsets:
    """The offsets of rules that are undone, and clean copies of the weights that have them.

    Weights without such a rule are always clean, and cost nothing. A restore is a copy: subtracting an offset
    gives back 89 % of float32 entries, and 10,000 additions and subtractions drift by 1.3e-5. An entry that
    is no longer clean plus offset was written by somebody else meanwhile: it is the clean one from there on.

    Args:
        owner: The optimizer, whose `add_variable` makes what is saved with it.
        rules: All rules, in their order.
        variables: All trainable weights.

    Attributes:
        variables: The weights that have offsets.
        clean: Their clean values as of the last step.
    """

    def __init__(self, owner: Any, rules: Sequence[Intervention], variables: Sequence[Variable]):
        self._active = owner.add_variable(shape=(), dtype="bool", initializer="zeros", name="active")
        self._rules = [rule for rule in rules if rule.placement.startswith("during_")]
        ids = {id(v) for rule in self._rules for v in rule.variables}
        self.variables = tuple(v for v in variables if id(v) in ids)
        copy = owner.add_variable_from_reference
        self.clean = tuple(copy(v, name="clean") for v in self.variables)
        for variable, clean in zip(self.variables, self.clean, strict=True):
            clean.assign(ops.copy(variable))
        self._offsets = {
            placement: tuple(copy(v, name=placement) for v in self.variables)
            for placement in ("during_iteration", "during_gradient")
            if any(rule.placement == placement for rule in self._rules)
        }

    @property
    def active(self) -> bool:
        """Whether an iteration is under way, and weights may not be clean; outside of graphs only."""
        return has_value(self._active) and bool(ops.convert_to_numpy(self._active))

    def begin(self, step: Scalar, prepare: Callable[[], None]) -> None:
        """Begins an iteration, in the graph; the weights are clean until `put_back`.

        Args:
            step: Optimizer steps so far, a scalar integer tensor.
            prepare: Called before anything is drawn.
        """
        self.restore()
        prepare()
        self.keep()
        self._active.assign(True)
        for placement in self._offsets:
            self.draw(placement, step)

    def activate(self) -> None:
        """Lets offsets count from here on, without drawing any."""
        self._active.assign(True)

    def end(self) -> None:
        """Ends an iteration: the weights are clean from here on."""
        self.restore()
        self._active.assign(False)

    def clean_values(self) -> list[Tensor]:
        """Returns the clean values of `variables`, whether clean or live ones are in them."""
        return [
            ops.where(self._is_live(i), ops.copy(clean), ops.copy(self.variables[i]))
            for i, clean in enumerate(self.clean)
        ]

    def restore(self) -> None:
        """Puts the clean weights in."""
        for variable, value in zip(self.variables, self.clean_values(), strict=True):
            variable.assign(value)

    def keep(self) -> None:
        """Takes the present weights for the clean ones."""
        for variable, clean in zip(self.variables, self.clean, strict=True):
            clean.assign(ops.copy(variable))  # on JAX the two would be one buffer otherwise

    def draw(self, placement: str, step: Scalar) -> None:
        """Draws the offsets of a placement anew, if it has any; the weights must be clean."""
        if placement not in self._offsets:
            return
        total = {id(v): ops.zeros(v.shape, v.dtype) for v in self.variables}
        for rule in [each for each in self._rules if each.placement == placement]:
            for variable, offset in rule.offsets(step):
                total[id(variable)] += offset
        for variable, offset in zip(self.variables, self._offsets[placement], strict=True):
            offset.assign(total[id(variable)])

    def put_back(self) -> None:
        """Puts the live weights in.

        Under XLA they may differ in the last bit from those that were drawn, with a fused multiply-add.
        """
        for i, (variable, clean) in enumerate(zip(self.variables, self.clean, strict=True)):
            # Where no iteration is under way, what is undone must not be there in the first place.
            variable.assign(ops.where(ops.copy(self._active), clean + self._offset(i), ops.copy(variable)))

    def _offset(self, i: int) -> Tensor:
        first, *others = (ops.copy(offsets[i]) for offsets in self._offsets.values())
        for each in others:
            # The branch keeps TensorFlow from merging this sum and the next one into a sum of three, whose
            # order it chooses anew in each process: the last bits of live weights would be other ones.
            first = ops.where(ops.copy(self._active), first + each, ops.zeros(first.shape, first.dtype))
        return first

    def _is_live(self, i: int) -> Tensor:
        """Which entries [...] of a weight are clean plus offset, of which the clean value is the copy."""
        variable, clean, offset = self.variables[i], self.clean[i], self._offset(i)
        live = clean + offset
        room = _ROOM * _UNITS[keras.backend.standardize_dtype(variable.dtype)]
        near = ops.abs(variable - live) <= room * (ops.abs(clean) + ops.abs(offset))
        lost = ops.logical_and(ops.isnan(variable), ops.isnan(live))  # a NaN that was drawn comes back, too
        return ops.logical_and(self._active, near | ops.equal(variable, live) | lost)
