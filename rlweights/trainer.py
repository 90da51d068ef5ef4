"""The training loop: rollouts and updates, records, evaluation, checkpoints."""

import contextlib
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from rlweights import checkpoints, dashboard
from rlweights.assembly import Assembly
from rlweights.console import Console
from rlweights.evaluation import Result, evaluate
from rlweights.inspection import Inspection
from rlweights.intervals import bootstrap_interval
from rlweights.loops import loop_of
from rlweights.networks import NumpyPolicy
from rlweights.records import Records
from rlweights.rollout import Episodes
from rlweights.runlock import RunLock

WINDOW = 100
"""Episodes over which `rollout/ep_rew_mean` is a mean, as in Stable-Baselines3."""

MAX_ROLLBACKS = 3
"""Attempts to train past a point from which updates were not finite."""


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
        self.console = console
        self.loop = loop_of(assembly)
        self.folder = Path()
        self.window = EpisodeWindow()
        self.best = -float("inf")
        self.iteration = 0
        self.attempt = 0
        self._signal: int | None = None
        self._evaluation_envs: dict[int, Any] = {}
        self._initial = [v.numpy() for v in self.learner.networks.trainable_variables]
        self._inspection: Inspection | None = None
        self._probe: np.ndarray | None = None

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

    def run(self, folder: Path, resume: bool = False) -> Outcome:
        """Trains to the end of the budget, or to the first signal.

        Args:
            folder: The run folder.
            resume: Whether to go on from the folder's newest checkpoint.

        Raises:
            TrainingStopped: If updates were not finite for too long.
        """
        started = time.monotonic()
        self.folder = folder
        result = None
        with contextlib.ExitStack() as stack:
            stack.enter_context(RunLock(folder))
            keep = checkpoints.Checkpoints(folder / "checkpoints", self.agent.checkpoint.keep)
            if resume:
                self._restore(keep)
            first = self.env_steps
            records = stack.enter_context(Records(folder, resume_step=first if resume else None))
            records.summary(dashboard.layout(), first)
            for summary in dashboard.hparams(self.agent.model_dump(by_alias=True)):
                records.summary(summary, first)
            records.text(first, "agent", f"```toml\n{self.agent.to_toml()}\n```")
            stack.enter_context(self._signals())
            self._train(records, keep)
            if self._signal is None:
                result = self._evaluate(records, self.agent.evaluation.final_episodes)
                records.flush()
                self._save(keep)
            self._save_latest()
            records.summary(dashboard.hparams_end(success=self._signal is None), self.env_steps)
        seconds = time.monotonic() - started
        return Outcome(folder, result, self.env_steps, seconds, self._signal)

    def _train(self, records: Records, keep: checkpoints.Checkpoints) -> None:
        agent, total = self.agent, self.agent.total_iterations
        rows, evaluations, saves = (
            _iterations(steps, agent.steps_per_iteration)
            for steps in (agent.logging.every, agent.evaluation.every, agent.checkpoint.every)
        )
        rate = _Rate()
        self.loop.boundary(self.iteration, self.attempt)
        while self.iteration < total and self._signal is None:
            if saves and self.iteration and self.iteration % saves == 0:
                records.flush()
                self._save(keep)
                self.loop.boundary(self.iteration, self.attempt)
            limit = min(
                [total - self.iteration]
                + [every - self.iteration % every for every in (evaluations, saves) if every]
            )
            rolled_back = False
            done = self.loop.advance(self.iteration, limit)
            rate.tick(len(done) * agent.steps_per_iteration)
            for scalars, episodes in done:
                self.iteration += 1
                self.window.add(episodes)
                if self._goes_on(scalars, keep):
                    self._record(records, rate, scalars, rows, total)
                else:
                    rolled_back = True
                    break
            due = evaluations and self.iteration % evaluations == 0 and self.iteration < total
            if due and not rolled_back:
                with rate.paused():
                    self._evaluate(records, agent.evaluation.episodes)

    def _record(self, records: Records, rate: "_Rate", scalars, every: int, total: int) -> None:
        """Records a row of scalars if it is time to, and at longer intervals a closer look."""
        if self.iteration % every and self.iteration != total:
            return
        number, row = self.iteration // every, self.window.scalars() | scalars
        section = self.agent.logging
        if section.diagnostics_every and number % section.diagnostics_every == 0:
            row |= self._inspected().measure()
        if section.histograms_every and number % section.histograms_every == 0:
            for path, values in self._inspected().kernels().items():
                records.histogram(self.env_steps, path, values)
        records.write(self.env_steps, row | ({"time/fps": rate.value} if rate.value else {}))
        self.console.update(self.env_steps, row, rate.value)

    def _inspected(self) -> Inspection:
        if self._inspection is None:
            probe = self._probe if self._probe is not None else self.loop.probe()
            self._probe = probe
            self._inspection = Inspection(self.learner.networks, self._initial, probe)
        return self._inspection

    # Non-finite updates ---------------------------------------------------------------------------

    def _goes_on(self, scalars: dict[str, float], keep: checkpoints.Checkpoints) -> bool:
        """Watches for updates that are not finite. False: the state was rolled back to a checkpoint.

        Raises:
            TrainingStopped: If it cannot go on; says which quantity was the first to be bad.
        """
        guard = self.agent.guard
        if not scalars.get("update/skipped"):
            return True
        if guard.on_nonfinite == "skip" and int(self.learner.bad_streak.numpy()) < guard.patience:
            return True
        names = ("observations", "rewards", "loss", "gradients")
        bad = next((n for n in names if scalars.get(f"update/nonfinite_{n}")), "gradients")
        attempts = self.attempt
        if guard.on_nonfinite == "rollback" and attempts < MAX_ROLLBACKS and self._restore(keep):
            self.attempt = attempts + 1
            self.loop.boundary(self.iteration, self.attempt)
            self.console.message(
                f"updates were not finite ({bad}): back to step {self.env_steps:,}, attempt {self.attempt}"
            )
            return False
        raise TrainingStopped(
            f"{self.agent.environment.id}: updates were not finite at step {self.env_steps:,}; the first bad "
            f"quantity: {bad}. The last good checkpoint is in {self.folder / 'checkpoints'}"
        )

    # Evaluation -----------------------------------------------------------------------------------

    def _evaluate(self, records: Records, episodes: int) -> Result:
        """Evaluates clean (or averaged) weights in the real environment; keeps the best ones."""
        size = min(episodes, 20)
        if size not in self._evaluation_envs:
            self._evaluation_envs[size] = self.assembly.make_envs(size, evaluation=True)
        with self.learner.optimizer.evaluation():
            result = evaluate(
                acting(self.assembly),
                self._evaluation_envs[size],
                self.assembly.distribution,
                episodes,
                seed=self.agent.seed + 10_000,
                deterministic=self.agent.evaluation.deterministic,
            )
            if result.mean >= self.best:
                self.best = result.mean
                self._save_weights(self.folder / "best" / "weights.safetensors", result)
        interval = bootstrap_interval(result.returns, np.mean, resamples=1_000)
        scalars = {
            "eval/mean_reward": result.mean,
            "eval/mean_reward_lower": float(interval.low),
            "eval/mean_reward_upper": float(interval.high),
            "eval/mean_ep_length": float(result.lengths.mean()),
        }
        records.write(self.env_steps, scalars)
        self.console.update(self.env_steps, scalars, None)
        return result

    # Saving and restoring -------------------------------------------------------------------------

    @property
    def _state(self) -> dict[str, Any]:
        """Every variable that a checkpoint holds, by path."""
        return {v.path: v for v in [*self.learner.variables, *self.loop.variables]}

    def _save(self, keep: checkpoints.Checkpoints) -> None:
        metadata = {
            "iteration": self.iteration,
            "attempt": self.attempt,
            "best": self.best if np.isfinite(self.best) else None,
            "window": [list(each) for each in self.window.iterations],
        }
        tensors = {path: v.numpy() for path, v in self._state.items()}
        keep.save(self.env_steps, tensors | {"probe": self._inspected().probe}, metadata)

    def _restore(self, keep: checkpoints.Checkpoints) -> bool:
        """Takes over the newest readable checkpoint; False if there is none yet."""
        state = self._state
        expect = {path: (tuple(v.shape), v.dtype) for path, v in state.items()}
        expect["probe"] = self.loop.probe_spec
        found = keep.load_latest(expect, on_damaged=self.console.message)
        if found is None:
            return False
        _, tensors, metadata = found
        for path, variable in state.items():
            variable.assign(tensors[path])
        self._probe = tensors["probe"]
        self.iteration = metadata["iteration"]
        self.attempt = metadata["attempt"]
        self.best = -float("inf") if metadata["best"] is None else metadata["best"]
        self.window = EpisodeWindow()
        for count, total_return, total_length in metadata["window"]:
            self.window.add(Episodes(count, total_return, total_length))
        return True

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
        """Lets the first SIGINT or SIGTERM end the run after the present call; a second one at once."""

        def handle(number, frame):
            if self._signal is not None:
                raise SystemExit(128 + number)
            self._signal = number
            self.console.message("stopping; the weights will be saved (a second signal stops at once)")

        previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class _Rate:
    """Environment steps per second over about the last second of training, evaluations not counted."""

    def __init__(self) -> None:
        self.value: float | None = None
        self._since: float | None = None  # unset: the first call would measure the compilation
        self._steps = 0

    def tick(self, env_steps: int) -> None:
        """Counts steps that have just been made."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            return
        self._steps += env_steps
        if self.value is None or now - self._since > 1.0:
            self.value = self._steps / max(now - self._since, 1e-9)
            self._since, self._steps = now, 0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out the time of a `with` block."""
        started = time.monotonic()
        yield
        if self._since is not None:
            self._since += time.monotonic() - started


def acting(assembly: Assembly) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the policy of the weights that the networks hold now: observations to parameters."""
    policy = assembly.networks.policy
    if NumpyPolicy.supports(policy):
        return NumpyPolicy(policy)
    return lambda observations: policy(tf.constant(observations)).numpy()


def _iterations(steps: int, steps_per_iteration: int) -> int:
    """Turns a distance in environment steps into iterations; 0 stays 0."""
    return max(1, round(steps / steps_per_iteration)) if steps else 0
