"""What `--set KEY=VALUE` does to the contents of an agent file."""

import tomllib
from collections.abc import Sequence
from typing import Any

from rlweights.mistakes import ConfigError, nearest


def override(data: dict[str, Any], texts: Sequence[str]) -> None:
    """Sets keys in the contents of an agent file.

    Args:
        data: The contents; changed in place.
        texts: "key.subkey=value" each, the value in TOML or a bare word. An entry of an array goes by its
            index; a rule also by its name: "interventions.clipping.bound=2".

    Raises:
        ConfigError: If there is no place for a key.
    """
    for text in texts:
        key, equals, value = text.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not equals or not all(parts):
            raise ConfigError(f"--set {text}: takes key.subkey=value, such as algorithm.gamma=0.98")
        place: Any = data
        for number, part in enumerate(parts[:-1]):
            place = (
                place[_entry(place, part, text)] if isinstance(place, list) else place.setdefault(part, {})
            )
            if not isinstance(place, dict | list):
                raise ConfigError(f"--set {text}: {'.'.join(parts[: number + 1])} is a value and has no keys")
        place[_entry(place, parts[-1], text) if isinstance(place, list) else parts[-1]] = _parsed(value)


def _parsed(value: str) -> Any:
    """A value in TOML; whatever is none is a bare word."""
    try:
        found = tomllib.loads(f"value = {value.strip()}")
    except (ValueError, RecursionError):
        return value.strip()
    return found["value"] if len(found) == 1 else value.strip()


def _entry(entries: list[Any], part: str, text: str) -> int:
    """The index of an array's entry."""
    if part in map(str, range(len(entries))):
        return int(part)
    tables = [each if isinstance(each, dict) else {} for each in entries]
    for key in ("name", "rule"):
        found = [index for index, table in enumerate(tables) if table.get(key) == part]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(f"--set {text}: {len(found)} entries are called {part!r}; give the index")
    names = [str(table.get("name", table.get("rule", i))) for i, table in enumerate(tables)]
    there = f"There are: {', '.join(names)}" if names else "There are none"
    raise ConfigError(f"--set {text}: there is no entry {part!r}.{nearest(part, names)} {there}")
