"""The console display of a run: a table of few rows, and one live bar on a terminal."""

import contextlib
import math
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import IO, Any, NamedTuple

from rich.console import Console as Terminal
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from rlweights.running.notebooks import NotebookBar, in_notebook


class Column(NamedTuple):
    """A column of the table.

    Attributes:
        tag: The tag, or end of tags, that it shows.
        width: Its width.
        meaning: What it is, in words; "" where its title says it.
        always: Whether it is there from the first row on; others appear with their first value.
    """

    tag: str
    width: int
    meaning: str = ""
    always: bool = True


COLUMNS = {
    "return": Column("rollout/ep_rew_mean", 8, "mean of the newest 100 episodes, and length"),
    "length": Column("rollout/ep_len_mean", 8),
    "success": Column("rollout/success_rate", 8, "part of the newest 100 episodes", always=False),
    "entropy": Column("train/entropy_loss", 9, "of the policy"),
    "kl": Column("train/approx_kl", 9, "how far an update moved the policy"),
    "expl.var": Column("train/explained_variance", 9, "how well values fit returns, 1 at best"),
    "at bound": Column("/saturated", 9, "part of the clipped weights", always=False),
    "noise": Column("/stddev", 8, "deviation of the parameter noise", always=False),
    "steps/s": Column("time/fps", 9, "of training alone"),
}
"""The columns, by their titles."""

LEAVES_FIRST = ("length", "entropy", "expl.var", "kl", "noise", "at bound", "success")
"""Columns that a narrow terminal does without, the least important first."""

Follow = Callable[[int, float | None, float | None], None]
"""Is told of a run: steps so far, the return, and steps per second; None: not known yet."""

INFO = "rollout/info/"
"""With which the tags begin of what environments tell; they have columns of their own."""

LINES = 24
"""About how many rows a whole run prints; half as many evaluations, and as many warnings at most."""

NARROW = 80
"""Columns of a terminal that everything fits into; what goes into a file is as narrow."""

LABEL = 13
"""Width of the labels in the lines of `start` and `summary`."""


class Lasting:
    """A stream that may go away, as `| head -1` does: what is written then is lost, and nothing fails.

    Args:
        stream: The stream. Once it is gone its descriptor leads nowhere, for what else writes to it.
    """

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes text."""
        self._tried(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Writes what is held back."""
        self._tried(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _tried(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
        except ValueError:
            if not self._stream.closed:
                raise


class Console:
    """Shows a run.

    On a terminal: rows of a table, and below them a bar with steps, return, rate and remaining time. In a
    notebook the bar is one of its own. Elsewhere: the same rows as plain lines. Quiet: messages, warnings and
    the summary only.

    Args:
        total_steps: Environment steps of the whole run.
        quiet: Whether to show no progress.
        file: The file to write to; None: standard output.
        infos: Tags of what the environment tells that are shown; empty: the first two that come.
        follow: Is told how far the run is, quiet or not.
        waiting: What the bar says until there is a rate.
        unit: What is counted, if no environment steps.
        **options: Arguments of `rich.console.Console`.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        quiet: bool = False,
        file: IO[str] | None = None,
        infos: Sequence[str] = (),
        follow: Follow | None = None,
        waiting: str = "compiling",
        unit: str = "",
        **options: Any,
    ):
        # A notebook gets plain lines: rich would make a block of HTML of each.
        options = {"force_jupyter": False} | options
        stream: Any = Lasting(file or sys.stdout)
        self._terminal = Terminal(file=stream, highlight=False, **options)
        self._total = total_steps
        self._width = max(10, len(f"{total_steps:,}"))
        self._quiet = quiet
        self._shown: dict[str, float] = {}
        self._infos = list(infos)
        self._follow = follow
        self._waiting, self._unit = waiting, unit
        self._columns: list[str] = []
        self._due = dict.fromkeys(("row", "evaluation", "warning"), 0)
        self._skipped = self._step = 0
        self._reason = ""
        self._progress: Progress | None = None
        self._notebook: NotebookBar | None = None
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
        if self._total and in_notebook():
            self._notebook = NotebookBar(self._total)
        elif self._terminal.is_terminal and self._total:
            self._progress = Progress(
                BarColumn(bar_width=None, complete_style="cyan", finished_style="cyan"),
                TextColumn("{task.percentage:>3.0f}%"),
                *(TextColumn(f"{{task.fields[{name}]}}") for name in ("steps", "episodes", "rate", "left")),
                console=self._terminal,
                expand=True,
                transient=True,
                refresh_per_second=4,
            )
            steps = f"0/{self._total:,}{self._unit}"
            fields = {"steps": steps, "episodes": "", "rate": self._waiting, "left": ""}
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
        for title, column in COLUMNS.items():
            values = [value for tag, value in scalars.items() if tag.endswith(column.tag)]
            if values:
                self._shown[title] = -values[0] if title == "entropy" else max(values)
        told = [tag for tag in scalars if tag.startswith(INFO)]
        self._infos = self._infos or told[:2]
        for tag in told:
            if tag in self._infos:
                self._shown[tag] = scalars[tag]
        if rate is not None:
            self._shown["steps/s"] = float(f"{rate:.3g}")  # more digits would be noise
        if self._follow is not None:
            self._follow(step, self._shown.get("return"), self._shown.get("steps/s"))
        if self._quiet:
            return
        self._move_bar(step)
        if "eval/mean_reward" in scalars:
            if step >= self._total or self._is_due("evaluation", step, LINES // 2):
                self._evaluation(step, scalars)
        elif self._is_due("row", step, LINES):
            self._row(step)

    def move(self, step: int, value: float | None, rate: float | None) -> None:
        """Moves the bar alone, for what is trained elsewhere: steps so far, return, steps per second."""
        shown = {"return": value, "steps/s": rate}
        self._shown |= {title: each for title, each in shown.items() if each is not None}
        self._move_bar(step)

    def doing(self, what: str) -> None:
        """Says at the bar what takes a while now."""
        if self._progress is not None:
            self._progress.update(self._task, rate=what, left="")
        if self._notebook is not None:
            self._notebook.move(self._step, f"{self._step:,}/{self._total:,}{self._unit}, {what}")

    def note_reason(self, reason: str) -> None:
        """Remembers why updates are skipped; the next warning shows the first reason since the last one."""
        self._reason = self._reason or reason

    def remark(self, text: str) -> None:
        """Shows one line that helps, where progress is shown."""
        if not self._quiet:
            self.message(text)

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
            self._labeled(f"{name:<{LABEL - 1}} {value}", "bold" if name == "reached" else "", whole=True)

    def close(self) -> None:
        """Removes the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        if self._notebook is not None:
            self._notebook.close()
            self._notebook = None

    def _is_due(self, what: str, step: int, times: int) -> bool:
        """Whether to show something that is shown so many times in a run, and not more often."""
        if step < self._due[what]:
            return False
        self._due[what] = step + self._total // times
        return True

    def _row(self, step: int) -> None:
        titles = self._titles()
        widths = [self._width, *(self._widths(titles))]
        if not self._columns:
            self._explain(titles)
        if titles != self._columns:
            self._columns = titles
            names = ["steps", *(title.removeprefix(INFO) for title in titles)]
            self._line(" ".join(map(str.rjust, names, widths)), "bold")
        cells = [f"{step:,}", *(number(self._shown.get(title)) for title in titles)]
        self._line(" ".join(map(str.rjust, cells, widths)))

    def _titles(self) -> list[str]:
        """The columns that there are values for, without those that a narrow terminal does without."""
        titles = [title for title, column in COLUMNS.items() if column.always or title in self._shown]
        titles += [tag for tag in self._infos if tag in self._shown]
        room = self._terminal.width if self._terminal.is_terminal else NARROW
        for title in LEAVES_FIRST:
            if self._width + sum(width + 1 for width in self._widths(titles)) <= room:
                break
            titles = [each for each in titles if each != title]
        return titles

    def _widths(self, titles: Sequence[str]) -> list[int]:
        return [
            COLUMNS[each].width - 1 if each in COLUMNS else max(7, len(each.removeprefix(INFO)))
            for each in titles
        ]

    def _explain(self, titles: Sequence[str]) -> None:
        """Says once what the columns are."""
        said = [
            f"{each}: {COLUMNS[each].meaning}" for each in titles if each in COLUMNS and COLUMNS[each].meaning
        ]
        said.append("[a, b]: 95 % interval of an evaluation's mean")
        lines = textwrap.wrap("; ".join(said), NARROW - 1)
        for line in [*lines, ""]:
            self._line(line, "dim")

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
        self._step = step
        rate = self._shown.get("steps/s")
        left = math.ceil(max(0, self._total - step) / rate) if rate else None
        parts = {
            "steps": f"{step:,}/{self._total:,}{self._unit}",
            "episodes": f"return {number(self._shown['return'])}" if "return" in self._shown else "",
            "rate": f"{number(rate)} steps/s" if rate else self._waiting,
            "left": "" if left is None else f"{timedelta(seconds=left)} left",
        }
        if self._progress is not None:
            self._progress.update(self._task, completed=min(step, self._total), **parts)
        if self._notebook is not None:
            self._notebook.move(step, ", ".join(filter(None, parts.values())))

    def _line(self, text: str, style: str = "") -> None:
        self._terminal.print(text, style=style, soft_wrap=True, markup=False)

    def _labeled(self, line: str, style: str = "", whole: bool = False) -> None:
        """Shows a line that begins with a label; a terminal breaks it between words, below its text.

        One that stays whole, whatever its length, can be copied: it may be a command.
        """
        lines = [line[LABEL:]]
        if self._terminal.is_terminal and not whole:
            room = max(20, self._terminal.width - LABEL)
            broken = textwrap.wrap(line[LABEL:], room, break_long_words=False, break_on_hyphens=False)
            lines = broken or lines
        for label, text in zip([line[:LABEL], *[" " * LABEL] * len(lines)], lines, strict=False):
            self._terminal.print(Text.assemble((label, "dim"), (text, style)), soft_wrap=True)


def number(value: float | None) -> str:
    """Returns a number for display: three significant digits, thousands separated; "-" for none."""
    if value is None or value != value:
        return "-"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    if abs(value) < 0.001:
        return f"{value:.1e}" if value else "0"
    return f"{value:#.3g}".rstrip(".")
