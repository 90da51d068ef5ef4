"""Runs a study: `python -m rlweights.study far_end_of_the_chain --scale 0.1`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rlweights.backend import check_backend, configure
from rlweights.errors import guarded

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(name="study")
def study(
    name: Annotated[
        str | None, typer.Argument(help="A shipped study, or a study file; left out: lists those there are.")
    ] = None,
    arms: Annotated[
        str, typer.Option("--arms", metavar="ARM,ARM", help="Train these arms only.", show_default="all")
    ] = "",
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="How many of its seeds.", show_default="all")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Trials at once, each on one thread.", show_default="cores"),
    ] = None,
    scale: Annotated[float, typer.Option("--scale", help="Makes it shorter: 0.1 by a factor of ten.")] = 1.0,
    first_seed: Annotated[
        int | None,
        typer.Option("--first-seed", help="Seeds from this one on instead: does the answer hold?"),
    ] = None,
    runs: Annotated[
        Path | None, typer.Option("--runs", help="Where its runs go.", show_default="runs/studies/NAME")
    ] = None,
    results: Annotated[
        Path | None, typer.Option("--results", help="Where its results go.", show_default="that folder")
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Train nothing: table and picture of what is finished.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the summary.")] = False,
    trusted: Annotated[
        bool, typer.Option("--trust", help="Run code that an agent file or a run brings from elsewhere.")
    ] = False,
) -> None:
    """Run a study: train what is missing of its arms and seeds, and compare them.

    Started again it goes on; finished trials are never repeated.
    """
    configure()
    from rlweights.running.building.trust import trust

    trust(trusted)

    from rlweights.experiments import study_file
    from rlweights.experiments.study import Study

    def session() -> int:
        if name is None:
            for each in study_file.shipped():
                typer.echo(f"{each:<32}{study_file.Plan(each).file.question}")
            return 0
        wanted = [each.strip() for each in arms.split(",") if each.strip()]
        made = Study(name, scale=scale, first_seed=first_seed, folder=runs, results=results)
        if show:
            made.show(quiet)
            return 0
        return made.run(wanted, seeds, workers=workers, quiet=quiet)

    raise typer.Exit(guarded(session))


def main(arguments: Any = None) -> None:
    """Runs the command line; every foreseen error is one line and an exit code."""

    def session() -> int:
        check_backend()
        app(arguments)
        return 0

    raise SystemExit(guarded(session))


if __name__ == "__main__":
    main()
