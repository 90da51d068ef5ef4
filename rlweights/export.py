"""Exports a run's policy: `python -m rlweights.export RUN policy.keras`."""

from pathlib import Path
from typing import Annotated

import typer

from rlweights.backend import configure

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(name="export")
def export(
    run: Annotated[Path, typer.Argument(help="A run folder, or a pretrained agent.")],
    target: Annotated[
        Path, typer.Argument(help="A .keras, .tflite or .onnx file, or a folder for a SavedModel.")
    ],
    which: Annotated[str, typer.Option("--weights", help="best or latest.")] = "best",
    trusted: Annotated[
        bool, typer.Option("--trust", help="Run code that an agent file or a run brings from elsewhere.")
    ] = False,
) -> None:
    """Export a run's policy: observations in, distribution parameters out, normalization included.

    The exported model is loaded again and must act as the agent does; otherwise no file is written.
    """
    configure()
    from rlweights.running.building.trust import trust

    trust(trusted)
    from rlweights.errors import guarded
    from rlweights.running.export_formats import write
    from rlweights.running.trained import TrainedAgent

    def session() -> int:
        agent = TrainedAgent(run, which)
        write(agent, target)
        typer.echo(f"wrote {target}: acts as {agent.weights} does")
        if agent.policy.action_units is not None:
            middle, half = (each.tolist() for each in agent.policy.action_units)
            typer.echo(f"actions: {half} * (action of the model) + {middle}, within the bounds of the space")
        return 0

    raise typer.Exit(guarded(session))


def main() -> None:
    """Runs the command line."""
    app()


if __name__ == "__main__":
    main()
