"""Training steps that take and return their state, as Keras' do on JAX: rules act within that state."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from rlweights.weights import keras_internals


def rewritten(model: Any, state: Any, act: Callable[[], Any]) -> Any:
    """Returns the state after `act` has read and written variables of the model and its optimizer.

    Args:
        model: The model that is trained.
        state: Values of its trainable and other variables, of the optimizer's and of its metrics'.
        act: Reads and writes Keras variables, none of which really changes.
    """
    state, error = _rewritten(model, state, act)
    if error is not None:
        raise error
    return state


def acted(model: Any, state: Any, acts: Sequence[Callable[[], Any]]) -> Any:
    """Like `rewritten`, outside of compiled steps; if one of `acts` raises, what was written is kept."""
    for act in acts:
        state, error = _rewritten(model, state, act)
        if error is not None:
            keep(model, state)
            raise error
    return state


def _rewritten(model: Any, state: Any, act: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    trainable, others, optimizer, metrics = state
    variables = [*model.trainable_variables, *model.optimizer.variables]
    mapping = list(zip(variables, [*trainable, *optimizer], strict=True))
    raised = None
    with keras.StatelessScope(mapping, initialize_variables=False) as scope:
        try:
            act()
        except BaseException as error:
            raised = error
    values = [scope.get_current_value(variable) for variable in variables]
    return (values[: len(trainable)], others, values[len(trainable) :], metrics), raised


def keep(model: Any, state: Any) -> None:
    """Puts a state into the variables, so that an error in a step leaves the model as the last step did.

    A step that has begun owns its state, which is gone where it fails midway.
    """
    if not any(value.is_deleted() for values in state for value in values):
        keras_internals.put_state_in(model, state)
