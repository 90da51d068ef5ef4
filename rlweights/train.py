"""Trains an agent: `python -m rlweights.train cartpole --seed 1`."""

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from rlweights.backend import check_backend, configure, waiting
from rlweights.errors import guarded

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _steps(text: str) -> int:
    """A number of steps: 100000, 100_000 or 1e5."""
    for kind in (int, float):
        with contextlib.suppress(ValueError, OverflowError):
            if int(kind(text)) == kind(text):
                return int(kind(text))
    raise typer.BadParameter(f"{text!r} is no whole number, such as 100000 or 1e5")


@app.command(name="train")
def train(
    agent: Annotated[
        str | None,
        typer.Argument(
            help="A shipped agent, a TOML file, or a run folder to repeat.", show_default="cartpole"
        ),
    ] = None,
    env: Annotated[
        str | None, typer.Option("--env", help="Train in this Gymnasium environment, without an agent file.")
    ] = None,
    algo: Annotated[str | None, typer.Option("--algo", help="ppo, a2c or reinforce; with --env.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything that is random.")] = None,
    total_timesteps: Annotated[
        Any,
        typer.Option(
            "-n",
            "--total-timesteps",
            parser=_steps,
            metavar="STEPS",
            help="Budget in environment steps: 100000, 1e5.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set algorithm.gamma=0.98"),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Go on with a run folder, exactly.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Begin with the weights and normalization of a run, or of a pretrained agent.",
        ),
    ] = None,
    start_optimizer: Annotated[
        bool, typer.Option("--from-optimizer", help="With --from: take the optimizer's state as well.")
    ] = False,
    runs: Annotated[Path, typer.Option("--runs", help="Where run folders go.")] = Path("runs"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the summary.")] = False,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Train so many seeds, from --seed on, in parallel.")
    ] = 1,
    watch: Annotated[bool, typer.Option("--watch", help="Start TensorBoard beside the run.")] = False,
    device: Annotated[
        str | None,
        typer.Option("--device", help="cpu, gpu or gpu:1.", show_default="a GPU if there is one"),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            metavar="N",
            help="Threads of one operation.",
            show_default="by the size of the work; of a resumed run: its own",
        ),
    ] = None,
    trusted: Annotated[
        bool, typer.Option("--trust", help="Run code that an agent file or a run brings from elsewhere.")
    ] = False,
) -> None:
    """Train an agent, watched in TensorBoard.

    Without arguments: PPO with weight clipping and adaptive parameter noise on CartPole-v1.
    """
    with waiting("loading TensorFlow", quiet):
        configure(device, threads)
        from rlweights.running.building.trust import trust

        trust(trusted)

        from rlweights.running import session
        from rlweights.running.config.messages import Setting
        from rlweights.running.recipe import Recipe

    changes = list(overrides or ())
    if algo is not None:
        changes.append(Setting(f'algorithm.name="{algo}"', f"--algo {algo}"))
    if total_timesteps is not None:
        changes.append(Setting(f"budget.total_timesteps={total_timesteps}", f"-n {total_timesteps}"))
    if seed is not None:
        changes.append(Setting(f"seed={seed}", f"--seed {seed}"))
    if start_optimizer and start is None:
        raise typer.BadParameter("goes with --from", param_hint="--from-optimizer")
    if resume is not None:
        if start is not None:
            raise typer.BadParameter("begins a new run; it does not go with --resume", param_hint="--from")
        if seeds > 1:
            raise typer.BadParameter("starts new runs; it does not go with --resume", param_hint="--seeds")

        def resumed() -> int:
            return session.exit_code(session.resume(resume, changes, quiet=quiet, watch=watch))

        raise typer.Exit(guarded(resumed))
    if seeds > 1:
        from rlweights.experiments.seeds import train_seeds

        raise typer.Exit(
            train_seeds(agent, env, changes, runs, quiet, watch, seeds, start, start_optimizer, device)
        )

    def trained() -> int:
        recipe = Recipe(agent, changes, env=env, start=start, start_optimizer=start_optimizer)
        return session.exit_code(recipe.begin(runs, quiet=quiet, watch=watch))

    raise typer.Exit(guarded(trained))


def main(arguments: Any = None) -> None:
    """Runs the command line; every foreseen error is one line and an exit code."""

    def session() -> int:
        check_backend()
        app(arguments)
        return 0

    raise SystemExit(guarded(session))


if __name__ == "__main__":
    main()
