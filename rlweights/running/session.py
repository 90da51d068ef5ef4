"""One training session: builds an agent, trains it, and reports the outcome."""

import contextlib
import json
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

from rlweights.errors import ConfigError
from rlweights.running.building.assembly import Assembly
from rlweights.running.callbacks import Callback, demand, names_of
from rlweights.running.config import agent_file, objects
from rlweights.running.config.messages import first_line
from rlweights.running.config.schema import Agent
from rlweights.running.outcome import Outcome
from rlweights.running.records.console import Console
from rlweights.running.records.tensorboard_server import watched
from rlweights.running.saving import run_folder
from rlweights.running.saving.run_state import info_tag
from rlweights.running.trainer import Trainer
from rlweights.running.warm_start import START, WarmStart

CALLBACKS = "callbacks.json"
"""Names the callbacks of a run, in its folder: it is resumed with them."""


def begin(
    agent: Agent,
    source: str,
    folder: Path,
    runs: Path,
    name: str,
    *,
    quiet: bool = False,
    watch: bool = False,
    callbacks: Sequence[Callback] = (),
    start: WarmStart | None = None,
) -> Outcome:
    """Trains one agent into a new run folder.

    Args:
        agent: The configuration.
        source: The file or option that it came from, for errors.
        folder: Folder of the files that the agent names.
        runs: Folder of all runs.
        name: Names the folder of the agent's runs.
        quiet: Whether to show no progress.
        watch: Whether to start TensorBoard beside the training, and show its address.
        callbacks: The user's own code beside the run.
        start: What the run begins with; None: fresh weights.

    Raises:
        ConfigError: If nothing can be trained; `rlweights.errors` lists what else can go wrong.
    """
    beside = {CALLBACKS: _listed(callbacks)} if callbacks else {}
    assembly, start = _assembled(agent, source, folder, start)
    if start is not None:
        beside[START] = start.encoded()
    agent = _with_home(agent, assembly)
    with Trainer(assembly, _console(agent, quiet), callbacks) as trainer:
        run = run_folder.create(runs, name, agent, source, assembly.files.loaded, beside)
        return _run(trainer, run, name, runs, watch, start=start)


def resume(
    run: Path,
    overrides: Sequence[str],
    *,
    quiet: bool = False,
    watch: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Outcome:
    """Goes on with a run from its newest checkpoint.

    Args:
        run: The run folder.
        overrides: Settings that differ from the run's `agent.toml`, as "key=value".
        quiet: Whether to show no progress.
        watch: Whether to start TensorBoard beside the training, and show its address.
        callbacks: Those that the run was begun with, in their order; further ones may follow.

    Raises:
        ConfigError: If the folder is no run, or what it trains would change; see also `begin`.
    """
    path = run / agent_file.AGENT
    before, after = run_folder.read(run), agent_file.load(path, overrides)
    run_folder.refuse_changes(before, after, str(path))
    demand(callbacks, _names(run), str(run))
    assembly, start = _assembled(after, str(path), run, WarmStart.recorded(run))
    with Trainer(assembly, _console(after, quiet), callbacks) as trainer:
        if len(callbacks) > len(_names(run)):
            run_folder.add(run, CALLBACKS, _listed(callbacks))
        name, runs = run.resolve().parent.name, run.parent.parent
        return _run(trainer, run, name, runs, watch, resume=True, start=start)


def begin_or_resume(
    agent: Agent,
    source: str,
    folder: Path,
    run: Path,
    *,
    quiet: bool = False,
    watch: bool = False,
    callbacks: Sequence[Callback] = (),
    start: WarmStart | None = None,
) -> Outcome:
    """Trains one agent into a chosen run folder: from the start, or on from its newest checkpoint.

    So a run that was killed at any moment is begun and continued by the same call, and a finished one is
    left as it is.

    Args:
        agent: The configuration.
        source: Where it came from, for errors.
        folder: Where files that it names lie.
        run: The run folder. What it trains must be the agent, but for what a resumed run may change.
        quiet: Whether to show no progress.
        watch: Whether to start TensorBoard beside it, and show its address.
        callbacks: The user's own code beside the run, always the same ones in their order.
        start: See `begin`; of a run that goes on, its own start counts.

    Raises:
        ConfigError: If the folder holds something else, or nothing can be trained; see also `begin`.
    """
    resumes = run_folder.is_run(run)
    if resumes:
        own = run_folder.with_copies(agent)
        run_folder.refuse_changes(run_folder.read(run), own, str(run / agent_file.AGENT))
        agent, source, folder = own, str(run / agent_file.AGENT), run
        demand(callbacks, _names(run), str(run))
        start = WarmStart.recorded(run)
    beside = {CALLBACKS: _listed(callbacks)} if callbacks else {}
    assembly, start = _assembled(agent, source, folder, start)
    if start is not None:
        beside[START] = start.encoded()
    agent = _with_home(agent, assembly)
    with Trainer(assembly, _console(agent, quiet), callbacks) as trainer:
        if not resumes:
            run_folder.create_at(run, agent, source, assembly.files.loaded, beside)
        return _run(trainer, run, run.resolve().parent.name, run.parent, watch, resumes, start)


def _with_home(agent: Agent, assembly: Assembly) -> Agent:
    """The agent, with the folder that its environment was imported from: looking at a run needs it."""
    if assembly.environments.home is None:
        return agent
    section = agent.environment.model_copy(update={"folder": assembly.environments.home})
    return agent.model_copy(update={"environment": section})


def exit_code(outcome: Outcome) -> int:
    """Returns the exit code of the process: 0, or 128 plus the number of the signal that ended the run."""
    return 0 if outcome.signal is None else 128 + outcome.signal


def _listed(callbacks: Sequence[Callback]) -> bytes:
    return json.dumps(names_of(callbacks)).encode()


def _names(run: Path) -> list[str]:
    """The names of the callbacks that a run is trained with.

    Raises:
        ConfigError: If the file cannot be read.
    """
    path = run / CALLBACKS
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {first_line(error)}") from None


def _assembled(
    agent: Agent, source: str, folder: Path, start: WarmStart | None
) -> tuple[Assembly, WarmStart | None]:
    """Builds an agent, on the weights of a start if there is one; returns what of it the agent has taken."""
    if start is None:
        return Assembly(agent, source, folder), None
    assembly = Assembly(agent, source, folder, start.weights, str(start))
    start = start.kept_by(assembly)
    start.apply(assembly)
    return assembly, start


def _run(
    trainer: Trainer,
    run: Path,
    name: str,
    runs: Path,
    watch: bool,
    resume: bool = False,
    start: WarmStart | None = None,
) -> Outcome:
    console = trainer.console
    begins = [] if start is None else [f"begins with  the weights of {start}"]
    console.start([*_header(trainer.assembly, trainer.evaluations, name, run), *begins])
    for remark in trainer.assembly.remarks():
        console.message(remark)
    with watched(runs, console.message) if watch else contextlib.nullcontext():
        try:
            outcome = trainer.run(run, resume)
            console.summary(_summary(trainer.agent, outcome, runs))
        finally:
            console.close()
    return outcome


def _console(agent: Agent, quiet: bool) -> Console:
    total = agent.total_iterations * agent.steps_per_iteration
    return Console(total, quiet=quiet, infos=tuple(map(info_tag, agent.logging.info)))


def _header(assembly: Assembly, evaluations: str, name: str, run: Path) -> list[str]:
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
    lines += [f"evaluation   {evaluations or 'none'}"]
    given = objects.references(
        {"environment": section.model_dump(), "evaluation": agent.evaluation.model_dump()}
    )
    lines += [
        f"object       {key} is {objects.name_of(text)}, given from Python: the run keeps only its name"
        for key, text in given.items()
    ]
    lines += [f"code         {file} was loaded: the agent file names it" for file in assembly.files.loaded]
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
        if outcome.stopped:
            facts["stopped"] = f"after {outcome.env_steps:,} steps by {outcome.stopped}"
    elif outcome.finished and outcome.made:
        facts["trained"] = f"{outcome.env_steps:,} steps; no evaluation was asked for"
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
