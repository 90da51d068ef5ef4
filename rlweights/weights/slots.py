"""What an optimizer keeps of each weight: moments, accumulators, averages."""

from typing import Any

from keras import ops

from rlweights.weights import keras_internals
from rlweights.weights.arrays import Variable


class Slots:
    """The state that a built Keras optimizer keeps of each weight.

    It is looked for once: inside of a branch Keras does not know its variables.

    Args:
        optimizer: The optimizer, as it was built: fresh.
    """

    def __init__(self, optimizer: Any):
        weights = keras_internals.trainable_variables(optimizer)
        own = {id(v) for v in optimizer.variables}

        def is_of(slot: Any, weight: Variable) -> bool:
            if slot is None:  # of this weight nothing is kept
                return True
            name = getattr(slot, "name", "")
            return name.startswith(_prefix(weight)) or name == weight.name

        # A list of as many entries as weights need not be one of slots: each must bear its weight's name.
        lists = [
            v for v in vars(optimizer).values() if isinstance(v, list | tuple) and len(v) == len(weights)
        ]
        slots = [each for each in lists if all(map(is_of, each, weights))]
        self._of = {id(w): [each[i] for each in slots if id(each[i]) in own] for i, w in enumerate(weights)}
        self._beginnings: dict[int, float] = {}
        self._mirrors: set[int] = set()

    def of(self, weight: Variable) -> list[Variable]:
        """Returns the state of one weight.

        Raises:
            KeyError: If the optimizer was built without the weight.
        """
        return list(self._of[id(weight)])

    def named(self, weight: Variable) -> dict[str, Variable]:
        """Returns the state of one weight by the names that Keras gives it: "momentum", "velocity", ..."""
        return {slot.name.removeprefix(_prefix(weight)): slot for slot in self.of(weight)}

    def keep_beginnings(self) -> None:
        """Reads what each slot holds everywhere, for `beginning`; before the first step."""
        slots = [slot for each in self._of.values() for slot in each if 0 not in slot.shape]
        self._beginnings = {id(s): float(ops.max(s)) for s in slots if float(ops.max(s)) == float(ops.min(s))}
        self._mirrors = {id(slot) for slot in slots} - self._beginnings.keys()

    def mirrors(self, slot: Variable) -> bool:
        """Whether a slot begins as a copy of its weight, as in `ScheduleFreeAdamW`: rules rewrite it, too."""
        return id(slot) in self._mirrors

    def beginning(self, slot: Variable) -> float:
        """Returns what a slot was made with: 0, but for a few like Ftrl's."""
        return self._beginnings.get(id(slot), 0.0)


def _prefix(weight: Variable) -> str:
    return f"{weight.path.replace('/', '_')}_"
