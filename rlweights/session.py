"""One training session of the command line: from words to an exit code."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rlweights import config
from rlweights.assembly import Assembly
from rlweights.checkpoints import CheckpointError
from rlweights.config import ConfigError
from rlweights.console import Console
from rlweights.records import RecordsError
from rlweights.rollout import BrokenEnvironment
from rlweights.runlock import RunLockedError
from rlweights.trainer import Outcome, Trainer, TrainingStopped, new_folder, prepare

BAD_CONFIGURATION, STOPPED = 2, 3


def train(agent: str, env: str | None, overrides: Sequence[str], runs: Path, quiet: bool) -> int:
    """Trains one agent and returns the exit code of the process."""
    try:
        configuration, source, folder = _configuration(agent, env, overrides)
        assembly = Assembly(configuration, source, folder)
        console = Console(configuration.total_iterations * configuration.steps_per_iteration, quiet=quiet)
        with Trainer(assembly, console) as trainer:
            name = Path(source).stem if env is None else env.replace("/", "_")
            run = new_folder(runs, name, configuration.seed)
            prepare(assembly, run)
            console.start(_header(assembly, name, run))
            outcome = trainer.run(run)
        _summarise(console, assembly, outcome, runs)
        console.close()
        return 0 if outcome.signal is None else 128 + outcome.signal
    except (ConfigError, RunLockedError) as error:
        return _failed(error, BAD_CONFIGURATION)
    except (TrainingStopped, BrokenEnvironment, CheckpointError, RecordsError) as error:
        return _failed(error, STOPPED)


def _configuration(agent: str, env: str | None, overrides: Sequence[str]):
    """The configuration, where it comes from, and the folder that its files are relative to."""
    if env is not None:
        return config.for_environment(env, overrides), f"--env {env}", Path()
    path = config.find(agent)
    return config.load(path, overrides), str(path), path.parent


def _header(assembly: Assembly, name: str, run: Path) -> list[str]:
    agent = assembly.agent
    rules = " -> ".join(map(repr, assembly.rules)) or "none"
    lines = [
        f"agent        {name}  (seed {agent.seed})",
        f"environment  {agent.environment.id}, {agent.environment.num_envs} x {agent.algorithm.n_steps} steps",
        f"algorithm    {agent.algorithm.name.upper()}, {assembly.optimizer.inner.name}",
        f"rules        {rules}",
        f"run          {run}",
    ]
    lines += [f"code         {file} was loaded: the agent file names it" for file in assembly.loaded_files]
    return lines


def _summarise(console: Console, assembly: Assembly, outcome: Outcome, runs: Path) -> None:
    agent = assembly.agent
    facts: dict[str, str] = {}
    if outcome.evaluation is not None:
        facts["reached"] = (
            f"{outcome.evaluation.mean:.1f} +- {outcome.evaluation.std:.1f} over "
            f"{len(outcome.evaluation.returns)} episodes"
        )
        if agent.expect is not None:
            facts["expected"] = f"{agent.expect.mean_reward:g}"
    else:
        facts["stopped"] = f"by a signal, after {outcome.env_steps:,} steps; the weights are saved"
    facts["time"] = f"{outcome.seconds:.1f} s, {outcome.env_steps / max(outcome.seconds, 1e-9):,.0f} steps/s"
    facts["run"] = str(outcome.folder)
    facts["watch"] = f"tensorboard --logdir {runs}"
    console.summary(facts)


def _failed(error: Exception, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code
