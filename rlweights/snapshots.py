"""What a checkpoint of a run holds: enough to go on as if nothing had happened."""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlweights import checkpoints, config, runs
from rlweights.assembly import Assembly
from rlweights.checkpoints import CheckpointError, Checkpoints
from rlweights.guard import NotFinite
from rlweights.loops import Loop
from rlweights.progress import Best, Progress

WEIGHTS = "weights.safetensors"


class Snapshots:
    """Saves and restores the whole state of a run.

    That is every variable of learner and loop, the weights of the best evaluation, the observations on which
    hidden units are measured, the progress, and the agent itself, so that nothing else takes it over.

    Args:
        folder: The run folder.
        assembly: The agent.
        loop: What runs its iterations.
    """

    def __init__(self, folder: Path, assembly: Assembly, loop: Loop):
        self.newest: int | None = None
        """The step of the newest checkpoint that was saved or restored."""
        self._folder = folder
        self._files = Checkpoints(folder / "checkpoints", assembly.agent.checkpoint.keep)
        self._agent = assembly.agent
        self._state = by_path([*assembly.learner.variables, *loop.variables])
        self._networks = [v.path for v in assembly.networks.variables]
        self._probe_spec = loop.probe_spec
        optimizer = assembly.optimizer
        reports = [m for rule in optimizer.interventions for m in rule.metrics.values()]
        ids = {id(v) for v in [*optimizer.feedback.values(), *reports]}
        self._reports = [path for path, v in self._state.items() if id(v) in ids]
        self._beginning: dict[str, np.ndarray] = {}
        if assembly.agent.guard.on_nonfinite == "rollback":
            self._beginning = {path: v.numpy().copy() for path, v in self._state.items()}

    def save(self, progress: Progress, probe: np.ndarray, step: int) -> None:
        """Writes a checkpoint.

        A feedback or a metric that is NaN says that nothing was measured yet: it is saved as a name.

        Raises:
            NotFinite: If anything else is not finite; nothing is written.
            CheckpointError: If the system refuses; older checkpoints are intact.
        """
        tensors = {path: v.numpy() for path, v in self._state.items()}
        unset = [path for path in self._reports if np.isnan(tensors[path]).all()]
        tensors |= {path: np.zeros_like(tensors[path]) for path in unset}
        tensors |= {f"best/{path}": value for path, value in progress.best.weights.items()} | {"probe": probe}
        for path, value in tensors.items():
            if value.dtype.kind in "fV" and not np.isfinite(value).all():
                raise NotFinite(path)
        metadata = progress.metadata() | {"unset": unset, "agent": self._agent.to_toml()}
        self._files.save(step, tensors, metadata)
        self.newest = step

    def restore(self, say: Callable[[str], Any]) -> tuple[Progress, np.ndarray] | None:
        """Takes over the newest readable checkpoint.

        Args:
            say: Shows one line about a file that is damaged.

        Returns:
            The progress and the probe, or None if there is no checkpoint yet; then nothing has changed.

        Raises:
            CheckpointError: If there are checkpoints and none can be used.
            ConfigError: If the agent is another one than the checkpoint's; the message names the keys.
        """
        expect = {path: (tuple(v.shape), v.dtype) for path, v in self._state.items()}
        expect |= {f"best/{path}": expect[path] for path in self._networks} | {"probe": self._probe_spec}
        found = self._files.load_latest(on_damaged=say)
        if found is None:
            return None
        step, _, metadata = found
        path = self._files.path(step)
        before = config.parse(tomllib.loads(metadata["agent"]), str(path))
        runs.refuse_changes(before, self._agent, str(path))
        tensors, _ = checkpoints.load(path, expect)
        for name, variable in self._state.items():
            value = tensors[name]
            variable.assign(np.full_like(value, np.nan) if name in metadata["unset"] else value)
        best = {name: tensors[f"best/{name}"] for name in self._networks}
        self.newest = step
        return Progress.of(metadata, best), tensors["probe"]

    def start_over(self) -> Progress:
        """Goes back to where every run begins, if the guard may ask for that: there is no checkpoint yet."""
        for path, value in self._beginning.items():
            self._state[path].assign(value)
        return Progress(Best({path: self._beginning[path] for path in self._networks}))

    def write_best(self, progress: Progress) -> None:
        """Makes `best/` what the progress says: the weights of the best evaluation, or nothing at all."""
        best, path = progress.best, self._folder / "best" / WEIGHTS
        if best.mean is not None:
            self.write("best", best.weights, {"env_steps": best.env_steps, "mean_reward": best.mean})
            return
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be removed: {error.strerror}") from error

    def write(self, name: str, weights: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
        """Writes weights into a folder of their own."""
        path = self._folder / name / WEIGHTS
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{path}: saving failed: {error.strerror}") from error
        checkpoints.save(path, weights, metadata)


def by_path(variables: Iterable[Any]) -> dict[str, Any]:
    """Variables by their paths; of several with one path the later ones get a number."""
    named: dict[str, Any] = {}
    for variable in variables:
        path, number = variable.path, 2
        while path in named:
            path, number = f"{variable.path}#{number}", number + 1
        named[path] = variable
    return named
