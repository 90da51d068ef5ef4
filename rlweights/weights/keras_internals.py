"""Every private attribute of Keras that rlweights touches; a test of each fails when Keras takes it away.

Keras offers no public way to these things. Where one is found, the function here goes.
"""

from collections.abc import Sequence
from typing import Any


def trainable_variables(optimizer: Any) -> list[Any]:
    """Returns the weights that an optimizer was built on, in their order; empty before `build`."""
    return list(optimizer._trainable_variables)


def variable_index(optimizer: Any, variable: Any) -> int:
    """Returns the place of a weight among those that an optimizer was built on.

    Raises:
        KeyError: If the optimizer was built without it.
    """
    return optimizer._get_variable_index(variable)


def layers_of(model: Any) -> list[Any]:
    """Returns a model and all layers in it, however deep."""
    return list(model._flatten_layers())


def set_compiled_optimizer(model: Any, optimizer: Any) -> None:
    """Makes a compiled model save this optimizer, and not the one that it was compiled with."""
    if model.compiled:
        model._compile_config.config["optimizer"] = optimizer


def own_trainable_variables(layer: Any) -> list[Any]:
    """Returns the trainable weights of a layer itself, without those of the layers in it."""
    return list(layer._trainable_variables)


def set_path(variable: Any, path: str) -> None:
    """Gives a variable another `path`, by which selectors, draws and metrics know it."""
    variable._path = path


def restore_paths(variables: Sequence[Any], saved: Sequence[str]) -> bool:
    """Gives the weights of a loaded model their paths back; returns whether it is that model.

    Keras builds the layers of a `Sequential` or subclassed model that it loads before the model, so that
    their paths lose its name; but selectors, draws and metrics go by path.
    """
    pairs = list(zip(variables, saved, strict=False))
    if len(variables) == len(saved) and all(f"/{old}".endswith(f"/{v.path}") for v, old in pairs):
        for variable, old in pairs:
            set_path(variable, old)
        return True
    return False


def own_variables(layer: Any) -> list[Any]:
    """Returns the weights of a layer itself, frozen or not, without those of the layers in it."""
    # A layer that is still being made has none.
    attributes = vars(layer)
    return [*attributes.get("_trainable_variables", ()), *attributes.get("_non_trainable_variables", ())]


def conv_lstm_cell() -> type:
    """Returns the class of the cell of Keras' convolutional LSTM layers, which it does not export."""
    from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

    return ConvLSTMCell


def global_seed() -> int | None:
    """Returns what `keras.utils.set_random_seed` was called with, None if it was not."""
    from keras.src.utils.rng_utils import get_random_seed

    return get_random_seed()


def in_stateless_scope() -> bool:
    """Returns whether variables are written in mind only, as in the steps of Keras on JAX."""
    from keras.src.backend.common.stateless_scope import in_stateless_scope as inside

    return inside()


def is_initialized(variable: Any) -> bool:
    """Returns whether a variable has a value, of its own or in the present `StatelessScope`."""
    return variable._value is not None or id(variable) in present_values()


def put_state_in(model: Any, state: Sequence[Any]) -> None:
    """Puts the state of a training step into a model's variables; JAX only."""
    names = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")
    model._jax_state, model._jax_state_synced = dict(zip(names, state, strict=True)), False
    model.jax_state_sync()


def present_values() -> dict[int, Any]:
    """Returns the values that variables have in the present `StatelessScope`, by identity; empty outside."""
    from keras.src.backend.common.stateless_scope import get_stateless_scope

    scope = get_stateless_scope()
    return {} if scope is None else dict(scope.state_mapping)


def strategy_of(optimizer: Any) -> Any:
    """Returns the `tf.distribute` strategy in whose scope an optimizer was made; TensorFlow only."""
    return optimizer._distribution_strategy
