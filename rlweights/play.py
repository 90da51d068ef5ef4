"""Plays a run: `python -m rlweights.play RUN`, in a window or into a file."""

from pathlib import Path
from typing import Annotated

import typer

from rlweights.backend import configure

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(name="play")
def play(
    run: Annotated[Path, typer.Argument(help="A run folder, or a pretrained agent.")],
    episodes: Annotated[int, typer.Option("--episodes", min=1, help="Number of episodes.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the first episode.")] = 10_000,
    which: Annotated[str, typer.Option("--weights", help="best or latest.")] = "best",
    record: Annotated[
        Path | None,
        typer.Option("--record", metavar="FILE", help="Write a .gif or .mp4 instead of opening a window."),
    ] = None,
    trusted: Annotated[
        bool, typer.Option("--trust", help="Run code that an agent file or a run brings from elsewhere.")
    ] = False,
) -> None:
    """Play a run in its rendered environment."""
    configure()
    from rlweights.running.building.trust import trust

    trust(trusted)
    from rlweights.errors import guarded
    from rlweights.running.trained import TrainedAgent
    from rlweights.running.video import check_writable, write

    def session() -> int:
        if record is not None:
            check_writable(record)
        agent = TrainedAgent(run, which)
        if record is None:
            returns = agent.show(episodes, seed)
        else:
            frames, returns, fps = agent.frames(episodes, seed)
            write(record, frames, fps)
            typer.echo(f"wrote {record}: {len(frames)} frames")
        for number, value in enumerate(returns):
            typer.echo(f"episode {number}: return {value:.2f}")
        return 0

    raise typer.Exit(guarded(session))


def main() -> None:
    """Runs the command line."""
    app()


if __name__ == "__main__":
    main()
