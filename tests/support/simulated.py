"""Training processes that can be killed anywhere, without the price of real ones.

An agent is compiled once; a new process of it starts from the initial value of every variable, with a new
trainer. What real processes add (signals, SIGKILL, XLA) is tested in test_signals.py and by the soak.
"""

import contextlib
import functools
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf

from rlweights.learning.inspection import Inspection
from rlweights.learning.loops import device, host
from rlweights.running import trainer
from rlweights.running.building import policy
from rlweights.running.building.assembly import Assembly
from rlweights.running.callbacks import Callback
from rlweights.running.config import agent_file, schema
from rlweights.running.outcome import Outcome
from rlweights.running.records.console import Console
from rlweights.running.records.event_file import read_scalars
from rlweights.running.saving import checkpoint_file, checkpoints
from rlweights.running.saving.run_state import by_path
from rlweights.running.trainer import Trainer
from rlweights.weights import compilation

STEPS = 16
"""Environment steps of one iteration."""

TINY: dict[str, Any] = {
    "seed": 4,
    "environment": {
        "id": "CartPole-v1",
        "num_envs": 2,
        "normalize_observations": True,
        "normalize_rewards": True,
    },
    "algorithm": {
        "name": "ppo",
        "n_steps": STEPS // 2,
        "batch_size": 8,
        "n_epochs": 2,
        "learning_rate": 0.02,
    },
    "network": {"hidden_sizes": [4]},
    "interventions": [
        {"rule": "clipping", "bound": 1.0, "on": "kind('kernel', 'bias')"},
        {"rule": "adaptive_noise", "initial_stddev": 0.1, "target": 0.01},
    ],
    "budget": {"total_timesteps": 14 * STEPS},
    "evaluation": {"every": 3 * STEPS, "episodes": 2, "final_episodes": 3, "film_frames": 0},
    "checkpoint": {"every": 4 * STEPS},
    "logging": {"every": STEPS, "diagnostics_every": 3, "histograms_every": 5, "alarms": False},
}
"""An agent with everything in it that has a state."""


class Killed(BaseException):
    """The process is no more."""


class Machine:
    """Runs processes of one agent.

    Args:
        backend: The environment's.
        sections: Tables of the agent that differ from TINY's, merged into them.
        xla: Whether to compile with XLA.
    """

    def __init__(self, backend: str = "gymnasium", xla: bool = False, **sections: Any):
        self.data = merged(TINY, {"environment": {"backend": backend}}, sections)
        original = compilation.compiled

        def compiled(function: Any, *specs: Any, xla: bool = True) -> Any:
            return original(function, *specs, xla=self.xla and xla)

        self.xla = xla
        with mock.patch.object(device, "compiled", compiled), mock.patch.object(host, "compiled", compiled):
            self.assembly = Assembly(agent_file.parse(self.data, "test"), "test")
            self.loop = self.assembly.make_loop()
        self._inspection: Inspection | None = None
        self._variables = by_path([*self.assembly.learner.variables, *self.loop.variables])
        self._initial = {path: v.numpy().copy() for path, v in self._variables.items()}

    def agent(self, **sections: Any) -> schema.Agent:
        """The agent, with some settings changed that do not concern what is compiled."""
        return agent_file.parse(merged(self.data, sections), "test")

    def folder(self, parent: Path, **sections: Any) -> Path:
        """A new run folder."""
        folder = parent / f"run-{len(list(parent.iterdir()))}"
        folder.mkdir()
        (folder / "agent.toml").write_text(self.agent(**sections).to_toml())
        return folder

    def train(
        self,
        folder: Path,
        resume: bool = False,
        said: list[str] | None = None,
        quiet: bool = True,
        callbacks: Sequence[Callback] = (),
        **sections: Any,
    ) -> Outcome:
        """What one process does: `sections` differ from the agent's; `said` takes its messages."""
        for path, variable in self._variables.items():
            variable.assign(self._initial[path])
        self.assembly.agent = agent_file.parse(merged(self.data, sections), "test")
        self.loop._count = 1  # pyright: ignore[reportAttributeAccessIssue]
        console = Console(1, quiet=quiet, file=io.StringIO())
        if said is not None:
            console.message = said.append
        with (
            mock.patch.object(Assembly, "make_loop", return_value=self.loop),
            mock.patch.object(trainer, "Inspection", self._inspect),
        ):
            process = Trainer(self.assembly, console, callbacks)
            try:
                return process.run(folder, resume)
            finally:
                process._evaluator.close()

    def _inspect(self, learner: Any, initial: Any, probe: np.ndarray) -> Inspection:
        self._inspection = self._inspection or Inspection(learner, initial, probe)
        self._inspection.probe = probe
        return self._inspection


@functools.cache
def machine(backend: str = "gymnasium") -> Machine:
    """A machine for TINY, shared by all tests."""
    return Machine(backend)


def merged(base: dict[str, Any], *changes: dict[str, Any]) -> dict[str, Any]:
    """Nested tables, the later ones over the earlier ones; lists are replaced."""
    result = dict(base)
    for change in changes:
        for key, value in change.items():
            old = result.get(key)
            result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def written(descriptor: int) -> Path:
    """The file behind a descriptor."""
    return Path(os.readlink(f"/proc/self/fd/{descriptor}"))


def _kind_of_write(descriptor: int) -> str:
    name = written(descriptor).name
    return next((kind for kind in ("progress.csv", "agent.toml") if name.startswith(kind)), "write")


class Mortal:
    """Counts what a process does to the disk and to its weights, and kills it at one of these moments.

    A killed process does nothing more, although Python unwinds its stack.

    Args:
        machine: Whose process it is.
        at: The moment of death: the number of a deed, from 1, or a kind of deed and its number among those;
            None: it lives on.
        after: Whether it dies after the deed rather than before it.
    """

    def __init__(self, machine: Machine, at: int | tuple[str, int] | None = None, after: bool = False):
        self.machine, self.at, self.after = machine, at, after
        self.deeds: list[str] = []
        self.dead = False

    def _wrapped(self, owner: Any, name: str, label: str) -> Any:
        original = getattr(owner, name)

        def deed(*args, **kwargs):
            if self.dead:
                raise Killed
            kind = _kind_of_write(args[0]) if label == "write" else label
            self.deeds.append(kind)
            self.dead = self.at in (len(self.deeds), (kind, self.deeds.count(kind)))
            if self.dead and not self.after:
                raise Killed
            result = original(*args, **kwargs)
            if self.dead:
                raise Killed
            return result

        return mock.patch.object(owner, name, deed)

    @contextlib.contextmanager
    def living(self) -> Iterator["Mortal"]:
        """For the time of a `with` block, which a death ends without an error."""
        places = [
            (os, "write", "write"),
            (os, "fsync", "sync"),
            (os, "replace", "rename"),
            (os, "unlink", "remove"),
            (tf.io.TFRecordWriter, "write", "event"),
            (self.machine.loop, "advance", "iterations"),
            (policy, "evaluate", "evaluation"),
        ]
        with contextlib.ExitStack() as stack:
            for place in places:
                stack.enter_context(self._wrapped(*place))
            with contextlib.suppress(Killed):
                yield self


def steps_saved(folder: Path) -> list[int]:
    """The steps of a run's checkpoints."""
    return checkpoints.Checkpoints(folder / "checkpoints").steps()


def newest(folder: Path) -> tuple[int, dict[str, np.ndarray], dict[str, Any]]:
    """Step, tensors and progress of a run's newest checkpoint."""
    found = checkpoints.Checkpoints(folder / "checkpoints").load_latest()
    assert found is not None
    return found


def result(folder: Path) -> dict[str, Any]:
    """What a run ended with: its files as they are, and every series of TensorBoard but the times."""
    files = ("progress.csv", "best/weights.safetensors", "latest/weights.safetensors")
    found: dict[str, Any] = {
        name: (folder / name).read_bytes() if (folder / name).exists() else None for name in files
    }
    (step, tensors, metadata) = checkpoints.Checkpoints(folder / "checkpoints").load_latest() or (0, {}, {})
    found |= {"step": step, "progress": metadata}
    found |= {f"checkpoint: {name}": value.tobytes() for name, value in tensors.items()}
    series = read_scalars(folder)
    return found | {f"series: {tag}": points for tag, points in series.items() if tag[:5] != "time/"}


def assert_same_result(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Asserts that two runs ended alike, bit for bit; names what differs."""
    differing = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    assert not differing, sorted(differing)


def weights(folder: Path) -> dict[str, bytes]:
    """The networks' weights in the newest checkpoint."""
    _, tensors, _ = newest(folder)
    return {name: value.tobytes() for name, value in tensors.items() if name.startswith("best/")} | {
        name: tensors[name].tobytes() for name in (n[5:] for n in tensors if n.startswith("best/"))
    }


def all_finite(folder: Path) -> bool:
    """Whether every number in every checkpoint and weights file is finite."""
    files = list(folder.rglob("*.safetensors"))
    assert files
    return all(
        np.isfinite(value).all()
        for file in files
        for value in checkpoint_file.load(file)[0].values()
        if value.dtype.kind == "f"
    )
