"""A small study, and trials that take no time: what a process would train is written at once."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from rlweights.experiments import study
from rlweights.experiments.workers import Ended, Trial
from rlweights.running.recipe import Recipe

STUDY = """\
question = "Is a small discount better?"
agent = "cartpole_plain"
seeds = [3, 4, 5]
baseline = "plain"
set = { "budget.total_timesteps" = 4096, "evaluation.film_frames" = 0 }

[[measures]]
title = "return"
tag = "rollout/ep_rew_mean"
after = 0.5

[[measures]]
title = "steps until 200"
tag = "rollout/ep_rew_mean"
take = "first_step_at_least"
threshold = 200.0
lower_is_better = true

[arms.plain]

[arms.small]
set = { "algorithm.gamma" = 0.9 }

[arms.clipped]
rules = [{ rule = "clipping", bound = 3.0 }]
"""


def study_file(folder: Path, *changes: tuple[str, str], name: str = "discount") -> Path:
    """Writes STUDY, with some of its text replaced."""
    text = STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


class Killed(BaseException):
    """The process is no more."""


class Pretended:
    """In the place of `Processes`: trials that are records at once, or fail, or are killed.

    Args:
        fails: Trials that end with code 3, by name.
        dies_after: Trials after which this process is killed; None: it lives on.
    """

    def __init__(self, fails: tuple[str, ...] = (), dies_after: int | None = None):
        self.fails, self.dies_after = fails, dies_after
        self.trained: list[str] = []
        self.stopped = False

    def __call__(self, at_once: int) -> "Pretended":
        return self

    def train(self, trials: list[Trial]) -> Iterator[Ended]:
        """Yields how each trial ended."""
        for trial in trials:
            if trial.name in self.fails:
                yield Ended(trial, 3, error="not finite at step 12")
                continue
            self.trained.append(trial.name)
            assert trial.folder is not None
            write_records(trial)
            if self.dies_after is not None and len(self.trained) > self.dies_after:
                raise Killed
            yield Ended(trial, 0, {"seconds": 1.5, "env_steps": 4096})

    @contextlib.contextmanager
    def instead(self) -> Iterator["Pretended"]:
        """For the time of a `with` block, trials are pretended."""
        with mock.patch.object(study, "Processes", self):
            yield self


def write_records(trial: Trial) -> None:
    """Writes the records of a trial: a function of what it trains, and of its seed."""
    assert trial.folder is not None
    agent = Recipe(trial.agent, trial.overrides).agent
    key = f"{agent.algorithm.gamma}, {len(agent.interventions)}, {agent.seed}"
    level = int(hashlib.sha256(key.encode()).hexdigest()[:4], 16) / 256
    trial.folder.mkdir(parents=True, exist_ok=True)
    rows = ["env_steps,rollout/ep_rew_mean,eval/mean_reward"]
    for i in range(1, 9):
        rows.append(f"{512 * i},{level + 20 * i},{'' if i < 8 else level}")
    (trial.folder / "progress.csv").write_text("\n".join(rows) + "\n")


def files_of(folder: Path) -> dict[str, Any]:
    """What a study has written, but for times."""
    return {n: (folder / n).read_bytes() for n in ("table.md", "results.csv", "curves.csv")}


def finished(path: Path, folder: Path, **pretended: Any) -> tuple[int, list[str]]:
    """Runs a study whose trials are pretended; returns its exit code and the trials that were trained."""
    with Pretended(**pretended).instead() as trials:
        code = study.Study(path, folder=folder).run(quiet=True)
    return code, trials.trained
