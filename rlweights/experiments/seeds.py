"""Several seeds of one agent, each in its own process, and one summary of them."""

import contextlib
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlweights.backend import cores
from rlweights.errors import guarded
from rlweights.experiments.workers import Ended, Processes, Trial
from rlweights.learning.intervals import bootstrap_interval
from rlweights.running.config.schema import Agent
from rlweights.running.recipe import Recipe
from rlweights.running.records.console import LABEL, Console
from rlweights.running.records.tensorboard_server import watched


def train_seeds(
    agent: str | None,
    env: str | None,
    overrides: Sequence[str],
    runs: Path,
    quiet: bool,
    watch: bool,
    count: int,
    start: Path | None = None,
    start_optimizer: bool = False,
    device: str | None = None,
) -> int:
    """Trains `count` seeds, from the configured one on; as many at once as there are cores.

    Each seed is a separate run, equal to the one that `--seed` gives.

    Args:
        agent: See `rlweights.running.recipe.Recipe`.
        env: See `Recipe`.
        overrides: Settings that differ, as "key=value".
        runs: Folder of all runs.
        quiet: Whether to show no progress.
        watch: Whether to start TensorBoard beside the training, and show its address.
        count: Number of seeds.
        start: See `Recipe`.
        start_optimizer: See `Recipe`.
        device: See `rlweights.backend.configure`.

    Returns:
        The exit code of the process: 0, or that of the first seed that did not come to its end.
    """

    def session() -> int:
        recipe = Recipe(agent, overrides, env=env, start=start, start_optimizer=start_optimizer)
        configuration, name = recipe.agent, recipe.name
        seeds = range(configuration.seed, configuration.seed + count)
        recipe.changed({"seed": seeds[-1]})  # there may be no such seed
        at_once = min(count, cores())
        steps = configuration.total_iterations * configuration.steps_per_iteration
        console = Console(count * steps, quiet=quiet, waiting="starting")
        section = configuration.environment
        console.start(
            [
                f"agent        {name}, seeds {seeds[0]} to {seeds[-1]}, {at_once} at once",
                f"environment  {section.id} ({section.backend}), {steps:,} steps for each seed",
                f"runs         {runs / name}",
            ]
        )
        with watched(runs, console.message) if watch else contextlib.nullcontext():
            processes = Processes(at_once, _Together(console))
            ended = []
            begins = None if start is None else str(start)
            trials = [
                Trial(
                    f"seed {seed}",
                    agent,
                    env,
                    (*overrides, f"seed={seed}"),
                    runs,
                    start=begins,
                    start_optimizer=start_optimizer,
                    device=device,
                )
                for seed in seeds
            ]
            for each in processes.train(trials):
                ended.append(each)
                if not quiet:
                    console.message(_line(each))
            ended.sort(key=lambda each: trials.index(each.trial))
            console.summary(_summary(configuration, ended, runs / name, table=quiet))
        for error in dict.fromkeys(each.error for each in ended if each.error):
            print(f"error: {error}", file=sys.stderr)
        codes = [each.code for each in ended if each.code]
        return codes[0] if codes else 0

    return guarded(session)


class _Together:
    """Shows at one bar how far all seeds are: the sums of steps and rates, and the mean of returns."""

    def __init__(self, console: Console):
        self._console = console
        self._seeds: dict[str, tuple[int, float | None, float | None]] = {}
        self._lock = threading.Lock()

    def __call__(self, trial: Trial, env_steps: int, value: float | None, rate: float | None) -> None:
        with self._lock:
            self._seeds[trial.name] = env_steps, value, rate
            steps, values, rates = zip(*self._seeds.values(), strict=True)
            known = [each for each in values if each is not None]
            mean = sum(known) / len(known) if known else None
            self._console.move(sum(steps), mean, sum(each or 0.0 for each in rates) or None)


def _line(each: Ended) -> str:
    return f"{each.trial.name:<13}{_result(each):<31}{each.facts.get('run', '')}".rstrip()


def _result(each: Ended) -> str:
    if each.mean is None and not each.code:
        return f"trained, not evaluated {each.facts['seconds']:8.1f} s"
    if each.mean is None:
        return "stopped" if each.code > 128 else "failed"
    return f"{each.mean:8.1f} +- {each.facts['std']:<8.1f}{each.facts['seconds']:8.1f} s"


def _summary(agent: Agent, ended: Sequence[Ended], folder: Path, table: bool) -> dict[str, str]:
    """The mean over the seeds with its interval; and a line for each, where that is all that is shown."""
    facts = {each.trial.name: _line(each)[LABEL:] for each in ended} if table else {}
    means = [each.mean for each in ended if each.mean is not None]
    if means:
        interval = bootstrap_interval(means, np.mean)
        facts["mean"] = (
            f"{interval.estimate:8.1f} [{interval.low:.1f}, {interval.high:.1f}], "
            f"95 % interval over {len(means)} seed{'s' if len(means) > 1 else ''}"
        )
    if agent.expect is not None:
        facts["expected"] = f"{agent.expect.mean_reward:8.1f}"
    facts["compare"] = f"rlweights compare {folder}"
    return facts
