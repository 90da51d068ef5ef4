"""The console display of a run: a table of few rows, and one live bar on a terminal."""

import math
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import IO, Any

from rich.console import Console as Terminal
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

COLUMNS: dict[str, tuple[str, int]] = {
    "return": ("rollout/ep_rew_mean", 8),
    "length": ("rollout/ep_len_mean", 8),
    "success": ("rollout/success_rate", 8),
    "entropy": ("train/entropy_loss", 9),
    "kl": ("train/approx_kl", 9),
    "expl.var": ("train/explained_variance", 9),
    "at bound": ("/saturated", 9),
    "noise": ("/stddev", 8),
    "steps/s": ("time/fps", 9),
}
"""Columns: the tag, or end of tags, that each shows, and its width. A column appears with its first value."""

INFO = "rollout/info/"
"""With which the tags begin of what environments tell; they have columns of their own."""

LINES = 24
"""About how many rows a whole run prints; half as many evaluations, and as many warnings at most."""

LABEL = 13
"""Width of the labels in the lines of `start` and `summary`."""


class Console:
    """Shows a run.

    On a terminal: rows of a table, and below them a bar with steps, return, rate and remaining time.
    Elsewhere: the same rows as plain lines. Quiet: messages, warnings and the summary only.

    Args:
        total_steps: Environment steps of the whole run.
        quiet: Whether to show no progress.
        file: The file to write to; None: standard output.
        infos: Tags of what the environment tells that are shown; empty: the first two that come.
        **options: Arguments of `rich.console.Console`.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        quiet: bool = False,
        file: IO[str] | None = None,
        infos: Sequence[str] = (),
        **options: Any,
    ):
        self._terminal = Terminal(file=file or sys.stdout, highlight=False, **options)
        self._total = total_steps
        self._width = max(10, len(f"{total_steps:,}"))
        self._quiet = quiet
        self._shown: dict[str, float] = {}
        self._infos = list(infos)
        self._columns: list[str] = []
        self._due = dict.fromkeys(("row", "evaluation", "warning"), 0)
        self._skipped = 0
        self._reason = ""
        self._progress: Progress | None = None
        self._task: Any = None

    def start(self, header: Sequence[str]) -> None:
        """Shows the header of a run and starts its progress bar.

        Args:
            header: Lines that begin with a label, padded to LABEL characters.
        """
        if self._quiet:
            return
        for line in header:
            self._labeled(line)
        self._terminal.print()
        if self._terminal.is_terminal:
            self._progress = Progress(
                BarColumn(bar_width=None, complete_style="cyan", finished_style="cyan"),
                TextColumn("{task.percentage:>3.0f}%"),
                *(TextColumn(f"{{task.fields[{name}]}}") for name in ("steps", "episodes", "rate", "left")),
                console=self._terminal,
                expand=True,
                transient=True,
                refresh_per_second=4,
            )
            fields = {"steps": f"0/{self._total:,}", "episodes": "", "rate": "compiling", "left": ""}
            self._task = self._progress.add_task("", total=self._total, **fields)
            self._progress.start()

    def update(self, step: int, scalars: Mapping[str, float], rate: float | None) -> None:
        """Takes a row of scalars, and shows it if a row is due.

        Args:
            step: Environment steps so far.
            scalars: By tag.
            rate: Environment steps per second, if they are known.
        """
        self._skipped += int(scalars.get("update/skipped", 0))
        if self._skipped and self._is_due("warning", step, LINES):
            self._warn(step)
        if self._quiet:
            return
        for column, (end, _) in COLUMNS.items():
            values = [value for tag, value in scalars.items() if tag.endswith(end)]
            if values:
                self._shown[column] = -values[0] if column == "entropy" else max(values)
        told = [tag for tag in scalars if tag.startswith(INFO)]
        self._infos = self._infos or told[:2]
        for tag in told:
            if tag in self._infos:
                self._shown[tag] = scalars[tag]
        if rate is not None:
            self._shown["steps/s"] = float(f"{rate:.3g}")  # more digits would be noise
        self._move_bar(step)
        if "eval/mean_reward" in scalars:
            if step >= self._total or self._is_due("evaluation", step, LINES // 2):
                self._evaluation(step, scalars)
        elif self._is_due("row", step, LINES):
            self._row(step)

    def note_reason(self, reason: str) -> None:
        """Remembers why updates are skipped; the next warning shows the first reason since the last one."""
        self._reason = self._reason or reason

    def message(self, text: str) -> None:
        """Shows one line about something that happened."""
        self._line(text)

    def summary(self, facts: Mapping[str, str]) -> None:
        """Shows how the run ended: one fact a line."""
        self.close()
        if self._skipped:
            self._warn(self._total)
        if not self._quiet:
            self._terminal.print()
        for name, value in facts.items():
            self._labeled(f"{name:<{LABEL - 1}} {value}", "bold" if name == "reached" else "")

    def close(self) -> None:
        """Removes the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _is_due(self, what: str, step: int, times: int) -> bool:
        """Whether to show something that is shown so many times in a run, and not more often."""
        if step < self._due[what]:
            return False
        self._due[what] = step + self._total // times
        return True

    def _row(self, step: int) -> None:
        columns = [column for column in (*COLUMNS, *self._infos) if column in self._shown]
        titles = [column.removeprefix(INFO) for column in columns]
        widths = [self._width]
        widths += [
            COLUMNS[c][1] - 1 if c in COLUMNS else max(7, len(t))
            for c, t in zip(columns, titles, strict=True)
        ]
        if columns != self._columns:
            self._columns = columns
            self._line(" ".join(map(str.rjust, ["steps", *titles], widths)), "bold")
        cells = [f"{step:,}", *(number(self._shown[column]) for column in columns)]
        self._line(" ".join(map(str.rjust, cells, widths)))

    def _evaluation(self, step: int, scalars: Mapping[str, float]) -> None:
        text = f"{step:>{self._width},}  evaluation: {scalars['eval/mean_reward']:.1f}"
        if "eval/mean_reward_lower" in scalars:
            low, high = scalars["eval/mean_reward_lower"], scalars["eval/mean_reward_upper"]
            text += f" [{low:.1f}, {high:.1f}]"
        if "eval/success_rate" in scalars:
            text += f", success {scalars['eval/success_rate']:.0%}"
        self._line(text, "green")

    def _warn(self, step: int) -> None:
        what = "1 update was" if self._skipped == 1 else f"{self._skipped:,} updates were"
        why = f": {self._reason}" if self._reason else ""
        self._line(f"{step:>{self._width},}  {what} not finite and skipped{why}", "yellow")
        self._skipped, self._reason = 0, ""

    def _move_bar(self, step: int) -> None:
        if self._progress is None:
            return
        rate = self._shown.get("steps/s")
        left = math.ceil(max(0, self._total - step) / rate) if rate else None
        self._progress.update(
            self._task,
            completed=min(step, self._total),
            steps=f"{step:,}/{self._total:,}",
            episodes=f"return {number(self._shown.get('return'))}",
            rate=f"{number(rate)} steps/s" if rate else "",
            left="" if left is None else f"{timedelta(seconds=left)} left",
        )

    def _line(self, text: str, style: str = "") -> None:
        self._terminal.print(text, style=style, soft_wrap=True, markup=False)

    def _labeled(self, line: str, style: str = "") -> None:
        self._terminal.print(Text.assemble((line[:LABEL], "dim"), (line[LABEL:], style)), soft_wrap=True)


def number(value: float | None) -> str:
    """Returns a number for display: three significant digits, thousands separated; "-" for none."""
    if value is None or value != value:
        return "-"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    if abs(value) < 0.001:
        return f"{value:.1e}" if value else "0"
    return f"{value:#.3g}".rstrip(".")
