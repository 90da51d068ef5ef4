"""One training session of the command line: from words to an exit code."""

import contextlib
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

from rlweights import config
from rlweights import runs as run_folders
from rlweights.assembly import Assembly
from rlweights.config import Agent
from rlweights.console import Console
from rlweights.guarded import guarded
from rlweights.recipe import Recipe
from rlweights.trainer import Outcome, Trainer
from rlweights.watch import watched


def train(
    agent: str, env: str | None, overrides: Sequence[str], runs: Path, quiet: bool, watch: bool = False
) -> int:
    """Trains one agent into a new run folder and returns the exit code of the process."""
    return guarded(lambda: exit_code(begin(Recipe(agent, overrides, env=env), runs, quiet, watch)))


def begin(recipe: Recipe, runs: Path, quiet: bool, watch: bool = False) -> Outcome:
    """Trains one agent into a new run folder.

    Raises:
        ConfigError: If nothing can be trained; `rlweights.guarded` lists what else can go wrong.
    """
    assembly = Assembly(recipe.agent, recipe.source, recipe.folder)
    with Trainer(assembly, _console(recipe.agent, quiet)) as trainer:
        run = run_folders.create(assembly, runs, recipe.name)
        return _run(trainer, run, recipe.name, runs, watch)


def resume(run: Path, overrides: Sequence[str], quiet: bool, watch: bool = False) -> int:
    """Goes on with a run from its newest checkpoint and returns the exit code of the process."""

    def session() -> int:
        path = run / run_folders.AGENT
        before, after = run_folders.read(run), config.load(path, overrides)
        run_folders.refuse_changes(before, after, str(path))
        assembly = Assembly(after, str(path), run)
        with Trainer(assembly, _console(after, quiet)) as trainer:
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
    folder = shlex.quote(str(outcome.folder))
    resume = f"python -m rlweights.train --resume {folder}"
    if outcome.evaluation is not None:
        result = outcome.evaluation
        facts["reached"] = (
            f"{result.mean:.1f} +- {result.std:.1f}, mean return of {len(result.returns)} episodes"
        )
        if agent.expect is not None:
            facts["expected"] = f"{agent.expect.mean_reward:g}"
    elif outcome.signal is not None:
        name = signal.Signals(outcome.signal).name
        facts["stopped"] = f"by {name} after {outcome.env_steps:,} steps; the weights are saved"
        facts["resume"] = f"{resume}    # exactly, from step {outcome.resumes_at:,} on"
    else:
        facts["finished"] = f"before, after {outcome.env_steps:,} steps; nothing was changed"
        facts["extend"] = f"{resume} --total-timesteps {2 * outcome.env_steps}"
    if outcome.made:
        rate = outcome.made / max(outcome.seconds, 1e-9)
        facts["time"] = f"{outcome.seconds:.1f} s, {rate:,.0f} steps/s"
    facts["run"] = str(outcome.folder)
    facts["watch"] = f"tensorboard --logdir {shlex.quote(str(runs))}"
    return facts
