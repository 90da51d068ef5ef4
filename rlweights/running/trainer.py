"""The training loop: rollouts and updates, records, evaluation, checkpoints."""

import contextlib
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlweights.errors import (
    FORESEEN,
    BrokenEnvironment,
    CallbackError,
    CheckpointError,
    ConfigError,
    RecordsError,
    TrainingStopped,
)
from rlweights.learning.batch import Episodes
from rlweights.learning.evaluation import Result
from rlweights.learning.inspection import Inspection
from rlweights.running.building.assembly import Assembly
from rlweights.running.callbacks import Callback, Callbacks, names_of
from rlweights.running.config.messages import first_line
from rlweights.running.diagnosis.alarms import Alarms
from rlweights.running.evaluator import Evaluator
from rlweights.running.guard import Guard, NotFinite
from rlweights.running.interrupts import Interrupts
from rlweights.running.outcome import Outcome
from rlweights.running.records import layout, provenance, trackers
from rlweights.running.records.console import Console
from rlweights.running.records.records import Records
from rlweights.running.records.throughput import Rate
from rlweights.running.saving import run_folder
from rlweights.running.saving.run_lock import RunLock
from rlweights.running.saving.run_state import Best, Progress, RunState
from rlweights.running.video import gif
from rlweights.weights.arrays import Array

LOOKS = 24
"""Measurements of weights and plasticity in a run at least, unless the agent file or too few rows forbid."""


class Trainer:
    """Trains one agent into one run folder.

    Whatever a checkpoint does not hold is a pure function of the seed and the iteration, or is measured anew,
    so a run that was killed at any moment and resumed ends like one that was not.

    Args:
        assembly: The agent.
        console: Shows progress.
        callbacks: The user's own code beside the run.

    Raises:
        ConfigError: If one of them is no callback.
    """

    def __init__(self, assembly: Assembly, console: Console, callbacks: Sequence[Callback] = ()):
        names_of(callbacks)
        self.assembly = assembly
        self.agent = assembly.agent
        self.learner = assembly.learner
        self.console = console
        self.loop = assembly.make_loop()
        self.folder = Path()
        self._callbacks = Callbacks(callbacks, assembly, self.loop)
        self._callbacks_began: dict[str, Any] = {}
        self._warned = False
        self._progress = Progress(Best(self._weights()))
        self._guard = Guard(self.agent.guard)
        self._interrupts = Interrupts()
        self._rate = Rate()
        try:
            self._evaluator = Evaluator(assembly, self._say)
        except BaseException:
            self.loop.close()
            raise
        self._result: Result | None = None
        self._initial = [v.numpy() for v in self.learner.networks.trainable_variables]
        self._inspection: Inspection | None = None
        self._probe: Array | None = None
        self._state: RunState
        self._alarms: Alarms
        self._loop_state: dict[str, Array] = {}
        self._rows, self._evaluations, self._saves = (
            _iterations(steps, self.agent.steps_per_iteration)
            for steps in (
                self.agent.logging.every,
                self.agent.evaluation.every if self.agent.evaluation.episodes else 0,
                self.agent.checkpoint.every,
            )
        )
        looks = self.agent.logging.diagnostics_every
        self._diagnostics = (
            max(1, self.agent.total_iterations // self._rows // LOOKS) if looks is None else looks
        )

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *error: object) -> None:
        self._evaluator.close()
        self.loop.close()

    @property
    def evaluations(self) -> str:
        """What will be evaluated, in words; "" if nothing is."""
        return self._evaluator.plan

    @property
    def iteration(self) -> int:
        """Iterations so far."""
        return self._progress.iteration

    @property
    def env_steps(self) -> int:
        """Environment steps so far."""
        return self.iteration * self.agent.steps_per_iteration

    def run(self, folder: Path, resume: bool = False) -> Outcome:
        """Trains to the end of the budget, or to the first signal.

        Args:
            folder: The run folder.
            resume: Whether to go on from the folder's newest checkpoint. A finished run is left as it is.

        Raises:
            TrainingStopped: If updates were not finite for too long.
            CallbackError: If a callback failed.
            BrokenEnvironment: If the environment failed.
            CheckpointError: If a checkpoint could not be written, or if there are some and none can be read.
            RecordsError: If the records could not be written.
            RunLockedError: If another process trains into the folder.
            ConfigError: If the run cannot be resumed as this agent.
        """
        started = time.monotonic()
        self.folder = folder
        with contextlib.ExitStack() as stack:
            stack.enter_context(RunLock(folder))
            self._interrupts = stack.enter_context(Interrupts())
            self._tell(self._callbacks.begin, folder)
            self._callbacks_began = self._callbacks.state()
            self._state = RunState(folder, self.agent, self.learner, self.loop)
            if resume and self._finished_before():
                self._tell(self._callbacks.end, self.iteration)
                seconds, stopped = time.monotonic() - started, self._callbacks.stopped
                return Outcome(folder, None, self.env_steps, seconds, stopped=stopped)
            first = self.env_steps
            told = trackers.Trackers(self.agent, folder, self.console.message)
            kept = (first or -1) if resume else None  # what starts over has no step 0 yet
            records = stack.enter_context(Records(folder, resume_step=kept, tracker=told))
            self._introduce(records)
            self._alarms = Alarms(folder, self.agent, first if resume else -1, self.console.remark)
            try:
                self._set_out()
                if not self._train(records):
                    self._end(records, success=False)
            except Exception as error:
                with contextlib.suppress(CheckpointError, RecordsError):  # what came first is told
                    self._end(records, success=False)
                raise self._explained(error) from error
            self._tell(self._callbacks.end, self.iteration)
        return Outcome(
            folder,
            self._result,
            self.env_steps,
            time.monotonic() - started,
            self._interrupts.number,
            self._state.newest or 0,
            self.env_steps - first,
            self._callbacks.stopped,
            self._progress.finished,
            self._rate,
            self._progress.window.scalars().get("rollout/ep_rew_mean"),
        )

    def _tell(self, hook: Callable[..., None], *arguments: Any) -> None:
        """Calls callbacks before or after training; what goes wrong in them is explained."""
        try:
            hook(*arguments)
        except CallbackError as error:
            raise self._explained(error) from error

    def _finished_before(self) -> bool:
        """Takes over the newest checkpoint; True if there is nothing left to train."""
        found = self._restore()
        total = self.agent.total_iterations
        if self.iteration > total:
            raise ConfigError(
                f"{self.folder}: budget.total_timesteps = {self.agent.budget.total_timesteps} is less than "
                f"the {self.env_steps} steps that the run has made already"
            )
        if self._progress.finished and (self.iteration == total or self._callbacks.stopped):
            return True
        self._progress.finished = False
        run_folder.update(self.folder, self.agent)
        self._state.write_best(self._progress)
        if not found:
            self.console.message("there is no checkpoint yet: the run starts over")
        return False

    def _set_out(self) -> None:
        """Begins the episodes of a run, or goes on with those of the checkpoint that it is resumed from."""
        self.loop.set_parameters(self._callbacks.parameters)
        if self._loop_state:
            self.loop.restore(self._loop_state)
        else:
            self.loop.begin(self.iteration, self._progress.attempt)
        if self.loop.cuts:
            self.console.message(self.loop.cuts)

    def _explained(self, error: Exception) -> Exception:
        """What ends a command after training has begun: one line, with the traceback in the run folder."""
        foreseen = isinstance(error, FORESEEN) and not isinstance(error, ConfigError)
        details = getattr(error, "details", "")
        if foreseen and not details:
            return error
        path = self.folder / "error.txt"
        try:
            path.write_text(details or "".join(traceback.format_exception(error)), encoding="utf-8")
        except OSError:
            return error
        text = str(error) if isinstance(error, FORESEEN) else f"{type(error).__name__}: {first_line(error)}"
        return (type(error) if foreseen else TrainingStopped)(f"{text}. The whole traceback: {path}")

    def _introduce(self, records: Records) -> None:
        records.summary(layout.layout(), self.env_steps)
        records.summary(layout.hparams_start(self.agent.model_dump(by_alias=True)), self.env_steps)
        records.text(self.env_steps, "agent", f"```toml\n{self.agent.to_toml()}\n```")
        records.text(self.env_steps, "run", provenance.markdown(provenance.provenance()))

    def _train(self, records: Records) -> bool:
        """Trains, evaluates and saves; False if a signal came before the end."""
        while self._interrupts.number is None:
            try:
                if self._progress.evaluation_due:
                    self._evaluate(records, self.agent.evaluation.episodes)
                if self.iteration < self.agent.total_iterations and not self._callbacks.stopped:
                    self._advance(records)
                    continue
                self._result = self._evaluate(records, self.agent.evaluation.final_episodes)
                self._end(records, success=True)
                self._progress.finished = True
                self._save(records)  # last: a run that is marked as finished has everything else on disk
                return True
            except NotFinite as error:
                self._go_back(str(error), records)
            except BrokenEnvironment:
                if self._interrupts.number is None:
                    raise
                return False  # the signal has reached processes of the environment's own
        if self.iteration:
            with contextlib.suppress(NotFinite):  # then the last good checkpoint is the one to resume
                self._save(records)
        return False

    def _advance(self, records: Records) -> None:
        """Runs some iterations, up to whatever needs the weights as they are then, and does it."""
        total = self.agent.total_iterations
        looks = [self._rows * each for each in (self._diagnostics, self.agent.logging.histograms_every)]
        whole = self._callbacks.every_iteration
        calls = min(self._rows, self.loop.most_iterations) if whole else 0
        cycles = [every for every in (self._evaluations, self._saves, *looks, calls) if every]
        first = [1] if self._diagnostics and not self.iteration else []
        limit = min([total - self.iteration, *first, *(every - self.iteration % every for every in cycles)])
        done = self.loop.advance(self.iteration, limit)
        # How much one call does depends on the clock; what a callback sees and changes must not.
        while whole and len(done) < limit:
            done += self.loop.advance(self.iteration + len(done), limit - len(done))
        if first and not self._progress.attempt:
            records.write(0, self._inspected().measure_initial())
        self._rate.tick(len(done) * self.agent.steps_per_iteration)  # after what compiles
        for scalars, episodes in done:
            self._write_recorded(records)
            self._progress.iteration += 1
            self._progress.window.add(episodes)
            self._guard.judge(scalars, episodes)
            if episodes.nonfinite is not None:
                self.console.note_reason(episodes.nonfinite)
            for failure in episodes.failures:
                self._say(f"{failure}; the environment was made anew ({episodes.recreated} so far)")
            if self.agent.environment.on_error == "recreate":
                scalars = scalars | {"environment/recreated": float(episodes.recreated)}
            self._record(records, scalars)
            self._record_phase(records, episodes)
            if whole:
                self._callbacks.iterated(self.iteration, self._progress.window.scalars() | scalars)
        if not self._warned and (warning := self.loop.warning()):
            self._warned = True
            self._say(warning)
        if self.iteration == total or self._callbacks.stopped:
            return
        if self._evaluations and self.iteration % self._evaluations == 0:
            self._evaluate(records, self.agent.evaluation.episodes)
            if self._callbacks.stopped:
                return
        if self._saves and self.iteration % self._saves == 0:
            self._save(records)
            self._guard.passed()

    def _end(self, records: Records, success: bool) -> None:
        """Saves the latest weights and ends the session in the records."""
        self._write_recorded(records)
        with self.learner.optimizer.evaluation():
            self._state.write("latest", self._weights(), {"env_steps": self.env_steps})
        records.summary(layout.hparams_end(success), self.env_steps)
        records.flush()

    def _go_back(self, bad: str, records: Records) -> None:
        """Goes back to the last checkpoint, or to the beginning, to draw other random numbers from there.

        Raises:
            TrainingStopped: If the agent file does not allow it, or it was tried too often.
        """
        step, attempt = self.env_steps, self._progress.attempt + 1
        if self._guard.may_go_back():
            if not self._restore():
                self._progress = self._state.start_over()
                self._callbacks.restore(0, self._callbacks_began)
            self.loop.set_parameters(self._callbacks.parameters)
            self._progress.attempt = attempt
            self._state.write_best(self._progress)
            records.rewind(self.env_steps)
            self._alarms.rewind(self.env_steps)
            self.loop.begin(self.iteration, attempt)
            self.console.message(
                f"not finite at step {step:,}: {bad}; back to step {self.env_steps:,}, attempt {attempt}"
            )
            return
        newest = self._state.newest
        last = "no checkpoint yet" if newest is None else f"the last good checkpoint: step {newest}"
        raise TrainingStopped(f"{self.folder}: not finite at step {step}: {bad} ({last})")

    # Records --------------------------------------------------------------------------------------

    def _record(self, records: Records, scalars: dict[str, float]) -> None:
        """Records a row of scalars if it is time to, and at longer intervals a closer look."""
        if self.iteration % self._rows and self.iteration != self.agent.total_iterations:
            return
        number, row = self.iteration // self._rows, self._progress.window.scalars() | scalars
        histograms, rate = self.agent.logging.histograms_every, self._rate.value
        last = self.iteration == self.agent.total_iterations
        if self._diagnostics and (last or number % self._diagnostics == 0):
            row |= self._inspected().measure()
        if histograms and (last or number % histograms == 0):
            for tag, spread in self._inspected().spreads().items():
                records.histogram(self.env_steps, tag, spread.values, spread.bound)
        records.write(self.env_steps, row | ({"time/fps": rate} if rate else {}))
        self.console.update(self.env_steps, row, rate)
        self._alarms.add(self.env_steps, row, records)

    def _record_phase(self, records: Records, episodes: Episodes) -> None:
        """Records what came of a phase of a changing task, in the iteration that closes it."""
        before = self.env_steps - self.agent.steps_per_iteration
        closed = self._progress.phases.add(episodes, before, self.env_steps, self.agent.logging.solved_return)
        if closed:
            records.write(self.env_steps, closed)
            self._alarms.add(self.env_steps, closed, records)

    def _write_recorded(self, records: Records) -> None:
        """Records what callbacks have to say about this step."""
        if scalars := self._callbacks.recorded():
            records.write(self.env_steps, scalars)

    def _inspected(self) -> Inspection:
        if self._inspection is None:
            self._inspection = Inspection(self.learner, self._initial, self._probed())
        return self._inspection

    def _probed(self) -> Array:
        """Observations to measure hidden units on, the same for the whole run: taken when first needed."""
        if self._probe is None:
            self._probe = self.loop.probe()
        return self._probe

    def _evaluate(self, records: Records, episodes: int) -> Result | None:
        """Evaluates clean (or averaged) weights in the real environment; keeps the best ones.

        None if no episodes are wanted. If it fails, a checkpoint is written first: what was trained is kept,
        and the evaluation is made when the run is resumed.
        """
        if not episodes:
            return None
        self._progress.evaluation_due = self.iteration < self.agent.total_iterations
        self.console.doing(f"evaluating {episodes} episodes")
        try:
            with self._rate.paused(), self.learner.optimizer.evaluation():
                result = self._evaluator.evaluate(self.assembly.acting(), episodes)
        except Exception:
            with contextlib.suppress(NotFinite, CheckpointError, RecordsError):  # the first error is told
                self._save(records)
            raise
        self._progress.evaluation_due = False
        with self.learner.optimizer.evaluation():
            act = self.assembly.acting()
            scalars = self._evaluator.scalars(result)
            stopped = self._callbacks.stopped
            self._callbacks.evaluated(self.iteration, scalars)
            if self._callbacks.stopped and not stopped:
                return result  # the last evaluation follows at once and takes its place
            if self._progress.best.beaten_by(result.mean):
                self._progress.best = Best(self._weights(), result.mean, self.env_steps)
                self._state.write_best(self._progress)
            if self._is_filmed() and (shown := self._evaluator.film(act)):
                picture = gif(shown.frames, shown.fps)
                records.animation(self.env_steps, "eval/episode", picture, shown.frames[0].shape[:2])
        records.write(self.env_steps, scalars)
        self.console.update(self.env_steps, scalars, None)
        self._alarms.add(self.env_steps, scalars, records)
        return result

    def _is_filmed(self) -> bool:
        """Whether the evaluation that is due now is filmed; the last one always is."""
        every = self.agent.evaluation.film_every * self._evaluations
        last = self.iteration == self.agent.total_iterations or self._callbacks.stopped
        return bool(last) or bool(every and self.iteration % every == 0)

    def _say(self, text: str) -> None:
        """Shows one line about this step."""
        self.console.message(f"{self.env_steps:>10,}  {text}")

    # Saving and restoring -------------------------------------------------------------------------

    def _weights(self) -> dict[str, Array]:
        """Copies of the networks' present weights, by path."""
        return {v.path: v.numpy().copy() for v in self.assembly.networks.variables}

    def _save(self, records: Records) -> None:
        """Writes a checkpoint, once everything recorded up to it is on the disk."""
        self._write_recorded(records)
        records.flush()
        self._progress.callbacks = self._callbacks.state()
        path = self._state.save(self._progress, self._probed(), self.env_steps)
        self._callbacks.saved(self.iteration, path)

    def _restore(self) -> bool:
        """Takes over the newest readable checkpoint; False if there is none yet."""
        found = self._state.restore(self.console.message)
        if found is None:
            return False
        self._progress, self._probe = found.progress, found.probe
        self._loop_state = found.loop
        self._callbacks.restore(self.iteration, found.progress.callbacks)
        return True


def _iterations(steps: int, steps_per_iteration: int) -> int:
    """Turns a distance in environment steps into iterations; 0 stays 0."""
    return max(1, round(steps / steps_per_iteration)) if steps else 0
