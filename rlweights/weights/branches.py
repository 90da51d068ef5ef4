"""Branches in a graph that write to variables, in the one form that all backends of Keras know."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import BRANCHES_WRITE
from rlweights.weights.keras_internals import present_values


class _Noted(keras.StatelessScope):
    """A scope in which Keras variables are written in mind only, and that knows which ones were."""

    def __init__(self) -> None:
        super().__init__(initialize_variables=False)
        self.state_mapping = present_values()
        self.written: dict[int, Variable] = {}

    def add_update(self, update: Any) -> None:
        variable, value = update
        self.written[id(variable)] = variable
        # A variable that is assigned to another one would be read after the branch, where it is another one.
        super().add_update((variable, ops.copy(value)))


def only_if(condition: Scalar, act: Callable[[], Any]) -> None:
    """Acts if a condition holds, in a graph or outside of one.

    The branch returns what `act` has written to Keras variables, and it is assigned after the branch: JAX
    knows no assignment inside of one. Where the condition does not hold nothing changes, to the last bit.

    Args:
        condition: Scalar boolean tensor.
        act: Reads and writes Keras variables.
    """
    scope = _Noted()

    def taken() -> list[Tensor]:
        with scope:
            act()
        return [scope.get_current_value(each) for each in scope.written.values()]

    def left() -> list[Tensor]:
        # Each backend traces the other branch first; outside of graphs only one of them runs at all.
        return [ops.copy(each) for each in scope.written.values()]

    values = ops.cond(condition, taken, left)
    for variable, value in zip(scope.written.values(), values, strict=True):
        variable.assign(value)


def either(condition: Scalar, act: Callable[[], Any], otherwise: Callable[[], Any]) -> None:
    """Acts in one of two ways, either of which may go through an inner optimizer.

    On TensorFlow optimizers write past the scope in which Keras only notes what is written, but may do so in
    a branch; on JAX it is the other way round.

    Args:
        condition: Scalar boolean tensor.
        act: Reads and writes Keras variables, if the condition holds.
        otherwise: Likewise, if it does not.
    """
    if BRANCHES_WRITE:
        ops.cond(condition, lambda: _done(act), lambda: _done(otherwise))
    else:
        only_if(condition, act)
        only_if(ops.logical_not(condition), otherwise)


def _done(act: Callable[[], Any]) -> None:
    act()
