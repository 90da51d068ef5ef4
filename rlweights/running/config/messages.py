"""Error messages about configurations: one line with the key, the value, and a way out."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from rlweights.errors import ConfigError


class Setting(str):
    """A setting, "key=value", and what the user typed for it: "-n 5", "--set algorithm.gamma=2"."""

    typed: str

    def __new__(cls, text: str, typed: str):
        """Makes it of both texts."""
        self = super().__new__(cls, text)
        self.typed = typed
        return self


class Source(str):
    """Where a configuration came from, for errors: a file or an option, and what was typed beside it.

    Attributes:
        typed: What the user typed for a key, by the key.
        settings: Whose settings they are, in words; "" where the text says it.
        own_steps: The budget of these settings, where another one was asked for; None: the same.
    """

    typed: Mapping[str, str]
    settings: str
    own_steps: int | None

    def __new__(cls, text: str, typed: Mapping[str, str], settings: str = "", own_steps: int | None = None):
        """Makes it of the file or option, and of what is known of it."""
        self = super().__new__(cls, text)
        self.typed, self.settings, self.own_steps = dict(typed), settings, own_steps
        return self


class UnfitSetting(ValueError):
    """A setting that does not fit the others.

    Attributes:
        key: Its key.
        value: Its value.
        why: What is wrong with it.
    """

    def __init__(self, key: str, value: Any, why: str):
        super().__init__(f"{key} = {formatted(value)}: {why}")
        self.key, self.value, self.why = key, value, why


def refusal(source: str, key: str, value: Any, why: str, *, hint: str = "") -> ConfigError:
    """Makes the error `<source>: <key> = <value>: <why>. <hint>`; what was typed stands for all of it."""
    typed = source.typed if isinstance(source, Source) else {}
    setting = f"{key} = {formatted(value)}"
    tables = [key[:place] for place, each in enumerate(key) if each == "."]
    around = [typed[table] for table in reversed(tables) if typed.get(table)]
    head = typed.get(key) or f"{around[0] if around else source}: {setting}"
    return ConfigError(f"{head}: {why.rstrip('.')}{'.' + hint if hint else ''}")


def nearest(name: str, options: Iterable[str]) -> str:
    """Returns " Did you mean ...?" with the option that is most like `name`, or "" if none is."""
    lowered = {option.lower(): option for option in options}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f" Did you mean {lowered[near[0]]!r}?" if near and lowered[near[0]] != name else ""


def choices(name: str, options: Iterable[str]) -> str:
    """Returns the hint that names the nearest option and lists all of them."""
    options = list(options)
    return f"{nearest(name, options)} Valid: {', '.join(options)}"


def missing(package: str, extra: str) -> str:
    """Returns the message that a package is not installed, and how an extra of rlweights brings it."""
    return f"{package} is not installed; pip install 'rlweights[{extra}]'"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, without a period; its type if it has no message."""
    text = str(error).strip() or type(error).__name__
    line = re.sub(
        r"\{\{.*?\}\} | \[Op:.*", "", text.split("\n")[0]
    )  # TensorFlow's names of nodes say nothing
    return " ".join(line.split()).rstrip(".")


def formatted(value: Any) -> str:
    """Returns a value as TOML, cut to 60 characters."""
    text = _toml(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key} = {_toml(each)}" for key, each in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, str | int | float) else str(value)


# Pydantic's findings ------------------------------------------------------------------------------

_WORDS = {
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "list_type": "must be an array",
    "model_attributes_type": "must be a table",
    "model_type": "must be a table",
    "string_type": "must be a string",
}

_NAMING = ("rule", "id", "name")
"""Keys that name the kind of a table: a string in place of the table is meant for this key."""


class _Place(NamedTuple):
    """Where a finding is: its keys, the table that holds the last one, and the type that it should have."""

    path: list[str]
    table: type[BaseModel]
    annotation: Any


def explained(
    error: ValidationError, data: Mapping[str, Any], source: str, model: type[BaseModel]
) -> ConfigError:
    """Returns the error about the first thing that is wrong with `data`.

    An unknown key comes before everything else: it may be the typing error of a missing one. Of a value that
    may be of several types, the finding that goes deepest is reported.
    """
    findings = [(_place(each, data, model), each) for each in error.errors(include_url=False)]
    place, first = min(findings, key=lambda each: (each[1]["type"] != "extra_forbidden", -len(each[0].path)))
    key, came, kind = ".".join(place.path), first["input"], first["type"]
    known = list(keys_of(place.table))
    if kind == "value_error":
        found = first.get("ctx", {})["error"]
        if isinstance(found, UnfitSetting):
            return refusal(source, found.key, found.value, found.why)
        return ConfigError(f"{source}: {found}")
    if kind == "missing":
        unknown = difflib.get_close_matches(place.path[-1], set(came) - set(known), n=1)
        return ConfigError(f"{source}: {key} is missing" + (f". Is it {unknown[0]!r}?" if unknown else ""))
    if kind == "extra_forbidden":
        homes = _homes(place.path[-1], model, data)
        hint = f" Did you mean {homes[0]!r}?" if homes else choices(place.path[-1], known)
        return refusal(source, key, came, "there is no such key", hint=hint)
    if kind == "union_tag_invalid":
        names = first.get("ctx", {})["expected_tags"]
        hint = nearest(str(came["name"]), [name.strip(" '") for name in names.split(",")])
        return refusal(source, f"{key}.name", came["name"], f"must be one of {names}", hint=hint)
    why = _WORDS.get(kind) or first["msg"].replace("Input should", "must", 1)
    table, hint = table_of(place.annotation, came), ""
    if kind == "literal_error":
        hint = nearest(
            str(came), first.get("ctx", {})["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        )
    elif kind == "float_type" and table is not None:
        why += f" or a table of {' and '.join(keys_of(table))}"
    elif kind == "string_type" and table is not None:
        why += " or a table"
    elif isinstance(came, str) and table is not None and kind != "list_type":
        naming = [name for name in _NAMING if name in table.model_fields]
        hint = f" Did you mean {key}.{naming[0]} = {came!r}?" if naming else ""
    return refusal(source, key, came, why, hint=hint)


def keys_of(table: type[BaseModel]) -> dict[str, Any]:
    """Returns the keys that a table takes, and the type of each."""
    return {field.alias or name: field.annotation for name, field in table.model_fields.items()}


def _homes(name: str, model: type[BaseModel], data: Any) -> list[str]:
    """The keys, with those of their tables, that end in a name."""
    found = []
    for key, annotation in keys_of(model).items():
        inside = data.get(key) if isinstance(data, Mapping) else None
        table = None if isinstance(inside, list) else table_of(annotation, inside)
        if table is not None and name in keys_of(table):
            found.append(f"{key}.{name}")
    return found


def table_of(annotation: Any, value: Any) -> type[BaseModel] | None:
    """Returns the kind of table that a type allows; of several, the one whose `name` the table gives."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    tables = [table for each in get_args(annotation) if (table := table_of(each, value))]
    name = value.get("name") if isinstance(value, Mapping) else None
    named = [t for t in tables if "name" in t.model_fields and t.model_fields["name"].default == name]
    return next(iter(named or tables), None)


def _place(finding: Mapping[str, Any], data: Any, model: type[BaseModel]) -> _Place:
    """Follows a finding's location, which names the members of unions between the keys."""
    location: Sequence[Any] = finding["loc"]
    path: list[str] = []
    table, annotation = model, model
    for number, part in enumerate(location):
        absent = finding["type"] == "missing" and number == len(location) - 1
        if isinstance(data, Mapping) and (part in data or absent):
            table = table_of(annotation, data) or table
            annotation, data = keys_of(table).get(part), data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            annotation, data = next(iter(get_args(annotation)), None), data[part]
        else:
            continue
        path.append(str(part))
    return _Place(path, table, annotation)
