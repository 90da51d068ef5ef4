"""What the trials of a study came to: a row of numbers and a curve for each, in files that are committed."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlweights.errors import ConfigError
from rlweights.experiments.study_file import Measure, Plan
from rlweights.running import files
from rlweights.running.records.csv_file import CsvFile

POINTS = 50
"""Points of a curve: enough for a picture, few enough to be committed."""

RESULTS, CURVES, TIMES = "results.csv", "curves.csv", "times.csv"


@dataclass(frozen=True)
class Row:
    """One finished trial.

    Attributes:
        env_steps: Environment steps of the whole run.
        values: What was measured, in the order of the study.
        curve: The study's curve at POINTS equal steps up to the last one; empty where there was none.
    """

    env_steps: int
    values: tuple[float, ...]
    curve: tuple[float, ...]


Key = tuple[str, int]
"""Arm and seed."""


def read_trial(plan: Plan, folder: Path) -> Row:
    """Reads a finished trial from its run folder.

    Raises:
        ConfigError: If its records hold nothing of what the study measures.
    """
    try:
        files.must_be_regular(folder / CsvFile.NAME)
        with (folder / CsvFile.NAME).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ConfigError(f"{folder / CsvFile.NAME}: {error.strerror}") from None
    steps = [int(row["env_steps"]) for row in rows]
    total = steps[-1] if steps else 0

    def series(tag: str) -> tuple[np.ndarray, np.ndarray]:
        found = [(s, float(row[tag])) for s, row in zip(steps, rows, strict=True) if row.get(tag)]
        return np.array([s for s, _ in found], float), np.array([v for _, v in found], float)

    values = []
    for measure in plan.file.measures:
        at, found = series(measure.tag)
        if not found.size:
            raise ConfigError(f"{folder}: its records hold no {measure.tag!r}, which the study measures")
        values.append(_rounded(measured(measure, at, found, total)))
    at, found = series(plan.file.curve)
    grid = np.linspace(0, total, POINTS + 1)[1:]
    curve = np.interp(grid, at, found) if found.size else ()
    return Row(total, tuple(values), tuple(_rounded(each) for each in curve))


def measured(measure: Measure, steps: np.ndarray, values: np.ndarray, total: int) -> float:
    """Returns what a measure makes of the rows of a scalar.

    Args:
        measure: The measure.
        steps: Environment steps of the rows [R].
        values: The scalar [R].
        total: Environment steps of the whole run: the answer of "first_step_at_least" where no row is.
    """
    counted = values[steps > measure.after * total]
    if measure.take == "first_step_at_least":
        reached = steps[(values >= measure.threshold) & (steps > measure.after * total)]
        return float(reached[0]) if reached.size else float(total)
    if not counted.size:
        return math.nan
    if measure.take == "share_at_least":
        return float(np.mean(counted >= measure.threshold))
    if measure.take == "share_below":
        return float(np.mean(counted < measure.threshold))
    return float({"mean": np.mean, "max": np.max, "last": lambda x: x[-1]}[measure.take](counted))


class Results:
    """The finished trials of a study, in a folder of results; every change is on the disk at once.

    Args:
        plan: The study.
        folder: Where the results go; what is there already counts.
        known: More folders of results whose rows count, and which are not written.

    Raises:
        ConfigError: If rows were made by another version of the study.
    """

    def __init__(self, plan: Plan, folder: Path, known: Sequence[Path] = ()):
        self.plan = plan
        self.folder = folder
        self.rows: dict[Key, Row] = {}
        self.times: dict[Key, tuple[float, str]] = {}
        for each in (*known, folder):
            self.rows |= self._read(each)
            self.times |= _read_times(each)

    def add(self, arm: str, seed: int, row: Row, seconds: float, machine: str) -> None:
        """Takes a finished trial, the seconds that its last session took, and on what machine."""
        self.rows[arm, seed] = row
        self.times[arm, seed] = (seconds, machine)
        self.write()

    def write(self) -> None:
        """Writes all rows, curves and times; the same rows give the same bytes.

        Raises:
            ConfigError: If a file cannot be written.
        """
        keys = self._ordered()
        titles = [each.title for each in self.plan.file.measures]
        head = ["arm", "seed", "trial"]
        digests = {key: [*map(str, key), self.plan.digest(key[0])] for key in keys}
        table = [[*digests[k], str(self.rows[k].env_steps), *map(_text, self.rows[k].values)] for k in keys]
        grid = [f"{i / POINTS:g}" for i in range(1, POINTS + 1)]
        curves = [[*digests[k], *map(_text, self.rows[k].curve)] for k in keys if self.rows[k].curve]
        times = [[*map(str, k), f"{self.times[k][0]:.1f}", self.times[k][1]] for k in keys if k in self.times]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, columns, rows in (
                (CURVES, [*head, *grid], curves),
                (TIMES, ["arm", "seed", "seconds", "machine"], times),
                (RESULTS, [*head, "env_steps", *titles], table),  # last: its rows say what is finished
            ):
                files.write(self.folder / name, _csv([columns, *rows]))
        except OSError as error:
            raise ConfigError(f"{self.folder}: cannot be written: {error.strerror}") from None

    def scores(self, arm: str, measure: int) -> dict[int, float]:
        """Returns what was measured of an arm, by seed in the order of the study; finite numbers only."""
        order = [*self.plan.file.seeds]
        found = {seed: self.rows[arm, seed].values[measure] for seed in order if (arm, seed) in self.rows}
        return {seed: value for seed, value in found.items() if math.isfinite(value)}

    def _ordered(self) -> list[Key]:
        arms, seeds = list(self.plan.file.arms), self.plan.file.seeds
        return [(arm, seed) for arm in arms for seed in seeds if (arm, seed) in self.rows]

    def _read(self, folder: Path) -> dict[Key, Row]:
        table, plan = _rows_of(folder / RESULTS), self.plan
        if not table:
            return {}
        curves = {_key(row): row for row in _rows_of(folder / CURVES)}
        rows = {}
        for row in table:
            key = arm, seed = _key(row)
            if arm not in plan.file.arms or seed not in plan.file.seeds:
                raise ConfigError(
                    f"{folder / RESULTS}: holds {arm}, seed {seed}, which {plan.path} does not have any more"
                )
            if row["trial"] != plan.digest(arm):
                raise ConfigError(
                    f"{folder / RESULTS}: {arm}, seed {seed} was trained as {row['trial']}, and by "
                    f"{plan.path} it is {plan.digest(arm)}: the study, or an agent of it, has changed. Undo "
                    f"that, or take the arm's rows away and train it anew"
                )
            curve = curves.get(key)
            if curve is None or curve["trial"] != row["trial"]:
                continue  # without its curve a trial is not finished
            values = tuple(_number(row[each.title]) for each in plan.file.measures)
            points = [v for k, v in curve.items() if k not in ("arm", "seed", "trial") and v]
            rows[key] = Row(int(row["env_steps"]), values, tuple(map(_number, points)))
        return rows


def _key(row: Mapping[str, str]) -> Key:
    return row["arm"], int(row["seed"])


def _rows_of(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def _read_times(folder: Path) -> dict[Key, tuple[float, str]]:
    return {_key(row): (float(row["seconds"]), row["machine"]) for row in _rows_of(folder / TIMES)}


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _rounded(value: float) -> float:
    """Six digits: what is read back is what was computed with, and files stay small."""
    return float(f"{value:.6g}")


def _text(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _number(text: str) -> float:
    return float(text) if text else math.nan
