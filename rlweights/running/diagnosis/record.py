"""What a run has recorded, as the symptoms read it: series by tag, windows, and what became of the return."""

import csv
import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rlweights.errors import ConfigError
from rlweights.running.config.schema import Agent
from rlweights.running.records.csv_file import CsvFile
from rlweights.running.saving import run_folder
from rlweights.weights.arrays import Array

RETURN = "rollout/ep_rew_mean"
FEWEST = 8
"""Rows below which a series is not judged."""


class NotRecorded(LookupError):
    """A scalar that a symptom needs is missing, or has too few rows."""


class ScalarSeries(NamedTuple):
    """One scalar over a run."""

    steps: Array  # [rows] int64, environment steps
    values: Array  # [rows] float64

    @property
    def window(self) -> int:
        """Rows of a window: a tenth of all, at least four."""
        return max(4, math.ceil(len(self.values) / 10))

    @property
    def settled(self) -> "ScalarSeries":
        """The series without its first twentieth, in which everything moves."""
        skipped = max(1, len(self.values) // 20)
        return ScalarSeries(self.steps[skipped:], self.values[skipped:])

    @property
    def first(self) -> float:
        """Median of the first window."""
        return float(np.median(self.values[: self.window]))

    @property
    def last(self) -> float:
        """Median of the last window."""
        return float(np.median(self.values[-self.window :]))

    @property
    def smoothed(self) -> "ScalarSeries":
        """Medians of the window that ends at each row."""
        windows = np.lib.stride_tricks.sliding_window_view(self.values, self.window)
        return ScalarSeries(self.steps[self.window - 1 :], np.median(windows, axis=1))

    @property
    def noise(self) -> float:
        """The deviation of rows around their smoothed course, robust against single ones."""
        smoothed = self.smoothed.values
        rest = np.abs(self.values[-len(smoothed) :] - smoothed)
        return float(1.4826 * np.median(rest))

    def since(self, holds: Array) -> int | None:
        """From which step on a condition has held and still does; None if it does not.

        Args:
            holds: Whether it does, for each row. Within the last window it must hold in three rows of four;
                the stretch goes back as long as at least half of each window does.
        """
        window = min(self.window, len(holds))
        shares = np.convolve(holds.astype(float), np.ones(window), "valid") / window
        if not len(shares) or shares[-1] < 0.75:
            return None
        broken = np.flatnonzero(shares < 0.5)
        start = broken[-1] + 1 if len(broken) else 0
        begun = start + int(np.argmax(holds[start : start + window]))
        return int(self.steps[begun])


@dataclass(frozen=True)
class Harm:
    """What became of the return, where it is nothing good.

    Attributes:
        kind: "fallen", "below_start", "nothing_learnt" or "below_claim".
        since: The step from which on it is so.
        numbers: For the sentence.
    """

    kind: str
    since: int
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class RunRecord:
    """A run, as far as it has come.

    Attributes:
        agent: What is trained.
        table: ScalarSeries by tag.
        name: What messages call the run.
    """

    agent: Agent
    table: Mapping[str, ScalarSeries]
    name: str = ""

    @classmethod
    def of(cls, folder: Path) -> "RunRecord":
        """Reads a run folder.

        Raises:
            ConfigError: If it is no run folder, or holds no rows.
        """
        agent = run_folder.read(folder)
        path = folder / CsvFile.NAME
        try:
            text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        table = read_table(text)
        if not table:
            raise ConfigError(f"{folder}: nothing is recorded yet")
        return cls(agent, table, str(folder))

    @property
    def env_steps(self) -> int:
        """Environment steps so far."""
        return max((int(series.steps[-1]) for series in self.table.values()), default=0)

    @property
    def used(self) -> float:
        """The part of the budget that is used up."""
        total = self.agent.total_iterations * self.agent.steps_per_iteration
        return min(1.0, self.env_steps / max(total, 1))

    @property
    def ended(self) -> bool:
        """Whether the budget is used up."""
        return self.used >= 0.99

    def has(self, tag: str) -> bool:
        """Whether a scalar has been recorded often enough to be judged."""
        return tag in self.table and len(self.table[tag].values) >= FEWEST

    def series(self, tag: str) -> ScalarSeries:
        """Returns one scalar.

        Raises:
            NotRecorded: If it has less than FEWEST rows.
        """
        if not self.has(tag):
            raise NotRecorded(tag)
        return self.table[tag]

    def matching(self, pattern: str, fewest: int = 3) -> dict[str, ScalarSeries]:
        """Returns all scalars whose whole tag matches a regular expression.

        Raises:
            NotRecorded: If none has so many rows.
        """
        found = {
            tag: series
            for tag, series in self.table.items()
            if re.fullmatch(pattern, tag) and len(series.values) >= fewest
        }
        if not found:
            raise NotRecorded(pattern)
        return found

    @property
    def returns(self) -> ScalarSeries | None:
        """What the agent is judged by; None if there are too few rows.

        Where tasks change by phases, that is the return at the end of each: within one it falls and rises.
        """
        tag = "rollout/phase/end_return" if "rollout/phase/number" in self.table else RETURN
        return self.table[tag] if self.has(tag) else None

    @functools.cached_property
    def harm(self) -> Harm | None:
        """What became of the return; None if it is as it should be, or cannot be told yet.

        All is relative: what counts as a difference is more than three deviations of the noise, and more than
        a twentieth of the return at the beginning.
        """
        series = self.returns
        if series is None:
            return None
        smoothed = series.smoothed
        first, last, best = series.first, series.last, float(smoothed.values.max())
        least = max(3.0 * series.noise, 0.05 * abs(first), 1e-9)
        changes = series is not self.table.get(RETURN)
        claim = None if self.agent.expect is None or changes else self.agent.expect.mean_reward
        if claim is not None and max(last, self._evaluated or -math.inf) >= claim:
            return None
        numbers = {"first": first, "last": last, "best": best}
        if best - first > least and best - last > max(least, 0.5 * (best - first)):
            half = 0.5 * (best + first)
            peak = int(smoothed.values.argmax())
            fell = peak + int(np.argmax(smoothed.values[peak:] < max(half, last)))
            return Harm("fallen", int(smoothed.steps[fell]), numbers)
        if first - last > 2.0 * least:
            return Harm("below_start", int(series.steps[0]), numbers)
        if last - first <= least and self.used >= 0.5:
            return Harm("nothing_learnt", int(series.steps[0]), numbers)
        if claim is not None and self.ended and claim - last > 0.1 * abs(claim - first):
            return Harm("below_claim", int(series.steps[0]), numbers | {"claim": claim})
        return None

    @property
    def _evaluated(self) -> float | None:
        found = self.table.get("eval/mean_reward")
        return None if found is None else float(found.values[-1])


def read_table(text: str) -> dict[str, ScalarSeries]:
    """Returns the series of a `progress.csv` by tag; whatever in it is no number is left out."""
    header, *rows = list(csv.reader(text.splitlines())) or [["env_steps"]]
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        if len(row) != len(header) or not row[0].isdecimal():
            continue
        for tag, cell in zip(header[1:], row[1:], strict=True):
            if not cell:
                continue
            try:
                value = float(cell)
            except ValueError:
                continue
            steps, values = found.setdefault(tag, ([], []))
            steps.append(int(row[0]))
            values.append(value)
    return {tag: ScalarSeries(np.array(steps), np.array(values)) for tag, (steps, values) in found.items()}
