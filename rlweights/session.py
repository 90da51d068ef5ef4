"""One training session of the command line: from words to an exit code."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlweights import config
from rlweights import runs as run_folders
from rlweights.assembly import Assembly
from rlweights.config import Agent, ConfigError
from rlweights.console import Console
from rlweights.guarded import guarded
from rlweights.trainer import Outcome, Trainer
from rlweights.watch import watched

CHANGEABLE = ("budget.", "evaluation.", "logging.", "checkpoint.keep", "expect.", "description", "guard.")
"""What may differ when a run is resumed: it changes how long and how closely, not what is trained."""


def train(
    agent: str, env: str | None, overrides: Sequence[str], runs: Path, quiet: bool, watch: bool = False
) -> int:
    """Trains one agent into a new run folder and returns the exit code of the process."""
    return guarded(lambda: exit_code(begin(agent, env, overrides, runs, quiet, watch)))


def begin(
    agent: str, env: str | None, overrides: Sequence[str], runs: Path, quiet: bool, watch: bool = False
) -> Outcome:
    """Trains one agent into a new run folder.

    Raises:
        ConfigError: If nothing can be trained; `rlweights.guarded` lists what else can go wrong.
    """
    configuration, source, folder, name = configured(agent, env, overrides)
    assembly = Assembly(configuration, source, folder)
    with Trainer(assembly, _console(configuration, quiet)) as trainer:
        run = run_folders.create(assembly, runs, name)
        return _run(trainer, run, name, runs, watch)


def configured(agent: str, env: str | None, overrides: Sequence[str]) -> tuple[Agent, str, Path, str]:
    """Returns a configuration, where it came from, where the files that it names lie, and its name.

    Raises:
        ConfigError: If there is no such agent, or it is not valid.
    """
    if env is not None:
        return config.for_environment(env, overrides), f"--env {env}", Path(), env.replace("/", "_")
    path = config.find(agent)
    name = path.parent.parent.name if path.name == "agent.toml" else path.stem
    return config.load(path, overrides), str(path), path.parent, name


def resume(run: Path, overrides: Sequence[str], quiet: bool, watch: bool = False) -> int:
    """Goes on with a run from its newest checkpoint and returns the exit code of the process."""

    def session() -> int:
        path = run / "agent.toml"
        if not path.is_file():
            raise ConfigError(f"{run}: no run folder, it holds no agent.toml")
        before, after = config.load(path), config.load(path, overrides)
        changed = _differences(before, after)
        refused = [key for key in changed if not key.startswith(CHANGEABLE)]
        if refused:
            raise ConfigError(
                f"{path}: a resumed run keeps what it trains; these keys differ: {', '.join(refused)}. "
                f"Start a new run to change them"
            )
        assembly = Assembly(after, str(path), run)
        with Trainer(assembly, _console(after, quiet)) as trainer:
            if changed:
                _replace(path, after.to_toml())
            name, runs = run.resolve().parent.name, run.parent.parent
            return exit_code(_run(trainer, run, name, runs, watch, resume=True))

    return guarded(session)


def exit_code(outcome: Outcome) -> int:
    """What the process says to its shell: 0, or 128 and the signal that ended the run."""
    return 0 if outcome.signal is None else 128 + outcome.signal


def _run(trainer: Trainer, run: Path, name: str, runs: Path, watch: bool, resume: bool = False) -> Outcome:
    console = trainer.console
    console.start(_header(trainer.assembly, name, run))
    with watched(runs, console.message) if watch else contextlib.nullcontext():
        try:
            outcome = trainer.run(run, resume)
            console.summary(_summary(trainer.agent, outcome, runs))
        finally:
            console.close()
    return outcome


def _console(agent: Agent, quiet: bool) -> Console:
    return Console(agent.total_iterations * agent.steps_per_iteration, quiet=quiet)


def _differences(before: Agent, after: Agent) -> list[str]:
    """The keys, with dots, in which two configurations differ."""

    def flat(value: Any, key: str = "") -> dict[str, Any]:
        if isinstance(value, dict):
            return {k: v for name, part in value.items() for k, v in flat(part, f"{key}{name}.").items()}
        return {key.rstrip("."): value}

    old, new = (flat(agent.model_dump(by_alias=True)) for agent in (before, after))
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".toml.new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _header(assembly: Assembly, name: str, run: Path) -> list[str]:
    agent = assembly.agent
    section, algorithm = agent.environment, agent.algorithm
    rollout = f"{section.num_envs} x {algorithm.n_steps} steps"
    lines = [
        f"agent        {name}, seed {agent.seed}",
        f"environment  {section.id} ({section.backend}, {rollout} an iteration)",
        f"algorithm    {algorithm.name.upper()}, {assembly.optimizer.inner.name}",
    ]
    lines += [
        f"{'rules' if i == 0 else '':13}{rule.describe()}" for i, rule in enumerate(assembly.rules)
    ] or ["rules        none"]
    lines += [f"code         {file} was loaded: the agent file names it" for file in assembly.loaded_files]
    return [*lines, f"run          {run}"]


def _summary(agent: Agent, outcome: Outcome, runs: Path) -> dict[str, str]:
    facts: dict[str, str] = {}
    if outcome.evaluation is not None:
        result = outcome.evaluation
        facts["reached"] = (
            f"{result.mean:.1f} +- {result.std:.1f}, mean return of {len(result.returns)} episodes"
        )
        if agent.expect is not None:
            facts["expected"] = f"{agent.expect.mean_reward:g}"
    else:
        facts["stopped"] = f"by a signal after {outcome.env_steps:,} steps; the weights are saved"
        facts["resume"] = f"python -m rlweights.train --resume {outcome.folder}"
    facts["time"] = f"{outcome.seconds:.1f} s, {outcome.env_steps / max(outcome.seconds, 1e-9):,.0f} steps/s"
    facts["run"] = str(outcome.folder)
    facts["watch"] = f"tensorboard --logdir {runs}"
    return facts
