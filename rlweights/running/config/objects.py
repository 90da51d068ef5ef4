"""Python objects that no agent file can hold: kept in this process, and called by a reference in the file."""

import inspect
import re
import sys
import uuid
from collections.abc import Mapping
from typing import Any

_REFERENCE = re.compile(r"python:(?P<name>[^#]+)#[0-9a-f]{8}")

_objects: dict[str, Any] = {}


def reference(value: Any) -> str:
    """Keeps an object and returns its reference, the same one each time: "python:DataFrame#1f3a9c20"."""
    for known, kept in _objects.items():
        if kept is value:
            return known
    name = getattr(value, "__name__", None) or type(value).__name__
    made = f"python:{re.sub('#', '', str(name))}#{uuid.uuid4().hex[:8]}"
    _objects[made] = value
    return made


def environment_reference(env: Any) -> str:
    """Returns `module:Class` for a class or function that another process can import, else a `reference`."""
    module, name = getattr(env, "__module__", None), getattr(env, "__qualname__", None)
    if isinstance(module, str) and isinstance(name, str) and "." not in name and module != "__main__":
        home = sys.modules.get(module)
        if getattr(home, name, None) is env and not module.startswith("rlweights_user_"):
            return f"{module}:{name}"
    return reference(env)


def is_reference(value: Any) -> bool:
    """Whether a value of an agent file stands for an object."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def name_of(text: str) -> str:
    """Returns the name in a reference."""
    found = _REFERENCE.fullmatch(text)
    assert found is not None
    return found["name"]


def find(text: str) -> Any:
    """Returns the object of a reference.

    Raises:
        LookupError: If it was given to another process; the message says what to do.
    """
    if text not in _objects:
        raise LookupError(
            f"{name_of(text)} was given from Python, and only that process has it; "
            f"give it again: TrainedAgent(run, env=..., env_kwargs=...)"
        )
    return _objects[text]


def encoded(value: Any) -> Any:
    """Returns a value as an agent file can hold it: tuples as tables, and objects as references."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: encoded(each) for key, each in value.items()}
    if type(value) is list:
        return [encoded(each) for each in value]
    if type(value) is tuple:
        return {"tuple": [encoded(each) for each in value]}
    return reference(value)


def decoded(value: Any) -> Any:
    """Returns what `encoded` was given.

    Raises:
        LookupError: See `find`.
    """
    if isinstance(value, Mapping):
        if value.keys() == {"tuple"} and isinstance(value["tuple"], list):
            return tuple(decoded(each) for each in value["tuple"])
        return {key: decoded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [decoded(each) for each in value]
    return find(value) if is_reference(value) else value


def references(value: Any, key: str = "") -> dict[str, str]:
    """Returns the references within a value, by their keys."""
    if isinstance(value, Mapping):
        parts = [(f"{key}.{name}" if key else str(name), each) for name, each in value.items()]
    elif isinstance(value, list):
        parts = [(f"{key}.{i}", each) for i, each in enumerate(value)]
    else:
        return {key: value} if is_reference(value) else {}
    return {k: v for name, each in parts for k, v in references(each, name).items()}


def is_instance(env: Any) -> bool:
    """Whether an environment is neither named nor made, but there already."""
    return not isinstance(env, str | type) and not inspect.isroutine(env) and hasattr(env, "step")
