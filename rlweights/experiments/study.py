"""Studies: what is missing of their arms and seeds is trained; a table and a picture say what came of it."""

import os
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from rlweights.backend import cores, processor
from rlweights.errors import ConfigError
from rlweights.experiments import tables
from rlweights.experiments.curves import Curve, plot
from rlweights.experiments.results import POINTS, Key, Results, read_trial
from rlweights.experiments.study_file import RESULTS, Plan, chosen_arms
from rlweights.experiments.workers import Ended, Processes
from rlweights.learning.intervals import bootstrap_interval
from rlweights.running import files
from rlweights.running.records.console import Console

TABLE, PICTURE = "table.md", "curves.png"


class Study:
    """A study: what it asks, what of it is finished, and how the rest is trained.

    Killed at any moment and started again it goes on: finished trials are never repeated, begun ones go on
    from their checkpoints, and it ends with the same table, to the byte.

    Args:
        study: Name of a shipped study, or a study file.
        scale: Factor of its length, for a try: 0.1 makes it about ten times as short.
        first_seed: As many seeds from this one on instead of its own: a rerun that asks whether it holds.
        folder: Where its run folders go; left out: `runs/studies/<name>`.
        results: Where its results go; left out: that folder. Rows that lie there count as finished, and so do
            those that are committed in a checkout (`docs/studies/<name>`).

    Attributes:
        plan: The validated study.
        results: The finished trials.

    Raises:
        ConfigError: If the study cannot be run; nothing is written then.

    Examples:
        >>> study = Study("far_end_of_the_chain", scale=0.1)
        >>> study.plan.file.baseline
        'plain'
    """

    def __init__(
        self,
        study: str | Path,
        *,
        scale: float = 1.0,
        first_seed: int | None = None,
        folder: str | Path | None = None,
        results: str | Path | None = None,
    ):
        self.plan = Plan(study, scale, first_seed)
        self.folder = Path("runs") / "studies" / self.plan.name if folder is None else Path(folder)
        chosen = self.folder if results is None else Path(results)
        committed = RESULTS / self.plan.name
        known = [committed] if committed.is_dir() and committed.resolve() != chosen.resolve() else []
        self.results = Results(self.plan, chosen, known)
        self.failed: dict[str, str] = {}
        """Trials that came to no end, and why."""

    def missing(self, arms: Sequence[str] = (), seeds: int | None = None) -> list[Key]:
        """Returns arms and seeds that are not finished: the first seed of all arms, then the second.

        Args:
            arms: Which arms; none: all.
            seeds: How many of the study's seeds; None: all.

        Raises:
            ConfigError: If one is no arm, or there are not so many seeds.
        """
        names, known = chosen_arms(self.plan, [*arms]), self.plan.file.seeds
        if seeds is not None and not 1 <= seeds <= len(known):
            raise ConfigError(f"{self.plan.path}: --seeds {seeds}: the study has {len(known)} seeds")
        return [
            (arm, seed) for seed in known[:seeds] for arm in names if (arm, seed) not in self.results.rows
        ]

    def run(
        self,
        arms: Sequence[str] = (),
        seeds: int | None = None,
        *,
        workers: int | None = None,
        quiet: bool = False,
    ) -> int:
        """Trains what is missing, in processes side by side, and writes table and picture.

        Args:
            arms: Which arms; none: all.
            seeds: How many of the study's seeds; None: all.
            workers: How many trials at once, each on one thread; None: as many as there are cores.
            quiet: Whether to show no progress.

        Returns:
            The exit code of the process: 0, or that of the first trial that did not come to its end.

        Raises:
            ConfigError: If an argument does not fit, or a file cannot be written.
        """
        missing = self.missing(arms, seeds)
        for arm in dict.fromkeys(arm for arm, _ in missing):
            self.plan.check(arm)
        at_once = max(1, min(workers or cores(), len(missing) or 1))
        console = Console(len(missing), quiet=quiet, waiting="training", unit=" trials")
        finished = len(self.results.rows)
        console.start(
            [
                f"study        {self.plan.name}: {self.plan.file.question}",
                f"trials       {len(missing)} to train, {finished} finished, {at_once} at once",
                f"folder       {self.folder}",
            ]
        )
        processes, began, codes = Processes(at_once), time.monotonic(), []
        trials = {self.plan.trial(*key, self.folder).name: key for key in missing}
        made = [self.plan.trial(*key, self.folder) for key in missing]
        for number, ended in enumerate(processes.train(made), 1):
            codes.append(self._take(trials[ended.trial.name], ended))
            if not processes.stopped:
                left = (time.monotonic() - began) / number * (len(missing) - number)
                console.move(number, None, None)
                console.message(f"{number:>4}/{len(missing)}  {self._line(ended)}{_left(left)}")
        self.write()
        console.summary(self._summary())
        return next((code for code in codes if code), 0)

    def show(self, quiet: bool = False) -> None:
        """Trains nothing: writes table and picture of what is finished, and shows the summary."""
        self.write()
        Console(0, quiet=quiet).summary(self._summary())

    def write(self) -> None:
        """Writes the results, the table, and the picture if matplotlib (the extra `plot`) is installed."""
        self.results.write()
        table = tables.markdown(self.results, self.command)
        try:
            files.write(self.results.folder / TABLE, table.encode())
        except OSError as error:
            raise ConfigError(f"{self.results.folder / TABLE}: cannot be written: {error.strerror}") from None
        curves = self.curves()
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            return
        if curves:
            plot(curves, self.plan.file.curve, self.results.folder / PICTURE)

    @property
    def command(self) -> str:
        """What trains the study."""
        scale = "" if self.plan.scale == 1.0 else f" --scale {self.plan.scale:g}"
        seeds = "" if self.plan.first_seed is None else f" --first-seed {self.plan.first_seed}"
        return f"python -m rlweights.study {self.plan.path.stem}{scale}{seeds}"

    def curves(self) -> list[Curve]:
        """Returns the curve of each arm of the picture: interquartile means over the finished seeds."""
        curves, file = [], self.plan.file
        for arm in file.picture or file.arms:
            rows = [self.results.rows[arm, s] for s in file.seeds if (arm, s) in self.results.rows]
            rows = [row for row in rows if row.curve]
            if not rows:
                continue
            steps = np.linspace(0, rows[0].env_steps, POINTS + 1)[1:]
            values = bootstrap_interval([row.curve for row in rows], resamples=2_000)
            curves.append(Curve(arm, len(rows), steps, values))
        return curves

    def _take(self, key: Key, ended: Ended) -> int:
        """Takes over how a trial ended; returns its exit code."""
        if ended.code == 0:
            folder = ended.trial.folder
            assert folder is not None
            try:
                row = read_trial(self.plan, folder)
            except ConfigError as error:
                self.failed[ended.trial.name] = str(error)
                return error.exit_code
            self.results.add(*key, row, ended.facts["seconds"], _machine())
        elif ended.code <= 128:
            self.failed[ended.trial.name] = ended.error or f"ended with code {ended.code}"
        return ended.code

    def _line(self, ended: Ended) -> str:
        if ended.code or ended.trial.name in self.failed:
            return f"{ended.trial.name:<32}{self.failed.get(ended.trial.name, 'stopped')}"
        arm, _, seed = ended.trial.name.rpartition(", seed ")
        value = self.results.rows[arm, int(seed)].values[0]
        return f"{ended.trial.name:<32}{value:10,.1f}{ended.facts['seconds']:9.1f} s"

    def _summary(self) -> dict[str, str]:
        facts = {}
        for each in tables.compare(self.results):
            if each.mean is not None:
                mean = f"{each.mean.estimate:10,.2f} [{each.mean.low:,.2f}, {each.mean.high:,.2f}]"
                facts[each.arm] = f"{mean:<36}{len(each.scores)} seeds  {each.verdict}"
        facts |= {f"failed: {name}": why for name, why in self.failed.items()}
        facts["table"] = str(self.results.folder / TABLE)
        return facts


def _left(seconds: float) -> str:
    if seconds <= 0:
        return ""
    minutes = seconds / 60
    return f"   about {minutes / 60:.1f} h left" if minutes > 90 else f"   about {minutes:.0f} min left"


def _machine() -> str:
    """What trained, in a few words."""
    return f"{processor()}, {os.cpu_count()} cores, TensorFlow {version('tensorflow')}"
