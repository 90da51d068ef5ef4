"""Evaluates a run: `python -m rlweights.evaluate runs/cartpole/0-20260101-120000`."""

import contextlib
import json
from pathlib import Path
from typing import Annotated

import typer

from rlweights.backend import configure
from rlweights.errors import guarded

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(name="evaluate")
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder, or a pretrained agent.")],
    episodes: Annotated[int, typer.Option("--episodes", min=1, help="Number of episodes.")] = 100,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, help="Seed of the environments.", show_default="that of the run's evaluations"
        ),
    ] = None,
    which: Annotated[str, typer.Option("--weights", help="best or latest.")] = "best",
    stochastic: Annotated[
        bool | None,
        typer.Option(
            "--stochastic/--greedy",
            help="Sample actions, or take the most likely ones.",
            show_default="as the agent file says",
        ),
    ] = None,
    env: Annotated[
        str | None,
        typer.Option("--env", help="Another environment, whose spaces fit.", show_default="the run's"),
    ] = None,
    env_kwargs: Annotated[
        list[str] | None,
        typer.Option(
            "--env-kwargs", metavar="KEY=VALUE", help="An argument of the environment that differs."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", help="cpu, gpu or gpu:1.", show_default="a GPU if there is one"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trusted: Annotated[
        bool, typer.Option("--trust", help="Run code that an agent file or a run brings from elsewhere.")
    ] = False,
) -> None:
    """Evaluate a run: whole episodes, mean return and its bootstrap interval."""

    def session() -> int:
        configure(device)
        from rlweights.running.building.trust import trust

        trust(trusted)
        import numpy as np

        from rlweights.learning.intervals import bootstrap_interval
        from rlweights.running.config.agent_file import key_values
        from rlweights.running.files import on_standard_error
        from rlweights.running.trained import TrainedAgent

        # What an environment prints belongs to the person who reads along, not into the JSON.
        with on_standard_error() if as_json else contextlib.nullcontext():
            agent = TrainedAgent(run, which, env=env, env_kwargs=key_values("--env-kwargs", env_kwargs or ()))
            result = agent.evaluate(episodes, seed, None if stochastic is None else not stochastic)
        interval = bootstrap_interval(result.returns, np.mean)
        facts = {
            "run": str(run),
            "weights": str(agent.weights),
            "episodes": len(result.returns),
            "mean_reward": result.mean,
            "std_reward": result.std,
            "interval_95": [float(interval.low), float(interval.high)],
            "mean_ep_length": float(result.lengths.mean()),
        }
        if result.success_rate is not None:
            facts["success_rate"] = result.success_rate
        if as_json:
            typer.echo(json.dumps(facts | {"returns": result.returns.tolist()}))
            return 0
        low, high = facts["interval_95"]
        typer.echo(f"mean return   {result.mean:.2f} +- {result.std:.2f} over {len(result.returns)} episodes")
        typer.echo(f"95 % interval {low:.2f} to {high:.2f} (bootstrap of the mean)")
        typer.echo(f"mean length   {facts['mean_ep_length']:.1f}")
        if result.success_rate is not None:
            typer.echo(f"success       {result.success_rate:.0%}")
        why = "" if result.unfinished else ": evaluation.max_episode_steps"
        if cut := result.cut(agent.policy.environments.evaluation_limit):
            typer.echo(f"incomplete    {cut}{why}")
        typer.echo(f"weights       {agent.weights}")
        return 0

    raise typer.Exit(guarded(session))


def main() -> None:
    """Runs the command line."""
    app()


if __name__ == "__main__":
    main()
