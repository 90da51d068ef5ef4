"""Feedback: numbers and tensors that are written from outside while a rule reads them in the graph."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from rlweights.weights.arrays import Scalar
from rlweights.weights.backend import ops


@keras.saving.register_keras_serializable(package="rlweights")
class Feedback:
    """A named scalar or tensor that is written from outside the graph while training runs.

    A rule reads it inside the compiled step; writing it neither retraces nor waits. Rules that name the
    same feedback share it, and `optimizer.feedback["name"] = value` writes it: from the trainer, a Keras
    callback, another thread.

    Args:
        name: The name under which it is written.
        initial: Value before the first write; its shape, () for a number, is the shape for good.
    """

    def __init__(self, name: str, initial: Any = 0.0):
        self.name = name
        self.initial = np.asarray(initial, np.float32)
        self.variable: Any = None

    def __call__(self, step: Scalar) -> Scalar:
        """Returns the value last written; the step does not matter."""
        if self.variable is None:
            return keras.ops.convert_to_tensor(self.initial)
        return keras.ops.copy(self.variable)

    def get_config(self) -> dict[str, Any]:
        """Returns name and initial value."""
        return {"name": self.name, "initial": self.initial.tolist()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Feedback":
        """Makes the feedback that `get_config` described."""
        return cls(**config)

    def __repr__(self):
        return f"Feedback({self.name!r})"


class FeedbackBoard(Mapping):
    """The feedback of one optimizer, by name: `board["kl"] = 0.02` writes, `board["kl"]` reads.

    Writing is an assignment to a variable: possible at any time, from any thread, without a retrace.

    Args:
        add_variable: Makes a variable that is saved with the optimizer.
    """

    def __init__(self, add_variable: Callable[..., Any]):
        self._add_variable = add_variable
        self._variables: dict[str, Any] = {}

    def bind(self, source: Feedback) -> None:
        """Connects `source` to the variable of its name, which is created if it is new.

        Raises:
            ValueError: If the name is in use with another shape.
        """
        if source.name not in self._variables:
            self._variables[source.name] = self._add_variable(
                shape=source.initial.shape,
                initializer=lambda shape, dtype: ops.cast(np.copy(source.initial), dtype),
                dtype="float32",
                name=f"feedback_{source.name.replace('/', '.')}",  # Keras allows no slash in a name
            )
        variable = self._variables[source.name]
        if tuple(variable.shape) != source.initial.shape:
            raise ValueError(
                f"feedback {source.name!r} has shape {tuple(variable.shape)} in one place and "
                f"{source.initial.shape} in another"
            )
        source.variable = variable

    def __getitem__(self, name: str):
        return self._variables[self._known(name)]

    def __setitem__(self, name: str, value: Any) -> None:
        variable = self._variables[self._known(name)]
        if not ops.is_tensor(value):
            value = np.asarray(value, np.float32)
        if tuple(value.shape) != tuple(variable.shape):
            raise ValueError(
                f"feedback {name!r} takes shape {tuple(variable.shape)}. Received: {tuple(value.shape)}"
            )
        variable.assign(value)

    def __iter__(self):
        return iter(self._variables)

    def __len__(self):
        return len(self._variables)

    def _known(self, name: str) -> str:
        if name not in self._variables:
            known = ", ".join(sorted(self._variables)) or "none; build the optimizer first"
            raise KeyError(f"no rule reads a feedback {name!r}; there are: {known}")
        return name
