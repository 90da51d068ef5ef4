"""Every private attribute of Keras that rlweights touches; a test of each fails when Keras takes it away.

Keras offers no public way to these things. Where one is found, the function here goes.
"""

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


def own_trainable_variables(layer: Any) -> list[Any]:
    """Returns the trainable weights of a layer itself, without those of the layers in it."""
    return list(layer._trainable_variables)


def set_path(variable: Any, path: str) -> None:
    """Gives a variable another `path`, by which selectors, draws and metrics know it."""
    variable._path = path
