"""Compares runs: `rlweights compare runs/cartpole/* runs/cartpole_plain/*`."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; those of one agent are its seeds.")],
    tag: Annotated[str, typer.Option("--tag", help="Which scalar.")] = "rollout/ep_rew_mean",
    points: Annotated[int, typer.Option("--points", min=2, help="Rows of the table.")] = 10,
) -> None:
    """Compare learning curves: interquartile mean over seeds with its bootstrap interval."""
    from rlweights.startup import settle

    settle()
    import numpy as np

    from rlweights.config import ConfigError
    from rlweights.guarded import guarded
    from rlweights.intervals import bootstrap_interval
    from rlweights.records import read_scalars

    def session() -> int:
        groups: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for run in runs:
            if not run.is_dir():
                raise ConfigError(f"{run}: no run folder")
            series = read_scalars(run)
            if tag not in series:
                raise ConfigError(
                    f"{run}: holds no {tag!r}; it holds {', '.join(sorted(series)) or 'nothing'}"
                )
            steps, values = (np.array(column, float) for column in zip(*series[tag], strict=True))
            groups.setdefault(run.resolve().parent.name, []).append((steps, values))
        ends = min(steps[-1] for curves in groups.values() for steps, _ in curves)
        starts = max(steps[0] for curves in groups.values() for steps, _ in curves)
        grid = np.linspace(starts, ends, points)
        typer.echo(f"{tag}: interquartile mean over seeds [95 % bootstrap interval]")
        names = {name: f"{name} ({_seeds(len(curves))})" for name, curves in groups.items()}
        typer.echo("".join(["       steps", *(f"{title:>34}" for title in names.values())]))
        intervals = {
            name: bootstrap_interval(np.stack([np.interp(grid, steps, values) for steps, values in curves]))
            for name, curves in groups.items()
        }
        for i, step in enumerate(grid):
            cells = [
                f"{each.estimate[i]:.1f} [{each.low[i]:.1f}, {each.high[i]:.1f}]"
                for each in intervals.values()
            ]
            typer.echo("".join([f"{step:12,.0f}", *(f"{cell:>34}" for cell in cells)]))
        return 0

    raise typer.Exit(guarded(session))


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def main() -> None:
    """Runs the command line."""
    typer.run(compare)


if __name__ == "__main__":
    main()
