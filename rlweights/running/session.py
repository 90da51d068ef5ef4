"""One training session: builds an agent, trains it, and reports the outcome."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlweights.backend import cores, waiting
from rlweights.errors import CheckpointError, ConfigError
from rlweights.running import files
from rlweights.running.announcement import header, own_steps, summary, threads_remarks
from rlweights.running.building.assembly import Assembly
from rlweights.running.callbacks import Callback, demand, names_of
from rlweights.running.config import agent_file
from rlweights.running.config.messages import first_line
from rlweights.running.config.schema import Agent
from rlweights.running.outcome import Outcome
from rlweights.running.records import provenance, trackers
from rlweights.running.records.console import Console, Follow
from rlweights.running.records.tensorboard_server import watched
from rlweights.running.saving import run_folder
from rlweights.running.saving.checkpoints import THREADS, Checkpoints
from rlweights.running.saving.run_state import info_tag
from rlweights.running.trainer import Trainer
from rlweights.running.warm_start import START, WarmStart

CALLBACKS = "callbacks.json"
"""Names the callbacks of a run, in its folder: it is resumed with them."""

FolderOf = Callable[[Agent, list[Path], dict[str, bytes]], Path]
"""Makes a run folder of an agent, the files that it names, and further files by name."""


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
    follow: Follow | None = None,
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
        follow: Is told how far the run is, whether it is quiet or not.

    Raises:
        ConfigError: If nothing can be trained; `rlweights.errors` lists what else can go wrong.
    """
    session = _Session(name, runs, quiet, watch, callbacks, follow)

    def folder_of(agent: Agent, files: list[Path], beside: dict[str, bytes]) -> Path:
        return run_folder.create(runs, name, agent, source, files, beside)

    return session.begin(agent, source, folder, start, folder_of)


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
    session = _Session(run.resolve().parent.name, run.parent.parent, quiet, watch, callbacks)
    before = run_folder.read(run)
    return session.resume(run, before, agent_file.load(run / agent_file.AGENT, overrides))


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
    follow: Follow | None = None,
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
        follow: See `begin`.

    Raises:
        ConfigError: If the folder holds something else, or nothing can be trained; see also `begin`.
    """
    session = _Session(run.resolve().parent.name, run.parent, quiet, watch, callbacks, follow)
    if run_folder.is_run(run):
        return session.resume(run, run_folder.read(run), run_folder.with_copies(agent))

    def folder_of(agent: Agent, files: list[Path], beside: dict[str, bytes]) -> Path:
        run_folder.create_at(run, agent, source, files, beside)
        return run

    return session.begin(agent, source, folder, start, folder_of)


@dataclasses.dataclass(frozen=True)
class _Session:
    """What every way to train has in common.

    Args:
        name: Names the agent in the header.
        runs: Folder of all runs, which TensorBoard shows.
        quiet: Whether to show no progress.
        watch: Whether to start TensorBoard beside the training.
        callbacks: The user's own code beside the run.
        follow: Is told how far the run is.
    """

    name: str
    runs: Path
    quiet: bool
    watch: bool
    callbacks: Sequence[Callback]
    follow: Follow | None = None

    def begin(
        self, agent: Agent, source: str, folder: Path, start: WarmStart | None, folder_of: FolderOf
    ) -> Outcome:
        """Trains into a folder that is made once the agent is known to be one that can be trained."""
        beside = {CALLBACKS: _listed(self.callbacks)} if self.callbacks else {}
        with waiting("building the agent", self.quiet):
            assembly, start = _assembled(agent, source, folder, start)
            if start is not None:
                beside[START] = start.encoded()
            beside[provenance.FILE] = provenance.encoded([provenance.provenance()])
            # A run goes on with the masks that it began with.
            assembly.agent = agent = _with(agent, {"action_mask": assembly.environments.action_mask})
            agent = _as_found(agent, assembly)
            trainer = Trainer(assembly, self._console(agent), self.callbacks)
        with trainer:
            return self._train(trainer, folder_of(agent, assembly.files.loaded, beside), start)

    def resume(self, run: Path, before: Agent, agent: Agent) -> Outcome:
        """Goes on with a run as an agent that may differ from the one before in what changes nothing."""
        source, begun_with = str(run / agent_file.AGENT), _names(run)
        if agent.environment.action_mask == "auto":
            agent = _with(agent, {"action_mask": before.environment.action_mask})
        run_folder.refuse_changes(before, agent, source)
        demand(self.callbacks, begun_with, str(run))
        threads = _threads_of(run)
        with waiting("building the agent", self.quiet):
            start = WarmStart.recorded(run)
            assembly, start = _assembled(agent, source, run, start, threads.number)
            trainer = Trainer(assembly, self._console(agent), self.callbacks)
        with trainer:
            if len(self.callbacks) > len(begun_with):
                run_folder.add(run, CALLBACKS, _listed(self.callbacks))
            return self._train(trainer, run, start, resume=True, recorded=threads.recorded)

    def _console(self, agent: Agent) -> Console:
        total, infos = agent.total_iterations * agent.steps_per_iteration, map(info_tag, agent.logging.info)
        return Console(total, quiet=self.quiet, infos=tuple(infos), follow=self.follow)

    def _train(
        self,
        trainer: Trainer,
        run: Path,
        start: WarmStart | None,
        resume: bool = False,
        recorded: int | None = None,
    ) -> Outcome:
        console = trainer.console
        begins = [] if start is None else [f"begins with  the weights of {start}"]
        with contextlib.ExitStack() as stack:
            stack.callback(console.close)
            if self.watch:
                early: list[str] = []
                say = early.append
                with waiting("starting TensorBoard", self.quiet):
                    stack.enter_context(watched(self.runs, lambda line: say(line)))()
                say = console.message
                for line in early:
                    console.message(line)  # the address comes first
            console.start([*header(trainer.assembly, trainer.evaluations, self.name, run), *begins])
            threads = threads_remarks(trainer.assembly, recorded)
            for remark in [*trainer.assembly.remarks(), *threads]:
                console.message(remark)
            began = provenance.provenance()
            outcome = trainer.run(run, resume)
            if resume and outcome.made:
                provenance.write(run, began)
            console.summary(summary(trainer.agent, outcome, self.runs, own_steps(trainer.assembly)))
        return outcome


def _as_found(agent: Agent, assembly: Assembly) -> Agent:
    """The agent, with the folder that its environment was imported from: looking at a run needs it."""
    home = assembly.environments.home
    return agent if home is None else _with(agent, {"folder": home})


def _with(agent: Agent, found: dict[str, Any]) -> Agent:
    """The agent with other settings of its environment."""
    return agent.model_copy(update={"environment": agent.environment.model_copy(update=found)})


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
        return json.loads(files.read_text(path)) if path.exists() else []
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {first_line(error)}") from None


class _Threads(NamedTuple):
    """How many threads a run goes on with, and how many it says that it had; None: it does not say."""

    number: int
    recorded: int | None


def _threads_of(run: Path) -> _Threads:
    """The number of threads of a run: its newest checkpoint's, or that of its beginning without one."""
    found = None
    with contextlib.suppress(CheckpointError):  # what is damaged is told where the checkpoint is taken over
        found = Checkpoints(run / "checkpoints").load_latest(on_damaged=lambda line: None)
    told = provenance.sessions(run)[-1:]
    sources = ([found[2]] if found is not None else []) + told
    recorded = next((each[THREADS] for each in sources if isinstance(each.get(THREADS), int)), None)
    # Where nothing is recorded, TensorFlow took as many as there were cores.
    return _Threads(recorded or next((each["cores"] for each in told if "cores" in each), cores()), recorded)


def _assembled(
    agent: Agent, source: str, folder: Path, start: WarmStart | None, threads: int | None = None
) -> tuple[Assembly, WarmStart | None]:
    """Builds an agent, on the weights of a start if there is one; returns what of it the agent has taken."""
    trackers.check(agent, source)
    if start is None:
        return Assembly(agent, source, folder, threads=threads), None
    assembly = Assembly(agent, source, folder, start.weights, str(start), threads)
    start = start.kept_by(assembly)
    start.apply(assembly)
    return assembly, start
