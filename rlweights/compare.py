"""Compares runs: `rlweights compare runs/cartpole runs/cartpole_plain`."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders, or folders of runs: the seeds of one agent.")
    ],
    tag: Annotated[str, typer.Option("--tag", help="Which scalar.")] = "rollout/ep_rew_mean",
    points: Annotated[int, typer.Option("--points", min=2, help="Rows of the table.")] = 10,
    picture: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the curves: .png, .svg, .pdf.")
    ] = None,
    board: Annotated[
        Path | None,
        typer.Option("--board", metavar="FOLDER", help="Write the curves for TensorBoard, as margin charts."),
    ] = None,
) -> None:
    """Compare learning curves: interquartile mean over seeds with its bootstrap interval."""
    from rlweights.backend import configure

    configure()
    from rlweights.errors import guarded
    from rlweights.experiments import curves

    def session() -> int:
        if picture is not None:
            curves.matplotlib_for(picture)  # a missing matplotlib is reported before anything is read
        table = curves.learning_curves(runs, tag, points)
        typer.echo(f"{tag}: interquartile mean over seeds [95 % bootstrap interval]")
        typer.echo("".join(["       steps", *(f"{curve.title:>34}" for curve in table)]))
        for i, step in enumerate(table[0].steps):
            cells = [
                f"{each.estimate[i]:.1f} [{each.low[i]:.1f}, {each.high[i]:.1f}]"
                for each in (curve.values for curve in table)
            ]
            typer.echo("".join([f"{step:12,.0f}", *(f"{cell:>34}" for cell in cells)]))
        drawn = curves.learning_curves(runs, tag) if picture or board else []
        if picture is not None:
            curves.plot(drawn, tag, picture)
            typer.echo(f"wrote {picture}")
        if board is not None:
            curves.write_board(drawn, tag, board)
            typer.echo(f"wrote {board}: tensorboard --logdir {board}, tab Custom scalars")
        return 0

    raise typer.Exit(guarded(session))


def main() -> None:
    """Runs the command line."""
    typer.run(compare)


if __name__ == "__main__":
    main()
