"""Tries an environment before training: `python -m rlweights.check_env CartPole-v1`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def check_env(
    env: Annotated[str, typer.Argument(help="A Gymnasium id, module:Id, module:Class, or file.py:Class.")],
    steps: Annotated[int, typer.Option("--steps", min=50, help="Random steps of each trial.")] = 1_000,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting to hold it against, as for train."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trusted: Annotated[
        bool, typer.Option("--trust", help="Run code that an agent file or a run brings from elsewhere.")
    ] = False,
) -> None:
    """Try an environment with random actions: what would keep an agent from learning?"""
    from rlweights.backend import configure

    configure()
    from rlweights.running.building.trust import trust

    trust(trusted)
    import contextlib

    import gymnasium as gym

    from rlweights.errors import ConfigError, guarded
    from rlweights.running.building.singles import Singles
    from rlweights.running.building.user_code import UserCode
    from rlweights.running.config import agent_file
    from rlweights.running.environment_check import check
    from rlweights.running.files import on_standard_error

    def session() -> int:
        agent = agent_file.for_environment(env, overrides or ()).agent
        section = agent.environment
        if section.backend != "gymnasium" and section.id not in gym.registry:
            raise ConfigError(f"{env}: Gymnasium has no such environment, and check-env steps single ones")
        singles = Singles(section, UserCode(f"check-env {env}", Path(), section.folder))
        singles.check()
        with on_standard_error() if as_json else contextlib.nullcontext():
            found = check(agent, lambda: singles.guarded(singles.make), steps)
        grave = any(each.kind == "cause" for each in found.findings)
        if as_json:
            findings = [asdict(each) for each in found.findings]
            typer.echo(json.dumps({"facts": found.facts, "findings": findings}, indent=2))
            return int(grave)
        for name, value in found.facts.items():
            typer.echo(f"{name:<13}{value}")
        for each in found.findings:
            typer.echo(f"{'wrong' if each.kind == 'cause' else 'note':<13}{each.text} ({each.symptom})")
            for advice in each.advice:
                typer.echo(f"{'':<13}try --set '{advice}'")
        if not found.findings:
            typer.echo(f"{'healthy':<13}nothing that is known to keep an agent from learning")
        return int(grave)

    raise typer.Exit(guarded(session))


def main() -> None:
    """Runs the command line."""
    typer.run(check_env)


if __name__ == "__main__":
    main()
