"""Where else a run's scalars go: Weights & Biases and MLflow, if the agent file asks for them."""

import importlib
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from rlweights.errors import ConfigError
from rlweights.running.config.messages import first_line, missing, refusal
from rlweights.running.config.schema import Agent
from rlweights.running.records.layout import hyperparameters

PROJECT = "rlweights"
"""The project at Weights & Biases and the experiment in MLflow, unless the environment names another one."""


class Tracker(Protocol):
    """Takes the records of one run, from its beginning or from a checkpoint on."""

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Takes finite scalars by tag, at an environment step."""
        ...

    def close(self) -> None:
        """Ends the session; a resumed run goes on with it."""
        ...


class Wandb:
    """Weights & Biases; its own variables say where to (WANDB_MODE=offline, WANDB_PROJECT, ...).

    Args:
        folder: The run folder.
        settings: The hyper-parameters, by key.
    """

    module = "wandb"

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        import wandb  # pyright: ignore[reportMissingImports]

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=_name(folder).replace("/", "-"),
            name=_name(folder),
            group=_name(folder).partition("/")[0],
            dir=str(folder),
            config=dict(settings),
            resume="allow",
        )
        self._run.define_metric("env_steps")
        self._run.define_metric("*", step_metric="env_steps")

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Takes scalars; they are drawn over `env_steps`."""
        self._run.log({**scalars, "env_steps": step})

    def close(self) -> None:
        """Ends the session."""
        self._run.finish()


class Mlflow:
    """MLflow; MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say where to.

    Args:
        folder: The run folder.
        settings: The hyper-parameters, by key.
    """

    module = "mlflow"

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
        from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]

        self._client, self._metric = MlflowClient(), Metric
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        tag = "rlweights.run"
        known = self._client.search_runs([number], f"tags.`{tag}` = '{_name(folder)}'")
        if known:
            self._run = known[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        made = self._client.create_run(number, run_name=_name(folder), tags={tag: _name(folder)})
        self._run = made.info.run_id
        told = [Param(key, str(value)[:500]) for key, value in settings.items()]
        self._client.log_batch(self._run, params=told)

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Takes scalars."""
        now = int(time.time() * 1_000)
        metrics = [self._metric(tag, value, now, step) for tag, value in scalars.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self) -> None:
        """Ends the session."""
        self._client.set_terminated(self._run)


TRACKERS: dict[str, type[Wandb] | type[Mlflow]] = {"wandb": Wandb, "mlflow": Mlflow}


def check(agent: Agent, source: str) -> None:
    """Makes sure that what an agent file asks for is installed.

    Raises:
        ConfigError: If it is not; the message names the extra.
    """
    for name in agent.logging.trackers:
        try:
            importlib.import_module(TRACKERS[name].module)
        except ImportError:
            raise refusal(source, "logging.trackers", agent.logging.trackers, missing(name, name)) from None


class Trackers:
    """All that an agent file asks for; one that fails later is said once, and told no more: the run goes on.

    Args:
        agent: The configuration. Nothing is imported if it asks for nothing.
        folder: The run folder.
        say: Shows one line.

    Raises:
        ConfigError: If one cannot be begun: it was asked for.
    """

    def __init__(self, agent: Agent, folder: Path, say: Callable[[str], Any]):
        self._say = say
        self._open: dict[str, Tracker] = {}
        settings = hyperparameters(agent.model_dump(by_alias=True))
        for name in agent.logging.trackers:
            try:
                self._open[name] = TRACKERS[name](folder, settings)
            except Exception as error:  # no account, no network, no room: whatever it raises
                self.close()
                raise ConfigError(f"{folder}: logging.trackers: {name}: {first_line(error)}") from error

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Passes on what is finite."""
        finite = {tag: value for tag, value in scalars.items() if math.isfinite(value)}
        for name, each in list(self._open.items()):
            self._tried(name, lambda each=each: each.scalars(step, finite))

    def close(self) -> None:
        """Ends the sessions."""
        for name, each in list(self._open.items()):
            self._tried(name, each.close)

    def _tried(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            del self._open[name]
            self._say(f"{name} is told no more: {first_line(error)}")


def _name(folder: Path) -> str:
    """What a run is called elsewhere: agent, seed and time."""
    return f"{folder.resolve().parent.name}/{folder.resolve().name}"
