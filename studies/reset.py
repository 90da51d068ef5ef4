"""A rule for one arm: the whole network begins anew when the task changes, the ceiling for rules."""

from typing import Any

from keras import ops

import rlweights as rw


class Reset(rw.Intervention):
    """Puts every weight back to its beginning, and its optimizer slots to zero, every so many iterations.

    It is told when the task changes, which no rule is: an arm to compare with, not one to use.

    Args:
        every: Iterations from one reset to the next.
        **kwargs: See `Intervention`.
    """

    placement = "after_iteration"
    placements = ("after_iteration",)

    def __init__(self, every: int, **kwargs: Any):
        super().__init__(**kwargs)
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every!r}")
        self.every = int(every)
        self._initial: dict[int, Any] = {}
        self._uses: Any = None

    def build(self, variables):
        """Keeps the initial weights."""
        self._uses = self.add_variable("uses", dtype="int64", initial=0)
        for variable in variables:
            self._initial[id(variable)] = self.add_variable("initial", like=variable, initial=variable)

    def update(self, weight, step):
        """Returns the initial weight if a reset is due, else the weight."""
        return ops.where(self._due(), ops.copy(self._initial[id(weight)]), ops.copy(weight))

    def update_slot(self, weight, slot, step):
        """Returns zeros if a reset is due, else the slot."""
        return ops.where(self._due(), ops.zeros_like(slot), ops.copy(slot))

    def finish(self, step):
        """Counts."""
        self._uses.assign_add(1)

    def _due(self):
        return ops.equal(ops.mod(self._uses + 1, self.every), 0)
