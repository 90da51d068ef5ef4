"""The training loop: rollout, update, records, evaluation, checkpoints."""

import contextlib
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from rlweights import checkpoints
from rlweights.assembly import Assembly
from rlweights.compiled import HostPrograms
from rlweights.config import ConfigError
from rlweights.console import Console
from rlweights.evaluation import Result, evaluate
from rlweights.networks import NumpyPolicy
from rlweights.records import Records
from rlweights.rollout import Episodes, Rollout
from rlweights.runlock import RunLock

WINDOW = 100
"""Episodes over which `rollout/ep_rew_mean` is a mean, as in Stable-Baselines3."""


class TrainingStopped(RuntimeError):
    """Training cannot go on; the last good checkpoint is intact."""


@dataclass
class EpisodeWindow:
    """The newest iterations that together hold at least WINDOW episodes."""

    iterations: deque[tuple[int, float, int]] = field(default_factory=deque)
    count: int = 0

    def add(self, episodes: Episodes) -> None:
        """Adds the episodes that ended in one iteration."""
        if episodes.count == 0:
            return
        self.iterations.append((episodes.count, episodes.total_return, episodes.total_length))
        self.count += episodes.count
        while self.count - self.iterations[0][0] >= WINDOW:
            self.count -= self.iterations.popleft()[0]

    def scalars(self) -> dict[str, float]:
        """Mean return and length; nothing while no episode has ended."""
        if not self.count:
            return {}
        return {
            "rollout/ep_rew_mean": sum(r for _, r, _ in self.iterations) / self.count,
            "rollout/ep_len_mean": sum(n for _, _, n in self.iterations) / self.count,
        }


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    folder: Path
    evaluation: Result | None
    env_steps: int
    seconds: float
    signal: int | None = None


class HostLoop:
    """Iterations in Gymnasium vector environments."""

    def __init__(self, assembly: Assembly):
        agent = assembly.agent
        self.envs = assembly.make_envs(agent.environment.num_envs)
        self.rollout = Rollout(self.envs, assembly.distribution, agent.algorithm.n_steps, agent.seed)
        self.programs = HostPrograms(
            assembly.learner, assembly.encoder.shape, assembly.encoder.dtype, agent.environment.num_envs
        )
        self.observations: np.ndarray | None = None

    def boundary(self, iteration: int) -> None:
        """Begins afresh from (seed, iteration): what makes a resumed run equal an uninterrupted one."""
        self.rollout.reset(iteration)

    def advance(self, iteration: int, count: int) -> Iterator[tuple[dict[str, float], Episodes]]:
        """Runs `count` iterations and yields the scalars and episodes of each."""
        for i in range(iteration, iteration + count):
            self.programs.begin()
            batch, episodes = self.rollout.collect(self.programs.policy, self.programs.value, i)
            self.observations = batch.observations
            yield self.programs.learn(batch), episodes

    def close(self) -> None:
        """Closes the environments."""
        self.envs.close()


class Trainer:
    """Trains one agent into one run folder.

    Args:
        assembly: The agent.
        console: Where progress is shown.
    """

    def __init__(self, assembly: Assembly, console: Console):
        self.assembly = assembly
        self.agent = assembly.agent
        self.learner = assembly.learner
        self.folder = Path()
        self.console = console
        self.loop = HostLoop(assembly)
        self.window = EpisodeWindow()
        self.best = -float("inf")
        self.iteration = 0
        self._signal: int | None = None
        self._evaluation_envs: dict[int, Any] = {}

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *error) -> None:
        for envs in self._evaluation_envs.values():
            envs.close()
        self.loop.close()

    @property
    def env_steps(self) -> int:
        """Environment steps so far."""
        return self.iteration * self.agent.steps_per_iteration

    # The run --------------------------------------------------------------------------------------

    def run(self, folder: Path) -> Outcome:
        """Trains to the end of the budget, or to the first signal.

        Args:
            folder: The run folder.

        Raises:
            TrainingStopped: If updates were not finite for too long.
        """
        started = time.monotonic()
        self.folder = folder
        result = None
        with contextlib.ExitStack() as stack:
            stack.enter_context(RunLock(self.folder))
            records = stack.enter_context(Records(self.folder))
            stack.enter_context(self._signals())
            keep = checkpoints.Checkpoints(self.folder / "checkpoints", self.agent.checkpoint.keep)
            self._train(records, keep)
            if self._signal is None:
                result = self._evaluate(records, self.agent.evaluation.final_episodes)
                self._save(keep)
            self._save_latest()
        return Outcome(self.folder, result, self.env_steps, time.monotonic() - started, self._signal)

    def _train(self, records: Records, keep: checkpoints.Checkpoints) -> None:
        total = self.agent.total_iterations
        every = self.agent.steps_per_iteration
        evaluates = _iterations(self.agent.evaluation.every, every)
        saves = _iterations(self.agent.checkpoint.every, every)
        clock, clocked = time.monotonic(), self.env_steps
        loop = self.loop
        loop.boundary(self.iteration)
        while self.iteration < total and self._signal is None:
            if self.iteration and saves and self.iteration % saves == 0:
                self._save(keep)
                loop.boundary(self.iteration)
            for scalars, episodes in loop.advance(self.iteration, 1):
                self.iteration += 1
                self.window.add(episodes)
                self._watch(scalars)
                if self.iteration % self.agent.logging.every == 0 or self.iteration == total:
                    now = time.monotonic()
                    rate = (self.env_steps - clocked) / max(now - clock, 1e-9)
                    clock, clocked = now, self.env_steps
                    row = self.window.scalars() | scalars | {"time/fps": rate}
                    records.write(self.env_steps, row)
                    self.console.update(self.env_steps, row, rate)
            if evaluates and self.iteration % evaluates == 0 and self.iteration < total:
                paused = time.monotonic()
                self._evaluate(records, self.agent.evaluation.episodes)
                clock += time.monotonic() - paused

    def _watch(self, scalars: dict[str, float]) -> None:
        """Stops a run whose updates are not finite any more, and says what was the first to be bad."""
        guard = self.agent.guard
        if not scalars.get("update/skipped"):
            return
        streak = int(self.learner.bad_streak.numpy())
        if streak < guard.patience and guard.on_nonfinite != "stop":
            return
        names = ("observations", "rewards", "loss", "gradients")
        bad = next((n for n in names if scalars.get(f"update/nonfinite_{n}")), "update")
        raise TrainingStopped(
            f"{streak} updates in a row were not finite; the first bad quantity: {bad}. "
            f"The last good checkpoint lies in {self.folder / 'checkpoints'}"
        )

    # Evaluation -----------------------------------------------------------------------------------

    def _evaluate(self, records: Records, episodes: int) -> Result:
        """Evaluates clean (or averaged) weights in the real environment; keeps the best ones."""
        size = min(episodes, 20)
        if size not in self._evaluation_envs:
            self._evaluation_envs[size] = self.assembly.make_envs(size, evaluation=True)
        with self.learner.optimizer.evaluation():
            result = evaluate(
                self._acting(),
                self._evaluation_envs[size],
                self.assembly.distribution,
                episodes,
                seed=self.agent.seed + 10_000,
                deterministic=self.agent.evaluation.deterministic,
            )
            if result.mean >= self.best:
                self.best = result.mean
                self._save_weights(self.folder / "best" / "weights.safetensors", result)
        scalars = {"eval/mean_reward": result.mean, "eval/mean_ep_length": float(result.lengths.mean())}
        records.write(self.env_steps, scalars)
        self.console.update(self.env_steps, scalars, None)
        return result

    def _acting(self) -> Callable[[np.ndarray], np.ndarray]:
        policy = self.assembly.networks.policy
        if NumpyPolicy.supports(policy):
            return NumpyPolicy(policy)
        return lambda observations: policy(tf.constant(observations)).numpy()

    # Saving ---------------------------------------------------------------------------------------

    def _save(self, keep: checkpoints.Checkpoints) -> None:
        tensors = {v.path: v.numpy() for v in self.learner.variables}
        metadata = {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "best": self.best if np.isfinite(self.best) else None,
            "window": [list(each) for each in self.window.iterations],
            "agent": self.agent.to_toml(),
        }
        keep.save(self.env_steps, tensors, metadata)

    def _save_latest(self) -> None:
        with self.learner.optimizer.evaluation():
            self._save_weights(self.folder / "latest" / "weights.safetensors", None)

    def _save_weights(self, path: Path, result: Result | None) -> None:
        path.parent.mkdir(exist_ok=True)
        tensors = {v.path: v.numpy() for v in self.assembly.networks.variables}
        metadata: dict[str, Any] = {"env_steps": self.env_steps}
        if result is not None:
            metadata["mean_reward"] = result.mean
        checkpoints.save(path, tensors, metadata)

    # Signals --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Lets the first SIGINT or SIGTERM end the run after the present iteration; a second one at once."""

        def handle(number, frame):
            if self._signal is not None:
                raise SystemExit(128 + number)
            self._signal = number
            self.console.message("stopping after this iteration; a second signal stops at once")

        previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _iterations(steps: int, steps_per_iteration: int) -> int:
    """Turns a distance in environment steps into iterations; 0 stays 0."""
    return max(1, round(steps / steps_per_iteration)) if steps else 0


def new_folder(runs: Path, name: str, seed: int) -> Path:
    """Returns a run folder that does not exist yet: runs/<agent>/<seed>-<time>."""
    stem = f"{seed}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = runs / name / stem, 1
    while folder.exists():
        number += 1
        folder = runs / name / f"{stem}-{number}"
    return folder


def prepare(assembly: Assembly, folder: Path) -> None:
    """Creates a run folder with its agent file and the user's files that it names.

    Raises:
        ConfigError: If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=False)
        (folder / "agent.toml").write_text(assembly.agent.to_toml(), encoding="utf-8")
        for file in assembly.loaded_files:
            shutil.copy(file, folder / file.name)
    except OSError as error:
        raise ConfigError(f"{folder}: the run folder cannot be written: {error.strerror}") from None
