"""The state of a run that a checkpoint holds: enough to go on as if nothing had happened."""

import math
import tomllib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlweights.errors import CheckpointError
from rlweights.learning.batch import Episodes
from rlweights.learning.learner import Learner
from rlweights.learning.loops.base import Loop
from rlweights.learning.phases import PhaseMeter
from rlweights.running.config import agent_file
from rlweights.running.config.schema import Agent
from rlweights.running.guard import NotFinite
from rlweights.running.saving import checkpoint_file, run_folder
from rlweights.running.saving.checkpoints import Checkpoints
from rlweights.weights.arrays import Array, Variable

WEIGHTS = "weights.safetensors"

_LOOP = "loop/"


WINDOW = 100
"""Episodes over which `rollout/ep_rew_mean` is a mean, as in Stable-Baselines3."""


def info_tag(name: str) -> str:
    """Returns the tag of a scalar that environments tell in their infos."""
    return "rollout/success_rate" if name == "is_success" else f"rollout/info/{name}"


@dataclass
class EpisodeWindow:
    """The newest iterations that together hold at least WINDOW episodes."""

    iterations: deque["_Iteration"] = field(default_factory=deque)
    count: int = 0

    def add(self, episodes: Episodes) -> None:
        """Adds the episodes that ended in one iteration; returns that are not finite do not count."""
        if episodes.count == 0 or not math.isfinite(episodes.total_return):
            return
        told = dict(sorted(episodes.reported.items()))
        self.iterations.append(
            _Iteration(episodes.count, episodes.total_return, episodes.total_length, told, episodes.extremes)
        )
        self.count += episodes.count
        while self.count - self.iterations[0].count >= WINDOW:
            self.count -= self.iterations.popleft().count

    def scalars(self) -> dict[str, float]:
        """Returns and mean length, and means of what infos say; nothing while no episode has ended."""
        if not self.count:
            return {}
        told: dict[str, tuple[float, int]] = {}
        for each in self.iterations:
            for name, (total, count) in each.reported.items():
                before = told.get(name, (0.0, 0))
                told[name] = before[0] + total, before[1] + count
        return {
            "rollout/ep_rew_mean": sum(each.total_return for each in self.iterations) / self.count,
            **self._extremes(),
            "rollout/ep_len_mean": sum(each.total_length for each in self.iterations) / self.count,
            **{info_tag(name): total / count for name, (total, count) in sorted(told.items())},
        }

    def _extremes(self) -> dict[str, float]:
        """The lowest and the highest return; nothing where a checkpoint of version 0.1 did not hold them."""
        found = [each.extremes for each in self.iterations]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return {}
        return {
            "rollout/ep_rew_min": min(low for low, _ in known),
            "rollout/ep_rew_max": max(high for _, high in known),
        }


class _Iteration(NamedTuple):
    """The episodes that ended in one iteration."""

    count: int
    total_return: float
    total_length: int
    reported: dict[str, tuple[float, int]]
    extremes: tuple[float, float] | None


@dataclass
class Best:
    """The weights of the best evaluation so far, and before the first one those of the beginning."""

    weights: dict[str, Array]
    mean: float | None = None
    env_steps: int = 0

    def beaten_by(self, mean: float) -> bool:
        """Whether a mean return is at least as good; of equal ones the newest counts, NaN never does."""
        return math.isfinite(mean) and (self.mean is None or mean >= self.mean)


@dataclass
class Progress:
    """Where a run stands between two iterations.

    Attributes:
        best: The weights of the best evaluation.
        iteration: Iterations made.
        attempt: How often the run went back to a checkpoint; each attempt draws other random numbers.
        finished: Whether the budget is used up and the last evaluation made.
        evaluation_due: Whether the evaluation at this iteration has failed, and is to be made on resume.
        window: The newest episodes.
        phases: What is known of the phases of a changing task.
        callbacks: The state of the run's callbacks, as JSON; empty if it has none.
    """

    best: Best
    iteration: int = 0
    attempt: int = 0
    finished: bool = False
    evaluation_due: bool = False
    window: EpisodeWindow = field(default_factory=EpisodeWindow)
    phases: PhaseMeter = field(default_factory=PhaseMeter)
    callbacks: dict[str, Any] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """Returns all but the weights, as JSON can hold it."""
        phases = {"phases": self.phases.state()} if self.phases.open or self.phases.closed else {}
        return phases | {
            "iteration": self.iteration,
            "attempt": self.attempt,
            "finished": self.finished,
            "evaluation_due": self.evaluation_due,
            "best": [self.best.mean, self.best.env_steps],
            "window": [list(each) for each in self.window.iterations],
            **({"callbacks": self.callbacks} if self.callbacks else {}),
        }

    @classmethod
    def of(cls, metadata: Mapping[str, Any], best: dict[str, Array]) -> "Progress":
        """Returns the progress that `metadata` described, with the weights of the best evaluation."""
        progress = cls(Best(best, *metadata["best"]))
        progress.iteration = metadata["iteration"]
        progress.attempt = metadata["attempt"]
        progress.finished = metadata["finished"]
        progress.callbacks = metadata.get("callbacks", {})
        progress.evaluation_due = metadata.get("evaluation_due", False)
        for count, total_return, total_length, *later in metadata["window"]:
            reported = {name: tuple(each) for name, each in (later[0] if later else {}).items()}
            extremes = tuple(later[1]) if len(later) > 1 and later[1] else None
            progress.window.add(Episodes(count, total_return, total_length, extremes, reported))
        if "phases" in metadata:
            progress.phases = PhaseMeter.of(metadata["phases"])
        return progress


class Restored(NamedTuple):
    """What a checkpoint holds beside variables.

    Attributes:
        progress: Where the run stands.
        probe: The observations on which hidden units are measured.
        loop: The state of the loop; empty in a checkpoint of version 0.1, which began new episodes at each.
    """

    progress: Progress
    probe: Array
    loop: dict[str, Array]


class RunState:
    """Saves and restores the whole state of a run.

    The state is every variable of learner and loop, the weights of the best evaluation, the observations on
    which hidden units are measured, the progress, and the agent itself, so that no other agent takes it over.

    Args:
        folder: The run folder.
        agent: The configuration.
        learner: What updates its networks.
        loop: What runs its iterations.
    """

    def __init__(self, folder: Path, agent: Agent, learner: Learner, loop: Loop):
        self.newest: int | None = None
        """The step of the newest checkpoint that was saved or restored."""
        self._folder = folder
        self._files = Checkpoints(folder / "checkpoints", agent.checkpoint.keep)
        self._agent = agent
        self._loop = loop
        self._state = by_path([*learner.variables, *loop.variables])
        self._networks = [v.path for v in learner.networks.variables]
        self._probe_spec = loop.probe_spec
        optimizer = learner.optimizer
        self._of_this_version = optimizer.of_this_version
        reports = [m for rule in optimizer.interventions for m in rule.metrics.values()]
        ids = {id(v) for v in [*optimizer.feedback.values(), *reports]}
        self._reports = [path for path, v in self._state.items() if id(v) in ids]
        self._beginning: dict[str, Array] = {}
        if agent.guard.on_nonfinite == "rollback":
            self._beginning = {path: v.numpy().copy() for path, v in self._state.items()}

    def save(self, progress: Progress, probe: Array, step: int) -> Path:
        """Writes a checkpoint and returns its file.

        A feedback or a metric that is NaN says that nothing was measured yet: it is saved as a name.

        Raises:
            NotFinite: If anything else is not finite; nothing is written.
            CheckpointError: If the system refuses; older checkpoints stay intact.
        """
        tensors = {path: v.numpy() for path, v in self._state.items()}
        unset = [path for path in self._reports if np.isnan(tensors[path]).all()]
        tensors |= {path: np.zeros_like(tensors[path]) for path in unset}
        tensors |= {f"best/{path}": value for path, value in progress.best.weights.items()} | {"probe": probe}
        tensors |= {_LOOP + name: np.asarray(value) for name, value in self._loop.state().items()}
        for path, value in tensors.items():
            if value.dtype.kind in "fV" and not np.isfinite(value).all():
                raise NotFinite(path)
        metadata = progress.metadata() | {"unset": unset, "agent": self._agent.to_toml()}
        path = self._files.save(step, tensors, metadata)
        self.newest = step
        return path

    def restore(self, say: Callable[[str], Any]) -> Restored | None:
        """Takes over the newest readable checkpoint.

        Args:
            say: Shows one line about a file that is damaged.

        Returns:
            What is not in variables, or None if there is no checkpoint yet; then nothing has changed.

        Raises:
            CheckpointError: If there are checkpoints and none can be used.
            ConfigError: If the agent differs from the checkpoint's; the message names the keys.
        """
        expect = {path: (tuple(v.shape), v.dtype) for path, v in self._state.items()}
        expect |= {f"best/{path}": expect[path] for path in self._networks} | {"probe": self._probe_spec}
        found = self._files.load_latest(on_damaged=say)
        if found is None:
            return None
        step, tensors, metadata = found
        path = self._files.path(step)
        before = agent_file.parse(agent_file.as_trained(tomllib.loads(metadata["agent"])), str(path))
        run_folder.refuse_changes(before, self._agent, str(path))
        # Version 0.1 held weights with offsets a second time.
        doubles = {n: n.removesuffix("#2") for n in tensors if n.endswith("#2") and n not in expect}
        expect |= {n: expect[once] for n, once in doubles.items() if once in self._networks}
        tensors = self._of_this_version(tensors)
        loop = {name.removeprefix(_LOOP): x for name, x in tensors.items() if name.startswith(_LOOP)}
        tensors = {name: x for name, x in tensors.items() if not name.startswith(_LOOP)}
        tensors = {name: _widened(x, expect.get(name)) for name, x in tensors.items()}
        checkpoint_file.check_expected(path, tensors, expect)
        for name, variable in self._state.items():
            value = tensors[name]
            variable.assign(np.full_like(value, np.nan) if name in metadata["unset"] else value)
        best = {name: tensors[f"best/{name}"] for name in self._networks}
        self.newest = step
        return Restored(Progress.of(metadata, best), tensors["probe"], loop)

    def start_over(self) -> Progress:
        """Goes back to the beginning of the run, for a guard that rolls back before the first checkpoint."""
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

    def write(self, name: str, weights: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
        """Writes weights and their metadata into the subfolder `name` of the run.

        Raises:
            CheckpointError: If the system refuses.
        """
        path = self._folder / name / WEIGHTS
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{path}: saving failed: {error.strerror}") from error
        checkpoint_file.save(path, weights, metadata)


def _widened(value: Array, kind: tuple[Any, Any] | None) -> Array:
    """A counter as int64, where it is one now: until version 0.1 counters were int32."""
    counts = kind is not None and kind[1] == "int64" and value.dtype == np.int32
    return value.astype(np.int64) if counts else value


def by_path(variables: Iterable[Variable]) -> dict[str, Variable]:
    """Returns variables by their paths; of several with one path the later ones get a number."""
    named: dict[str, Variable] = {}
    for variable in variables:
        path, number = variable.path, 2
        while path in named:
            path, number = f"{variable.path}#{number}", number + 1
        named[path] = variable
    return named
