"""The `rlweights` command: everything under one name."""

import os
import sys

import typer

from rlweights.agents import agents
from rlweights.backend import check_backend
from rlweights.compare import compare
from rlweights.errors import guarded
from rlweights.evaluate import evaluate
from rlweights.export import export
from rlweights.play import play
from rlweights.study import study
from rlweights.train import train

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Policy-gradient agents for Gymnasium, with weight interventions inside the compiled step.",
)
for command in (train, evaluate, play, export, compare, agents, study):
    app.command()(command)


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
