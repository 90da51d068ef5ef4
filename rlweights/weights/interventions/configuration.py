"""A rule's arguments: remembered when it is made, saved with a model, printed for people."""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras

from rlweights.weights.interventions.schedules import formatted


class Configured:
    """What is made of its constructor's arguments alone: it saves, copies and prints itself by them."""

    name: str
    seed: int
    on: Any
    variables: Sequence[Any]
    all_variables: Sequence[Any]
    _arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any):
        """Remembers the arguments: `get_config` gives them back, so no rule has to write its own."""
        self = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind(self, *args, **kwargs)
        self._arguments = dict(list(bound.arguments.items())[1:])
        for each in bound.signature.parameters.values():
            if each.kind is each.VAR_KEYWORD:
                self._arguments |= self._arguments.pop(each.name, {})
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that the rule was made with, by name."""
        return dict(self._arguments)

    def __reduce__(self) -> Any:
        return _made, (type(self), self._arguments)

    def __deepcopy__(self, memo: Any) -> "Configured":  # layers in the arguments stay themselves
        return _made(type(self), self._arguments)

    def __init_subclass__(cls, **kwargs: Any):
        """Registers the rule with Keras, so that models which use it save and load."""
        super().__init_subclass__(**kwargs)
        package = "rlweights" if cls.__module__.startswith("rlweights.") else cls.__module__
        keras.saving.register_keras_serializable(package=package)(cls)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, serialized."""
        config = dict(self._arguments)
        if config.get("seed") is None and self.seed != 0:
            config["seed"] = self.seed
        if "on" in config:
            if "predicate(" in repr(self.on):
                raise ValueError(f"{self.name}: `on={self.on!r}` is a function and cannot be saved.")
            config["on"] = self.on.expression()
        return {k: keras.saving.serialize_keras_object(v) for k, v in config.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Makes the rule that `get_config` described."""
        return cls(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})

    def describe(self) -> str:
        """The rule in one line for people: its name, what it does with which number, and to what."""
        arguments = {k: v for k, v in self._arguments.items() if k not in ("on", "name", "seed")}
        shown = [f"{k} {v if isinstance(v, str) else formatted(v)}" for k, v in arguments.items()]
        head = f"{self.name} ({', '.join(shown)})" if shown else self.name
        count = f" ({len(self.variables)} of {len(self.all_variables)} weights)" if self.variables else ""
        return f"{head} on {self.on!r}{count}"

    def __repr__(self):
        shown = {k: v for k, v in self._arguments.items() if k != "on"}
        arguments = [f"{k}={formatted(v)}" for k, v in shown.items()]
        if "on" in self._arguments:
            arguments.append(f"on={self.on!r}")
        return f"{type(self).__name__}({', '.join(arguments)})"


def _made(rule: type[Configured], arguments: Mapping[str, Any]) -> Configured:
    return rule(**arguments)


def snake_case(name: str) -> str:
    """Turns a class name into the name that agent files and metrics use."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
