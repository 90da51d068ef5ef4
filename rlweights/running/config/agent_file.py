"""Agent files: TOML in, validated configuration out; every error names the file, the key and a way out."""

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args

import tomlkit
from pydantic import BaseModel, ValidationError

from rlweights.errors import ConfigError
from rlweights.learning.algorithms import PPO
from rlweights.running.config import extras, objects
from rlweights.running.config.messages import Source, explained, keys_of, nearest, refusal, table_of
from rlweights.running.config.schema import UNSET, Agent, EnvironmentSection

AGENT = "agent.toml"
"""The agent file of a run folder."""

PACKAGE = Path(__file__).parents[2]

AGENTS = PACKAGE / "_agents"
if not AGENTS.is_dir():  # a checkout, where the agents lie beside the package
    AGENTS = PACKAGE.parent / "agents"

DEEPEST = 16
"""Tables within tables that an agent file may have: enough for anything, and no recursion runs away."""


def shipped() -> dict[str, Path]:
    """Returns the agents that come with the package, by name."""
    return {path.stem: path for path in sorted(AGENTS.glob("*.toml"))}


def find(name: str) -> Path:
    """Returns the path of an agent: a file, a run folder, or the name of a shipped agent.

    Raises:
        ConfigError: If there is no such agent; the message names the nearest.
    """
    path = Path(name)
    try:
        if path.is_dir() and (path / AGENT).is_file():
            return path / AGENT
        if path.suffix == ".toml":
            if path.is_file():
                return path
            raise ConfigError(f"{name}: no such file")
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from None
    if name in shipped():
        return shipped()[name]
    hint = f" An environment is trained with --env {name}." if re.search(r"-v\d+$", name) else ""
    raise ConfigError(
        f"{name!r} is no agent.{hint or nearest(name, shipped())} Agents: {', '.join(shipped())}"
    )


def load(path: Path, overrides: Sequence[str] = ()) -> Agent:
    """Reads and validates an agent file.

    Args:
        path: The TOML file.
        overrides: "key.subkey=value" each, the value in TOML (or a bare word).

    Raises:
        ConfigError: If the file cannot be read or is not valid; one line that names the file, the key, the
            value, and what is valid.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    except (RecursionError, ValueError):  # Python's limits of nesting and of digits
        raise ConfigError(
            f"{path}: not valid TOML: nested too deep, or a number of too many digits"
        ) from None
    return parse(as_trained(data), str(path), overrides)


_WRITTEN_BY_RUNS = {"budget", "checkpoint", "evaluation", "guard", "logging", "network", "optimizer", "seed"}
"""Keys that only a run writes all of; it spells out every setting."""


_BEFORE = {"rescale_actions": False, "encoding": 1, "action_mask": "none"}
"""What settings of the environment were, before there were any."""


def as_trained(data: dict[str, Any]) -> dict[str, Any]:
    """The contents of a file; what a run of an earlier version wrote keeps the meaning that it had.

    Such a file has every setting of its time, and those that came later are missing: their defaults are for
    new agents, and the weights beside it know nothing of them.
    """
    environment = data.get("environment")
    if not (isinstance(environment, dict) and data.keys() >= _WRITTEN_BY_RUNS):
        return data
    return data | {"environment": _BEFORE | environment}


class Chosen(NamedTuple):
    """A configuration for an environment, and how it was chosen.

    Attributes:
        agent: The configuration.
        settings: Whose settings these are, in words.
        general: Whether they are general defaults, which depend on the kind of the actions.
        own_steps: The budget that the shipped agent has; 0: they are not one's.
    """

    agent: Agent
    settings: str
    general: bool = False
    own_steps: int = 0


CONTINUOUS: dict[str, dict[str, Any]] = {
    "environment": {"normalize_observations": True, "normalize_rewards": True},
    "algorithm": {
        "n_steps": 256,
        "batch_size": 128,
        "n_epochs": 10,
        "learning_rate": {"from": 3e-4, "to": 0.0},
    },
}
"""General defaults for continuous actions, where PPO is not told otherwise: those of the agent `hopper`."""


def for_environment(env: str, overrides: Sequence[str] = (), continuous: bool = False) -> Chosen:
    """Returns a configuration for an environment: that of the shipped agent for it, or general defaults.

    Other environments of a family (Atari games, MiniGrid) take the settings of the family's shipped agent,
    without its claim. Of the agents that fit, one with the chosen backend comes first, "gymnasium" if none
    is chosen. If none has the chosen algorithm, the environment takes the settings of the first of them, and
    the algorithm its defaults.

    Args:
        env: The Gymnasium id.
        overrides: As for `load`.
        continuous: Whether its actions are continuous, for general defaults.

    Raises:
        ConfigError: See `load`.
    """
    chosen = {key.strip(): value.strip(" \"'") for key, _, value in (o.partition("=") for o in overrides)}
    agents = [(path, load(path)) for path in shipped().values()]
    name = env.rpartition(":")[2]
    alike = [each for each in agents if each[1].environment.id == name]
    package = extras.bringing(name)
    if not alike and package is not None:
        alike = [each for each in agents if extras.bringing(each[1].environment.id) is package]
    backend = chosen.get("environment.backend", "gymnasium")
    alike.sort(key=lambda each: each[1].environment.backend != backend)
    source = f"--env {env}"
    for path, agent in alike:
        settings, own = f"those of the shipped agent {path.stem}", agent.budget.total_timesteps
        if chosen.get("algorithm.name", agent.algorithm.name) == agent.algorithm.name:
            if agent.environment.id == env:
                return Chosen(load(path, overrides), settings, own_steps=own)
            found = load(path, [f"environment.id={_quoted(env)}", *overrides])
            if agent.environment.id == name:
                return Chosen(found, settings, own_steps=own)
            return Chosen(
                found.model_copy(update={"expect": None, "description": ""}), f"{settings}, a relative"
            )
    if alike:
        path, agent = alike[0]
        data: dict[str, Any] = {
            "environment": agent.environment.model_dump(exclude_defaults=True) | {"id": env}
        }
        settings = f"the environment of {path.stem}, and general defaults"
        return Chosen(parse(data, source, overrides), settings)
    data = {"environment": {"id": env}}
    settings = "general defaults: there is no shipped agent for it"
    if continuous and chosen.get("algorithm.name", "ppo") == "ppo":
        settings = "general defaults for continuous actions: there is no shipped agent for it"
        data = {
            "environment": data["environment"] | CONTINUOUS["environment"],
            "algorithm": CONTINUOUS["algorithm"],
        }
    return Chosen(parse(data, source, overrides), settings, general=True)


def run_name(env: str) -> str:
    """Returns the name of the folder for runs in an environment: any system takes it."""
    name = objects.name_of(env) if objects.is_reference(env) else env.rpartition(":")[2]
    return re.sub(r"[^\w.+-]+", "_", name) or "environment"


def _quoted(text: str) -> str:
    """A string as TOML writes it."""
    return tomlkit.string(text).as_string()


def parse(data: Mapping[str, Any], source: str, overrides: Sequence[str] = ()) -> Agent:
    """Validates the contents of an agent file (arguments and errors as `load`)."""
    copied = _valid({"interventions": [], **data}, source)
    source = Source(source, override(copied, overrides))
    copied = _valid(copied, source)
    if isinstance(copied.get("algorithm"), dict):
        copied["algorithm"].setdefault("name", "ppo")
    _unset(Agent, copied)
    _fit_minibatch(copied)
    try:
        return Agent.model_validate(copied)
    except ValidationError as error:
        raise explained(error, copied, source, Agent) from None


def _fit_minibatch(data: dict[str, Any]) -> None:
    """Takes the whole rollout as one minibatch, where none is given and it is less than PPO's own of 256.

    Simulators that allow one environment have rollouts as short as that.
    """
    algorithm, environment = data.get("algorithm", {}), data.get("environment", {})
    if not isinstance(algorithm, dict) or not isinstance(environment, dict) or "batch_size" in algorithm:
        return
    steps = algorithm.get("n_steps", PPO().n_steps)
    count = environment.get("num_envs", EnvironmentSection.model_fields["num_envs"].default)
    if algorithm.get("name", "ppo") == "ppo" and type(steps) is int and type(count) is int:
        rollout, usual = steps * count, PPO().batch_size
        if usual is not None and 0 < rollout < usual:
            data["algorithm"] = {"name": "ppo", **algorithm, "batch_size": rollout}


def _valid(value: Any, source: str, *path: str) -> Any:
    """Returns a copy; refuses values that no file can hold, or that differ when they are read again."""
    if len(path) > DEEPEST:
        raise ConfigError(f"{source}: {path[0]}: nested more than {DEEPEST} deep")
    if isinstance(value, Mapping):
        return {_valid(k, source, *path, k): _valid(v, source, *path, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_valid(each, source, *path, str(index)) for index, each in enumerate(value)]
    why = ""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        why = "is more than 64 bits"
    elif isinstance(value, float) and math.isnan(value):
        why = "is not a number"
    elif isinstance(value, str) and any("\ud800" <= each <= "\udfff" for each in value):
        why = "is not valid Unicode"
    if why:
        raise refusal(source, ".".join(path), value, why)
    return value


def _unset(model: type[BaseModel], data: dict[str, Any]) -> None:
    """Turns "none" into None wherever a setting may be off."""
    for key, annotation in keys_of(model).items():
        value = data.get(key)
        if value == UNSET and NoneType in get_args(annotation):
            data[key] = None
        elif isinstance(value, dict) and (table := table_of(annotation, value)):
            _unset(table, value)


def override(data: dict[str, Any], texts: Sequence[str]) -> dict[str, str]:
    """Sets keys in the contents of an agent file; returns what was typed for each key.

    Args:
        data: The contents; changed in place.
        texts: "key.subkey=value" each, the value in TOML or a bare word. An entry of an array goes by its
            index; a rule also by its name: "interventions.clipping.bound=2".

    Raises:
        ConfigError: If a text is no "key=value", or its key leads nowhere.
    """
    typed = {}
    for text in texts:
        key, equals, value = text.partition("=")
        parts, path = [part.strip() for part in key.split(".")], []
        if not equals or not all(parts):
            raise ConfigError(f"--set {text}: takes key.subkey=value, such as algorithm.gamma=0.98")
        place: Any = data
        for number, part in enumerate(parts[:-1]):
            step: Any = _entry(place, part, text) if isinstance(place, list) else part
            path.append(str(step))
            place = place[step] if isinstance(place, list) else place.setdefault(step, {})
            if not isinstance(place, dict | list):
                raise ConfigError(f"--set {text}: {'.'.join(parts[: number + 1])} is a value and has no keys")
        last: Any = _entry(place, parts[-1], text) if isinstance(place, list) else parts[-1]
        place[last] = _parsed(value)
        typed[".".join([*path, str(last)])] = getattr(text, "typed", f"--set {text}")
    return typed


def source_of(agent: Agent, text: str, overrides: Sequence[str], settings: str = "", own: int = 0) -> Source:
    """Returns where an agent came from, for errors and headers.

    Args:
        agent: The configuration.
        text: The file or option.
        overrides: As for `load`.
        settings: Whose settings they are, in words.
        own: The budget in environment steps that these settings have; 0: the same.
    """
    typed = override(agent.model_dump(by_alias=True), overrides)
    return Source(text, typed, settings, own if own and own != agent.budget.total_timesteps else None)


def key_values(option: str, texts: Sequence[str]) -> dict[str, Any]:
    """Returns "key=value" texts as a mapping, the values in TOML or bare words.

    Raises:
        ConfigError: If one is no such text; names the option that it was given to.
    """
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{option} {text}: takes KEY=VALUE, such as difficulty=2")
        found[key.strip()] = _parsed(value)
    return found


def _parsed(value: str) -> Any:
    """A value in TOML; any other text is a bare word."""
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
