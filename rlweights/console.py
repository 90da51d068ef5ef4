"""What a person sees while an agent trains: a calm table, and one live bar on a terminal."""

import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any

from rich.console import Console as Terminal
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

COLUMNS: dict[str, tuple[str, ...]] = {
    "return": ("rollout/ep_rew_mean",),
    "entropy": ("train/entropy_loss",),
    "kl": ("train/approx_kl",),
    "expl.var": ("train/explained_variance",),
    "at bound": ("/saturated",),
    "noise": ("/stddev",),
}
"""Columns and the tags (or ends of tags) that they show."""

LINES = 24
"""About how many lines a whole run prints."""


class Console:
    """Shows a run.

    On a terminal: rows of a table, and below them a bar with steps, return, rate and remaining time.
    Elsewhere: the same rows as plain lines. Quiet: messages and the summary only.

    Args:
        total_steps: Environment steps of the whole run.
        quiet: Whether to show no progress.
        file: Where to; standard output if None.
    """

    def __init__(self, total_steps: int, *, quiet: bool = False, file: IO[str] | None = None, **options: Any):
        self._terminal = Terminal(file=file or sys.stdout, highlight=False, **options)
        self._total = total_steps
        self._quiet = quiet
        self._shown: dict[str, float] = {}
        self._columns: list[str] = []
        self._next = 0
        self._progress: Progress | None = None
        self._task: Any = None

    def start(self, header: Sequence[str]) -> None:
        """Shows what is about to run."""
        if self._quiet:
            return
        for line in header:
            self._terminal.print(line, soft_wrap=True, markup=False)
        self._terminal.print()
        if self._terminal.is_terminal:
            self._progress = Progress(
                BarColumn(bar_width=30),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[steps]} steps"),
                TextColumn("return {task.fields[episode_return]}"),
                TextColumn("{task.fields[rate]} steps/s"),
                TimeRemainingColumn(),
                console=self._terminal,
                transient=True,
            )
            self._task = self._progress.add_task(
                "", total=self._total, steps="0", episode_return="-", rate="compiling,"
            )
            self._progress.start()

    def update(self, step: int, scalars: Mapping[str, float], rate: float | None) -> None:
        """Takes a row of scalars, and shows it if it is time to.

        Args:
            step: Environment steps so far.
            scalars: By tag.
            rate: Environment steps per second, if they are known.
        """
        if self._quiet:
            return
        for column, ends in COLUMNS.items():
            values = [v for tag, v in scalars.items() if tag.endswith(ends)]
            if values:
                value = -values[0] if column == "entropy" else max(values)
                self._shown[column] = value
        if rate is not None:
            self._shown["steps/s"] = rate
        if self._progress is not None:
            self._progress.update(
                self._task,
                completed=min(step, self._total),
                steps=f"{step:,}",
                episode_return=number(self._shown.get("return")),
                rate=number(self._shown.get("steps/s")),
            )
        if scalars.get("update/skipped"):
            self.message(f"{step:>10,}  {scalars['update/skipped']:.0f} updates were not finite and skipped")
        if "eval/mean_reward" in scalars:
            self._terminal.print(f"{step:>10,}  evaluation: {scalars['eval/mean_reward']:.1f}", style="green")
        elif step >= self._next:
            self._row(step)
            self._next = step + self._total // LINES

    def _row(self, step: int) -> None:
        wanted = [c for c in (*COLUMNS, "steps/s") if c in self._shown or c in self._columns]
        if wanted != self._columns:
            self._columns = wanted
            heading = "".join(f"{name:>10}" for name in ("steps", *wanted))
            self._terminal.print(heading, style="bold", soft_wrap=True)
        cells = [f"{step:,}", *(number(self._shown.get(c)) for c in wanted)]
        self._terminal.print("".join(f"{cell:>10}" for cell in cells), soft_wrap=True)

    def message(self, text: str) -> None:
        """Shows one line about something that happened."""
        self._terminal.print(text, soft_wrap=True, markup=False)

    def summary(self, facts: Mapping[str, str]) -> None:
        """Shows how it ended: one fact a line."""
        self.close()
        if not self._quiet:
            self._terminal.print()
        for name, value in facts.items():
            self._terminal.print(f"{name:<12} {value}", soft_wrap=True, markup=False)

    def close(self) -> None:
        """Takes the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def number(value: float | None) -> str:
    """A number for people: three significant digits, thousands separated; "-" for none."""
    if value is None or value != value:
        return "-"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.3g}"
