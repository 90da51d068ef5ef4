"""Agent files: TOML in, validated configuration out; every error names the file, the key and a way out."""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomlkit
from pydantic import BaseModel, ConfigDict, Discriminator, Field, ValidationError
from pydantic.types import FiniteFloat

from rlweights.algorithms import A2C, PPO, Reinforce
from rlweights.algorithms.base import Count

AGENTS = Path(__file__).parent / "_agents"
if not AGENTS.is_dir():  # a checkout, where the agents lie beside the package
    AGENTS = Path(__file__).parent.parent / "agents"


class ConfigError(ValueError):
    """A configuration that cannot be used, explained in one line."""


class Section(BaseModel):
    """A table of an agent file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Environment(Section):
    """What the agent acts in."""

    id: str = Field(description="Gymnasium id, or file.py:Class for a TensorFlow environment of one's own.")
    backend: Literal["gymnasium", "envpool", "tensorflow"] = "gymnasium"
    num_envs: Count = Field(default=8, description="Environments that are stepped side by side.")
    vectorization_mode: Literal["sync", "async", "vector_entry_point"] = "sync"
    kwargs: dict[str, Any] = Field(default={}, description="Arguments of the environment itself.")
    wrappers: list[str] = Field(default=[], description="Gymnasium wrappers, by name, innermost first.")
    normalize_observations: bool = Field(
        default=False, description="Normalise by running statistics, in the graph."
    )
    normalize_rewards: bool = Field(
        default=False, description="Scale by the running deviation of the return."
    )


class Network(Section):
    """The policy and value networks."""

    hidden_sizes: list[Count] = [64, 64]
    value_hidden_sizes: list[Count] | None = Field(
        default=None, description="Those of the value network, if others."
    )
    activation: str = "tanh"
    layer_norm: bool = False
    shared: bool = Field(default=False, description="Whether both networks share one trunk.")
    log_std_init: FiniteFloat = Field(
        default=0.0, description="Initial log standard deviation of continuous actions."
    )
    policy_gain: FiniteFloat = Field(default=0.01, description="Gain of the policy's last layer.")


class Optimizer(BaseModel):
    """The inner Keras optimizer: its name, and any argument of its own."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str | None = Field(
        default=None, description="Lower-case name of a Keras optimizer; unset: the algorithm's."
    )


class Rule(BaseModel):
    """One intervention: its name (or file.py:Class), and its arguments."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    rule: str


class Budget(Section):
    """How long to train."""

    total_timesteps: Count = Field(default=100_000, description="Environment steps, over all environments.")


class Evaluation(Section):
    """How the agent is judged: greedy episodes on clean weights in the real environment."""

    every: Annotated[int, Field(ge=0)] = Field(
        default=20_000, description="Steps between two; 0: only at the end."
    )
    episodes: Count = Field(default=10, description="Episodes of each evaluation while training.")
    final_episodes: Count = Field(default=100, description="Episodes of the last evaluation.")
    deterministic: bool = Field(default=True, description="Whether to take the most likely action.")


class Checkpoint(Section):
    """When the whole state is saved."""

    every: Annotated[int, Field(ge=0)] = Field(
        default=20_000, description="Steps between two; 0: only at the end."
    )
    keep: Count = Field(default=3, description="Number of newest checkpoints to keep.")


class Logging(Section):
    """What is recorded, and how often."""

    every: Count = Field(
        default=2_048, description="Steps between two rows of scalars; at least one iteration."
    )
    diagnostics_every: Annotated[int, Field(ge=0)] = Field(
        default=10, description="Rows between two measurements of weights and plasticity; 0: never."
    )
    histograms_every: Annotated[int, Field(ge=0)] = Field(
        default=20, description="Rows between two histograms of the weights; 0: never."
    )


class Guard(Section):
    """What happens to updates that are not finite."""

    on_nonfinite: Literal["skip", "stop", "rollback"] = Field(
        default="skip", description="Skip the step; stop at the first; or go back to the last checkpoint."
    )
    patience: Count = Field(default=20, description="Skipped steps in a row after which the run stops.")


class Expect(Section):
    """The agent's claim."""

    mean_reward: FiniteFloat = Field(description="Mean return of the final evaluation.")
    seeds: list[int] = Field(default=[0, 1, 2, 3, 4], description="Seeds for which it was measured.")


class Agent(Section):
    """One agent file."""

    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    environment: Environment
    algorithm: Annotated[PPO | A2C | Reinforce, Discriminator("name")] = PPO()
    optimizer: Optimizer = Optimizer()
    network: Network = Network()
    interventions: list[Rule] = []
    budget: Budget = Budget()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    logging: Logging = Logging()
    guard: Guard = Guard()
    expect: Expect | None = None

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one rollout."""
        return self.algorithm.n_steps * self.environment.num_envs

    @property
    def total_iterations(self) -> int:
        """Rollouts that fit into the budget, at least one."""
        return max(1, self.budget.total_timesteps // self.steps_per_iteration)

    def to_toml(self) -> str:
        """Returns the file that repeats this configuration, defaults included."""
        return tomlkit.dumps(self.model_dump(by_alias=True, exclude_none=True, mode="json"))


def shipped() -> dict[str, Path]:
    """Returns the agents that come with the package, by name."""
    return {path.stem: path for path in sorted(AGENTS.glob("*.toml"))}


def find(name: str) -> Path:
    """Returns the path of an agent: a file, a run folder, or the name of a shipped agent.

    Raises:
        ConfigError: If there is none; the message names the nearest.
    """
    path = Path(name)
    if path.is_dir() and (path / "agent.toml").is_file():
        return path / "agent.toml"
    if path.suffix == ".toml":
        if path.is_file():
            return path
        raise ConfigError(f"{name}: no such file")
    if name in shipped():
        return shipped()[name]
    raise ConfigError(f"{name!r} is no agent.{_nearest(name, shipped())} Agents: {', '.join(shipped())}")


def load(path: Path, overrides: Sequence[str] = ()) -> Agent:
    """Reads and validates an agent file.

    Args:
        path: The TOML file.
        overrides: "key.subkey=value" each, the value in TOML (or a bare word).

    Raises:
        ConfigError: One line that names file, key, what came, and what is valid.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return parse(data, str(path), overrides)


def for_environment(env: str, overrides: Sequence[str] = ()) -> Agent:
    """Returns a configuration for an environment: the shipped agent's for it, or general defaults.

    Raises:
        ConfigError: As `load`.
    """
    for path in shipped().values():
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        if data["environment"]["id"] == env and data["environment"].get("backend") != "tensorflow":
            return parse(data, str(path), overrides)
    return parse({"environment": {"id": env}}, f"--env {env}", overrides)


def parse(data: Mapping[str, Any], source: str, overrides: Sequence[str] = ()) -> Agent:
    """Validates the contents of an agent file (arguments and errors as `load`)."""
    copied: dict[str, Any] = _copied(data)
    for override in overrides:
        _override(copied, override)
    algorithm = copied.get("algorithm")
    if isinstance(algorithm, dict):
        algorithm.setdefault("name", "ppo")
    try:
        agent = Agent.model_validate(copied)
    except ValidationError as error:
        raise ConfigError(_explained(error, source)) from None
    _check_batches(agent, source)
    return agent


def _check_batches(agent: Agent, source: str) -> None:
    size = agent.algorithm.batch_size
    if size is not None and agent.steps_per_iteration % size:
        rollout = agent.steps_per_iteration
        divisors = [d for d in range(1, rollout + 1) if rollout % d == 0]
        nearest = min(divisors, key=lambda d: abs(d - size))
        raise ConfigError(
            f"{source}: algorithm.batch_size = {size} does not divide the rollout of n_steps * num_envs = "
            f"{agent.algorithm.n_steps} * {agent.environment.num_envs} = {rollout} steps; "
            f"the nearest that does is {nearest}"
        )


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, list) else value


def _override(data: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {text}: takes key.subkey=value, such as algorithm.gamma=0.98")
    try:
        parsed = tomllib.loads(f"value = {value.strip()}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        parsed = value.strip()
    table: Any = data
    for part in parts[:-1]:
        if isinstance(table, list):
            table = _entry(table, part, text)
            continue
        table = table.setdefault(part, {})
        if not isinstance(table, dict | list):
            raise ConfigError(f"--set {text}: {part!r} is a value and has no keys")
    if isinstance(table, list):
        raise ConfigError(f"--set {text}: name one of the entries and a key, such as {parts[0]}.0.KEY=VALUE")
    table[parts[-1]] = parsed


def _entry(table: list[Any], part: str, text: str) -> Any:
    """An entry of an array of tables: by index, or by the rule's name."""
    for index, entry in enumerate(table):
        if part == str(index) or (isinstance(entry, dict) and part in (entry.get("rule"), entry.get("name"))):
            return entry
    raise ConfigError(f"--set {text}: there is no entry {part!r}; there are {len(table)}")


def _explained(error: ValidationError, source: str) -> str:
    """One line about the first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    where = [str(p) for p in first["loc"]]
    if len(where) > 1 and where[0] == "algorithm" and where[1] in ("ppo", "a2c", "reinforce"):
        where.pop(1)  # pydantic names the chosen algorithm in the location
    where = [p for p in where if p not in ("float", "Linear", "int", "none", "constrained-float")]
    key, came = ".".join(where), first["input"]
    if first["type"] == "extra_forbidden":
        known = _fields(first["loc"][:-1])
        return f"{source}: {key} is no known key.{_nearest(where[-1], known)} Valid: {', '.join(known)}"
    if first["type"] == "missing":
        return f"{source}: {key} is missing"
    if first["type"].startswith("union_tag"):
        name = came.get("name") if isinstance(came, dict) else came
        return f"{source}: algorithm.name = {name!r}.{_nearest(str(name), _NAMES)} Valid: {', '.join(_NAMES)}"
    hint = ""
    if first["type"] == "literal_error":
        options = [o.strip(" '") for o in first.get("ctx", {})["expected"].replace(" or ", ",").split(",")]
        hint = _nearest(str(came), options)
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{source}: {key} = {_shortened(came)}: {message}.{hint}"


_NAMES = ("ppo", "a2c", "reinforce")


def _fields(location: Sequence[Any]) -> list[str]:
    """The keys that a table knows."""
    model: Any = Agent
    for part in location:
        if part in _NAMES:
            model = {"ppo": PPO, "a2c": A2C, "reinforce": Reinforce}[part]
        elif isinstance(part, str) and isinstance(model, type) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            options = [annotation, *get_args(annotation)]
            model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), model)
        elif part == "Linear":
            return ["from", "to"]
    return list(model.model_fields)


def _nearest(name: str, options: Any) -> str:
    near = difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
