"""The `rlweights` command: everything under one name."""

import os
import platform
import sys
from importlib.metadata import version
from typing import Annotated

import typer

import rlweights
from rlweights.agents import agents
from rlweights.backend import check_backend
from rlweights.check_env import check_env
from rlweights.compare import compare
from rlweights.diagnose import diagnose
from rlweights.errors import guarded
from rlweights.evaluate import evaluate
from rlweights.export import export
from rlweights.play import play
from rlweights.rules import rules
from rlweights.study import study
from rlweights.train import train

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
for command in (train, evaluate, play, export, compare, diagnose, check_env, agents, study, rules):
    app.command()(command)


def _told(wanted: bool) -> None:
    """Prints the versions of what training depends on, and ends."""
    if wanted:
        parts = [f"{name} {version(name)}" for name in ("tensorflow", "keras", "gymnasium", "numpy")]
        typer.echo(
            f"rlweights {rlweights.__version__} ({', '.join(parts)}, Python {platform.python_version()})"
        )
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_told, is_eager=True, help="Print the versions.")
    ] = False,
) -> None:
    """Policy-gradient agents for Gymnasium, with weight interventions inside the compiled step."""


def main() -> None:
    """Runs the command line; modules of the current folder can be imported, as with `python -m`."""
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())

    def session() -> int:
        check_backend()
        app()
        return 0

    raise SystemExit(guarded(session))


if __name__ == "__main__":
    main()
