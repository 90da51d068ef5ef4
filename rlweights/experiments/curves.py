"""Learning curves of several runs: interquartile means over seeds, as a picture and for TensorBoard."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlweights.errors import ConfigError, RecordsError
from rlweights.learning.intervals import Interval, bootstrap_interval
from rlweights.running.config.messages import missing
from rlweights.running.records import layout
from rlweights.running.records.event_file import read_scalars
from rlweights.running.records.records import Records
from rlweights.weights.arrays import Array

STYLES = ("-", "--", ":", "-.")
"""Of lines, once all colors are used."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colors of the picture, which color-blind people can tell apart (Okabe and Ito)."""


@dataclass(frozen=True)
class Curve:
    """The learning curve of one agent over its seeds.

    Attributes:
        name: Name of the agent: that of the folder of its runs.
        seeds: Number of runs.
        steps: Environment steps [P].
        values: Interquartile mean over the seeds and its bounds, [P] each.
    """

    name: str
    seeds: int
    steps: Array
    values: Interval

    @property
    def title(self) -> str:
        """Name and number of seeds."""
        return f"{self.name} (1 seed)" if self.seeds == 1 else f"{self.name} ({self.seeds} seeds)"


def learning_curves(
    runs: Sequence[Path], tag: str = "rollout/ep_rew_mean", points: int = 200, resamples: int = 10_000
) -> list[Curve]:
    """Returns one curve for each agent, at `points` equal steps that all runs have made.

    A run is read between its rows by linear interpolation. Intervals are 95 % bootstrap intervals: seeds are
    resampled within each agent, whole curves at a time (see `rlweights.learning.intervals`).

    Args:
        runs: Run folders, or folders of runs; runs that lie in one folder are the seeds of one agent.
        tag: Tag of the scalar.
        points: Number of points P.
        resamples: Number of resamples of the bootstrap.

    Raises:
        ConfigError: If a path is no run folder or holds no such scalar, or the runs have no steps in common.
    """
    groups: dict[str, list[tuple[Array, Array]]] = {}
    for run in [each for folder in runs for each in _runs_in(folder)]:
        series = read_scalars(run)
        if tag not in series:
            raise ConfigError(f"{run}: holds no {tag!r}; it holds {', '.join(sorted(series)) or 'nothing'}")
        steps, values = (np.array(column, float) for column in zip(*series[tag], strict=True))
        groups.setdefault(run.resolve().parent.name, []).append((steps, values))
    every = [steps for curves in groups.values() for steps, _ in curves]
    first, last = max(steps[0] for steps in every), min(steps[-1] for steps in every)
    if first > last:
        raise ConfigError(f"{tag}: one run begins at step {first:,.0f}, another ends at step {last:,.0f}")
    grid = np.linspace(first, last, points)
    return [
        Curve(name, len(curves), grid, bootstrap_interval(_stacked(grid, curves), resamples=resamples))
        for name, curves in groups.items()
    ]


def _runs_in(folder: Path) -> list[Path]:
    """A run folder, or the run folders in a folder, in their order."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no run folder")
    inside = sorted({path.parent for path in folder.glob("*/events.out.tfevents.*")})
    return inside if inside and not any(folder.glob("events.out.tfevents.*")) else [folder]


def _stacked(grid: Array, curves: Sequence[tuple[Array, Array]]) -> Array:
    return np.stack([np.interp(grid, steps, values) for steps, values in curves])


def plot(curves: Sequence[Curve], tag: str, path: Path) -> None:
    """Draws curves with their intervals as bands into a picture of any kind that matplotlib writes.

    Raises:
        ConfigError: If matplotlib (the extra `plot`) is not installed, or the file cannot be written.
    """
    pyplot = matplotlib_for(path)
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    try:
        for i, curve in enumerate(curves):
            color, thousands = COLORS[i % len(COLORS)], curve.steps / 1000
            style = STYLES[i // len(COLORS) % len(STYLES)]
            axes.plot(thousands, curve.values.estimate, style, color=color, label=curve.title)
            axes.fill_between(thousands, curve.values.low, curve.values.high, color=color, alpha=0.2, lw=0)
        axes.set(xlabel="environment steps (thousands)", ylabel=tag)
        axes.set_title("interquartile mean over seeds, 95 % bootstrap interval", fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise ConfigError(f"--plot {path}: cannot be written: {error.strerror or error}") from None
    finally:
        pyplot.close(figure)


def matplotlib_for(path: Path) -> Any:
    """Returns matplotlib's pyplot, for drawing without a screen, if it can draw such a file.

    Raises:
        ConfigError: If it cannot, or if it is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise ConfigError(f"--plot {path}: {missing('matplotlib', 'plot')}") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    known = sorted(Figure().canvas.get_supported_filetypes())
    if path.suffix[1:] not in known:
        kinds = ", ".join(f".{each}" for each in known)
        raise ConfigError(f"--plot {path}: takes a file that ends in one of {kinds}")
    return pyplot


def write_board(curves: Sequence[Curve], tag: str, folder: Path) -> None:
    """Writes curves for TensorBoard: one run for each agent, with a margin chart in its custom scalars tab.

    Raises:
        ConfigError: If the folder holds records already, or cannot be written.
    """
    name = f"seeds/{tag.rpartition('/')[2]}"
    for curve in curves:
        try:
            (folder / curve.name).mkdir(parents=True, exist_ok=True)
            with Records(folder / curve.name) as records:
                records.summary(layout.margins("Seeds", {f"{tag}, over seeds": layout.band(name)}))
                columns = (curve.values.estimate, curve.values.low, curve.values.high)
                for step, *values in zip(curve.steps, *columns, strict=True):
                    records.write(round(step), dict(zip(layout.band(name), values, strict=True)))
        except OSError as error:
            raise ConfigError(f"--board {folder}: cannot be written: {error.strerror}") from None
        except RecordsError as error:
            raise ConfigError(f"--board {error}") from None
