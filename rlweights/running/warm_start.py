"""Where a run begins: with the weights of another run instead of fresh ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlweights.errors import CheckpointError, ConfigError
from rlweights.running.building.assembly import Assembly
from rlweights.running.saving import checkpoint_file, run_folder
from rlweights.running.saving.checkpoints import Checkpoints
from rlweights.running.saving.run_state import WEIGHTS
from rlweights.weights.arrays import Array

START = "start.safetensors"
"""Holds what a run began with, in its folder; the other run is needed no more."""

_OPTIMIZER, _SCALING = "optimizer/", "reward_scaling/"


@dataclass(frozen=True)
class WarmStart:
    """Weights and normalization to begin with, and the optimizer's state if it is wanted.

    Attributes:
        tensors: By path; those of the inner optimizer begin with "optimizer/".
        metadata: Where they came from: "run", "which" weights, "env_steps".
    """

    tensors: Mapping[str, Array]
    metadata: Mapping[str, Any]

    @classmethod
    def of(cls, run: Path, optimizer: bool = False) -> "WarmStart":
        """Reads what another run ends with.

        Without the optimizer these are the weights of its best evaluation, as `evaluate` and `play` take
        them (of its end, if there was no evaluation). The optimizer's moments belong to the weights of the
        newest checkpoint, so with the optimizer these are taken. The statistics by which rewards are scaled
        are always those of the newest checkpoint.

        Args:
            run: The run folder, or the name of a pretrained agent.
            optimizer: Whether to take the optimizer's state, its step count included.

        Raises:
            ConfigError: If the folder is no run, or holds nothing to begin with, or nothing that can be read.
        """
        try:
            return cls._read(run, optimizer)
        except CheckpointError as error:
            raise ConfigError(str(error)) from None

    @classmethod
    def _read(cls, run: Path, optimizer: bool) -> "WarmStart":
        run = run_folder.find(run)
        run_folder.read(run)
        found = Checkpoints(run / "checkpoints").load_latest()
        step, saved, _ = found or (0, {}, {})
        kept = {name: x for name, x in saved.items() if name.startswith(_SCALING)}
        kept.pop(f"{_SCALING}returns", None)  # of episodes that do not go on here
        if optimizer:
            if found is None:
                raise ConfigError(f"{run}: holds no checkpoint, and so no optimizer state to begin with")
            networks = [name.removeprefix("best/") for name in saved if name.startswith("best/")]
            slots = {_OPTIMIZER + name: x for name, x in saved.items() if name not in networks}
            kept |= {name: saved[name] for name in networks} | slots
            return cls(kept, {"run": str(run), "which": "newest checkpoint", "env_steps": step})
        for which in ("best", "latest"):
            path = run / which / WEIGHTS
            if path.is_file():
                weights, metadata = checkpoint_file.load(path)
                about = {"run": str(run), "which": which, "env_steps": metadata["env_steps"]}
                return cls(kept | weights, about)
        raise ConfigError(f"{run}: holds no weights to begin with; they are saved by the first evaluation")

    @classmethod
    def recorded(cls, run: Path) -> "WarmStart | None":
        """Reads what a run itself began with; None if that were fresh weights.

        Raises:
            ConfigError: If the file cannot be read.
        """
        path = run / START
        if not path.exists():
            return None
        try:
            return cls(*checkpoint_file.load(path))
        except CheckpointError as error:
            raise ConfigError(str(error)) from None

    @property
    def weights(self) -> dict[str, Array]:
        """The networks' weights, and the normalization of observations, by path."""
        return {name: x for name, x in self.tensors.items() if not name.startswith((_OPTIMIZER, _SCALING))}

    def encoded(self) -> bytes:
        """Returns the file START that records it in a run folder."""
        return bytes(checkpoint_file.encode(self.tensors, self.metadata))

    def __str__(self) -> str:
        return f"{self.metadata['run']}, {self.metadata['which']}, {self.metadata['env_steps']:,} steps"

    def kept_by(self, assembly: Assembly) -> "WarmStart":
        """Returns it without what the agent does not have: other optimizer state, reward statistics.

        Raises:
            ConfigError: If the agent's optimizer is another one.
        """
        own = {v.path for v in assembly.networks.variables}
        names = {name for name in self.tensors if name in own}
        if assembly.learner.reward_scaling is not None:
            names |= {name for name in self.tensors if name.startswith(_SCALING)}
        slots = {_OPTIMIZER + v.path for v in _slots(assembly)}
        if any(name.startswith(_OPTIMIZER) for name in self.tensors):
            if missing := sorted(slots - self.tensors.keys()):
                raise ConfigError(
                    f"{self.metadata['run']}: the optimizer's state does not fit, there is no "
                    f"{missing[0].removeprefix(_OPTIMIZER)}; without it, only the weights are taken"
                )
            names |= slots
        return WarmStart({name: self.tensors[name] for name in sorted(names)}, self.metadata)

    def apply(self, assembly: Assembly) -> None:
        """Puts the reward statistics and the optimizer's state into an agent built on the weights.

        Raises:
            ConfigError: If their shapes do not fit.
        """
        scaling = assembly.learner.reward_scaling
        variables = {_OPTIMIZER + v.path: v for v in _slots(assembly)}
        if scaling is not None:
            variables |= {v.path: v for v in scaling.variables if v is not scaling.returns}
        for name, variable in variables.items():
            if name in self.tensors:
                value = self.tensors[name]
                if tuple(value.shape) != tuple(variable.shape):
                    raise ConfigError(
                        f"{self.metadata['run']}: {name} is {list(value.shape)} there and "
                        f"{list(variable.shape)} here"
                    )
                variable.assign(np.asarray(value))


def _slots(assembly: Assembly) -> list[Any]:
    """The inner optimizer's state but for its rate, which the agent file says."""
    return [v for v in assembly.optimizer.inner.variables if v.path.rpartition("/")[2] != "learning_rate"]
