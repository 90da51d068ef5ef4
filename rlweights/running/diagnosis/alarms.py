"""Alarms while training: a line when a run begins to show a symptom, at most one for each and stretch."""

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlweights.errors import RecordsError
from rlweights.running import files
from rlweights.running.config.schema import Agent
from rlweights.running.diagnosis.judgement import is_final, shown
from rlweights.running.diagnosis.record import RunRecord, ScalarSeries, read_table
from rlweights.running.records.csv_file import CsvFile
from rlweights.running.records.records import Records

LOOKS = 25
"""How often a whole run is judged: that costs some milliseconds each time."""

_COLUMNS = ("env_steps", "symptom", "state", "since", "text")


class Alarms:
    """Judges a run while it is trained, and writes `alarms.csv`.

    What it knows is what `progress.csv` and `alarms.csv` hold, so a resumed run gives the same alarms.

    Args:
        folder: The run folder.
        agent: What is trained.
        step: The step from which the run goes on; what the files hold beyond it is forgotten.
        say: Shows a line.
    """

    NAME = "alarms.csv"

    def __init__(self, folder: Path, agent: Agent, step: int, say: Callable[[str], Any]):
        self._agent = agent
        self._say = say
        self._path = folder / self.NAME
        self._progress = folder / CsvFile.NAME
        self._columns: dict[str, tuple[list[int], list[float]]] = {}
        self._lines: list[tuple[str, ...]] = []
        self._active: set[str] = set()
        self._next = 0
        self.rewind(step)

    def rewind(self, step: int) -> None:
        """Forgets what lies beyond a step."""
        table = read_table(_text(self._progress))
        self._columns = {
            tag: ([s for s in series.steps.tolist() if s <= step], series.values.tolist())
            for tag, series in table.items()
        }
        for steps, values in self._columns.values():
            del values[len(steps) :]
        rows = list(csv.reader(io.StringIO(_text(self._path))))[1:]
        self._lines = [tuple(row) for row in rows if len(row) == len(_COLUMNS) and int(row[0]) <= step]
        self._active = set()
        for _, symptom, state, *_ in self._lines:
            (self._active.add if state == "begun" else self._active.discard)(symptom)
        if self._path.exists():
            self._write()
        self._next = self._look_after(step)

    def _look_after(self, step: int) -> int:
        """The step of the look that follows: looks stand at fixed steps, whenever a run was interrupted."""
        distance = max(1, self._agent.total_iterations * self._agent.steps_per_iteration // LOOKS)
        return (step // distance + 1) * distance

    def add(self, step: int, scalars: Mapping[str, float], records: Records) -> None:
        """Takes a row of scalars; if it is time to judge the run, says which symptoms have begun.

        Args:
            step: Environment steps so far.
            scalars: By tag.
            records: Where the lines become a text, too.

        Raises:
            RecordsError: If the file cannot be written.
        """
        if not self._agent.logging.alarms:
            return
        for tag, value in scalars.items():
            if value == value and not tag.startswith("time/"):
                steps, values = self._columns.setdefault(tag, ([], []))
                if steps and steps[-1] == step:
                    values[-1] = value
                else:
                    steps.append(step)
                    values.append(value)
        if step < self._next:
            return
        self._next = self._look_after(step)
        run = RunRecord(self._agent, self._table())
        found = {symptom.name: (symptom, sign) for symptom, sign in shown(run)[0] if symptom.kind != "note"}
        fresh = {name: each for name, each in found.items() if name not in self._active}
        begun = {name: (sign.since, symptom.told(sign)) for name, (symptom, sign) in fresh.items()}
        ended = sorted(self._active - found.keys())
        if begun or ended:
            self._lines += [
                *((str(step), name, "begun", str(since), text) for name, (since, text) in begun.items()),
                *((str(step), name, "ended", "", "") for name in ended),
            ]
            self._write()
        self._active = set(found)
        word = "alarm" if is_final(run.used) else "note"
        lines = [f"{word}: {text} ({name})" for name, (_, text) in begun.items()]
        if lines:
            records.text(step, "alarms", "\n".join(f"* {line}" for line in lines))
        for line in lines:
            self._say(f"{step:>10,}  {line}")

    def _table(self) -> dict[str, ScalarSeries]:
        return {
            tag: ScalarSeries(np.array(steps), np.array(values))
            for tag, (steps, values) in self._columns.items()
        }

    def _write(self) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *self._lines])
        try:
            files.write(self._path, text.getvalue().encode())
        except OSError as error:
            raise RecordsError(f"{self._path}: cannot be written: {error.strerror or error}") from error


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
