"""What an optimizer keeps of each weight: moments, accumulators, averages."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from rlweights.weights import keras_internals
from rlweights.weights.arrays import Variable


def of(optimizer: Any, variable: Variable) -> list[Variable]:
    """Returns the state that a Keras optimizer keeps of one weight.

    Raises:
        KeyError: If the optimizer was built without the weight.
    """
    index = keras_internals.variable_index(optimizer, variable)
    weights = keras_internals.trainable_variables(optimizer)
    own = {id(v) for v in optimizer.variables}

    def is_of(slot: Any, weight: Variable) -> bool:
        if slot is None:  # of this weight nothing is kept
            return True
        name = getattr(slot, "name", "")
        return name.startswith(f"{weight.path.replace('/', '_')}_") or name == weight.name

    # A list of as many entries as weights need not be one of slots: each entry must bear its weight's name.
    lists = [v for v in vars(optimizer).values() if isinstance(v, list | tuple) and len(v) == len(weights)]
    slots = [each for each in lists if all(map(is_of, each, weights))]
    return [each[index] for each in slots if id(each[index]) in own]


def beginnings(optimizer: Any, variables: Sequence[Variable]) -> dict[int, float]:
    """Returns the value that each slot of a fresh optimizer holds everywhere, by its identity."""
    slots = (slot for variable in variables for slot in of(optimizer, variable))
    return {id(slot): float(ops.max(slot)) for slot in slots if 0 not in slot.shape}
