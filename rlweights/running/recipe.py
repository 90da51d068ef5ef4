"""An agent before training: finds it, changes it, and trains it from Python as from the command line."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tomlkit

from rlweights.errors import ConfigError
from rlweights.running.config import agent_file, objects
from rlweights.running.config.messages import Setting
from rlweights.running.config.schema import UNSET, Agent
from rlweights.running.notebooks import table

if TYPE_CHECKING:
    from rlweights.running.callbacks import Callback
    from rlweights.running.outcome import Outcome
    from rlweights.running.records.console import Follow
    from rlweights.running.trained import TrainedAgent

_ALONE = ("environment.num_envs=1", "evaluation.num_envs=1", "evaluation.every=0")
"""An instance is one environment: it is evaluated when it trains no more."""

Changes = Mapping[str, Any] | Sequence[str]
"""Changes of an agent file: {"algorithm.gamma": 0.98}, or as after --set ["algorithm.gamma=0.98"]."""


class Recipe:
    """An agent that can be trained: its configuration, and where it came from.

    Args:
        agent: Name of a shipped agent, an agent file or a run folder; None: "cartpole", or `env`.
        changes: Settings that differ, by their keys; see `Changes`. A rule goes by its name:
            "interventions.clipping.bound". None switches off a setting that may be off.
        env: An environment instead of an agent: a Gymnasium id, `module:Class`, `file.py:Class`; or a class,
            a function that makes one, or an instance, which is one environment. A shipped agent's settings
            for it are taken, or general defaults.
        env_kwargs: Arguments of the environment, any Python objects: the run keeps their names only.
        start: A run folder, or a pretrained agent, whose weights and normalization training begins with,
            instead of fresh ones; the shapes must fit. These are the weights of its best evaluation. The new
            run keeps a copy, and needs the other one no more. Left out: as the run did, if `agent` is one.
        start_optimizer: Whether to take the optimizer's state as well; both are then those of the newest
            checkpoint.

    Attributes:
        agent: The validated configuration, `rlweights.running.config.schema.Agent`.
        source: The file or option that it came from, for errors.
        folder: Folder of the files that the agent names.
        name: Names the folder of its runs.

    Raises:
        ConfigError: If there is no such agent, or it is not valid with these changes; one line that names
            the file, the key, the value, and what is valid.

    Examples:
        >>> recipe = Recipe("cartpole", {"algorithm.gamma": 0.99})
        >>> recipe.changed({"seed": 3}).agent.seed
        3
    """

    agent: Agent

    def __init__(
        self,
        agent: str | Path | None = None,
        changes: Changes = (),
        *,
        env: Any = None,
        env_kwargs: Mapping[str, Any] | None = None,
        start: str | Path | None = None,
        start_optimizer: bool = False,
    ):
        if start_optimizer and start is None:
            raise ConfigError("start_optimizer: takes the optimizer of a run, and `start` names none")
        self._given: dict[str, Any] = {"env": env, "start": start, "start_optimizer": start_optimizer}
        self._agent = agent
        self._repeated: Path | None = None
        given = {f"environment.kwargs.{key}": value for key, value in (env_kwargs or {}).items()}
        self.overrides = (*_overrides(changes), *_overrides(given))
        if env is not None:
            text = env if isinstance(env, str) else objects.environment_reference(env)
            if agent is not None:
                raise ConfigError(
                    f"--env {text}: goes without an agent, and {agent} is one; in another environment it is "
                    f"trained by --set environment.id={text}"
                )
            if objects.is_instance(env):
                self.overrides = (*_ALONE, *self.overrides)
            chosen = agent_file.for_environment(text, self.overrides)
            if chosen.general and _is_continuous(chosen.agent, f"--env {text}"):
                chosen = agent_file.for_environment(text, self.overrides, continuous=True)
            self.agent, self.folder = chosen.agent, Path()
            self.source = agent_file.source_of(
                self.agent, f"--env {text}", self.overrides, chosen.settings, chosen.own_steps
            )
            self.name = agent_file.run_name(text)
            return
        path = agent_file.find(str("cartpole" if agent is None else agent))
        self.agent = agent_file.load(path, self.overrides)
        own = 0
        # A file that is one only with these changes has no budget of its own.
        with contextlib.suppress(ConfigError):
            own = agent_file.load(path).budget.total_timesteps
        self.source = agent_file.source_of(self.agent, str(path), self.overrides, own=own)
        self.folder = path.parent
        if path.name == agent_file.AGENT:
            self._repeated = path.parent
        self.name = agent_file.run_name(
            path.parent.resolve().parent.name if path.name == agent_file.AGENT else path.stem
        )

    def changed(self, changes: Changes) -> "Recipe":
        """Returns a recipe with further changes; arguments and errors are those of the class."""
        return Recipe(self._agent, [*self.overrides, *_overrides(changes)], **self._given)

    def begin(
        self,
        runs: Path,
        *,
        folder: Path | None = None,
        resume: bool = False,
        quiet: bool = False,
        watch: bool = False,
        callbacks: "Sequence[Callback]" = (),
        follow: "Follow | None" = None,
    ) -> "Outcome":
        """Trains, and returns how it ended; `follow` is told how far it is (for the rest see `train`)."""
        from rlweights.running import session
        from rlweights.running.warm_start import WarmStart

        start = None
        if self._given["start"] is not None:
            start = WarmStart.of(Path(self._given["start"]), self._given["start_optimizer"])
        elif self._repeated is not None:
            start = WarmStart.recorded(self._repeated)
        origin = (self.agent, self.source, self.folder)
        options: Any = {"quiet": quiet, "watch": watch, "callbacks": callbacks, "start": start}
        options["follow"] = follow
        if folder is None:
            if resume:
                raise ConfigError("resume = True: needs the folder of the run, `folder`")
            return session.begin(*origin, runs, self.name, **options)
        if not resume and folder.exists():
            raise ConfigError(f"{folder}: exists already; `resume` goes on with a run, or begins it")
        return session.begin_or_resume(*origin, folder, **options)

    def train(
        self,
        runs: str | Path = "runs",
        *,
        folder: str | Path | None = None,
        resume: bool = False,
        quiet: bool = False,
        watch: bool = False,
        callbacks: "Sequence[Callback]" = (),
    ) -> "TrainedAgent":
        """Trains into a run folder and returns the `TrainedAgent` of it.

        The run equals the one that `python -m rlweights.train` makes of the same settings, bit for bit.
        Ctrl-C stops it in good order; the agent returned is then the one of that moment.

        Args:
            runs: Folder of all runs; the run is `runs/<name>/<seed>-<time>`.
            folder: The run folder itself, instead; there must be none yet, unless `resume` is true.
            resume: Whether to go on with the run in `folder` from its newest checkpoint; where there is no
                run yet, it is begun. A finished run is left as it is. So one and the same call begins a run
                and goes on with it, however often the process was killed in between.
            quiet: Whether to show no progress.
            watch: Whether to start TensorBoard beside the training, and show its address.
            callbacks: Instances of `rlweights.Callback`: code of your own beside the run.

        Raises:
            ConfigError: If the agent cannot be built, or the folder cannot be written or trains something
                else.
            TrainingStopped: If updates were not finite for too long.
            CallbackError: If a callback failed.
            BrokenEnvironment: If the environment failed.
            CheckpointError: If a checkpoint could not be written or read.
            RecordsError: If the records could not be written.
            RunLockedError: If another process trains into the folder.
        """
        from rlweights.running.trained import TrainedAgent

        chosen, options = None if folder is None else Path(folder), {"quiet": quiet, "watch": watch}
        outcome = self.begin(Path(runs), folder=chosen, resume=resume, callbacks=callbacks, **options)
        return TrainedAgent(outcome.folder)

    @staticmethod
    def resume(
        run: str | Path,
        changes: Changes = (),
        *,
        quiet: bool = False,
        watch: bool = False,
        callbacks: "Sequence[Callback]" = (),
    ) -> "TrainedAgent":
        """Goes on with a run from its newest checkpoint, as `train --resume` does, and returns its agent.

        Args:
            run: The run folder.
            changes: Settings that differ, by their keys; only those that do not change what is trained.
            quiet: Whether to show no progress.
            watch: Whether to start TensorBoard beside the training, and show its address.
            callbacks: Those that the run was begun with, in their order; further ones may follow.

        Raises:
            ConfigError: If the folder is no run, what it trains would change, or a callback is missing; the
                other errors are those of `train`.
        """
        from rlweights.running import session
        from rlweights.running.trained import TrainedAgent

        session.resume(Path(run), _overrides(changes), quiet=quiet, watch=watch, callbacks=callbacks)
        return TrainedAgent(run)

    def __repr__(self) -> str:
        changes = f", {list(self.overrides)}" if self.overrides else ""
        env = self._given["env"]
        origin = repr(str(self._agent or "cartpole")) if env is None else f"env={env!r}"
        return f"Recipe({origin}{changes})"

    def _repr_html_(self) -> str:
        agent = self.agent
        rules = [
            ", ".join(f"{k} {v}" for k, v in rule.model_dump(exclude_none=True).items())
            for rule in agent.interventions
        ]
        facts = {
            "environment": f"{agent.environment.id} ({agent.environment.backend})",
            "algorithm": agent.algorithm.name,
            "rules": "; ".join(rules) or "none",
            "budget": f"{agent.budget.total_timesteps:,} steps",
            "seed": agent.seed,
            "changes": ", ".join(self.overrides) or "none",
        }
        return table(f"Recipe {self.name}", facts)


def _is_continuous(agent: Agent, source: str) -> bool:
    """Whether the actions of an environment are continuous; an environment is made to see it."""
    import gymnasium as gym

    from rlweights.running.building.environments import EnvironmentFactory
    from rlweights.running.building.user_code import UserCode

    _, actions = EnvironmentFactory(agent, UserCode(source, Path(), agent.environment.folder)).spaces()
    return isinstance(actions, gym.spaces.Box) and np.issubdtype(actions.dtype, np.floating)


def _overrides(changes: Changes) -> tuple[str, ...]:
    """Changes as they are written after --set."""
    if isinstance(changes, str):
        raise ConfigError(f"changes = {changes!r}: takes a mapping, or a list of key=value")
    if not isinstance(changes, Mapping):
        return tuple(changes)
    # They are given in Python: there is no option to name in errors, and the key stands for it.
    pairs = ((key, _toml(key, _kept(key, value))) for key, value in changes.items())
    return tuple(Setting(f"{key}={value}", f"changes: {key} = {value}") for key, value in pairs)


def _kept(key: str, value: Any) -> Any:
    """A change as an agent file can hold it: arguments of environments may be tuples and any objects."""
    if re.match(r"(environment|evaluation)\.kwargs\b|environment\.wrappers\b", key):
        return objects.encoded(value)
    if key in ("environment", "evaluation") and isinstance(value, Mapping):
        return {name: _kept(f"{key}.{name}", each) for name, each in value.items()}
    return value


def _toml(key: str, value: Any) -> str:
    try:
        return _item(value).as_string()
    except ValueError:  # what tomlkit raises for a value that no file can hold
        raise ConfigError(f"{key} = {value!r}: an agent file cannot hold a {type(value).__name__}") from None


def _item(value: Any) -> Any:
    """A value as an agent file has it after a key: tables and arrays of them on one line."""
    if isinstance(value, Mapping):
        table = tomlkit.inline_table()
        for key, each in value.items():
            table.append(key, _item(each))
        return table
    if isinstance(value, list | tuple):
        array = tomlkit.array()
        for each in value:
            array.append(_item(each))
        return array
    return tomlkit.item(UNSET if value is None else value)
