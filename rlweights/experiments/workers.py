"""Where trials run: processes of their own on the cores of this machine."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rlweights.backend import configure
from rlweights.errors import STOPPED, RunLockedError, guarded
from rlweights.running.interrupts import NUMBERS
from rlweights.running.leash import end_with_parent
from rlweights.running.recipe import Recipe
from rlweights.running.records.console import Follow
from rlweights.running.session import exit_code

_UNLOCKED_WITHIN = 20.0
"""Seconds in which a trial whose parent was killed has released its folder for the next one."""


_TOLD_EVERY = 0.25
"""Seconds between two lines about how far a trial is."""


@dataclass(frozen=True)
class Trial:
    """An agent with its overrides and its seed: an ordinary run, in a process of its own.

    Attributes:
        name: What it is called where trials are listed.
        agent: See `Recipe`.
        env: See `Recipe`.
        overrides: What differs, as after --set.
        runs: Folder of all runs, in which the trial gets a new run folder.
        folder: Its run folder instead: begun, or gone on with.
        threads: Threads of its own; 0: as TensorFlow likes. The number changes the last bits of large
            products, so trials that are to be repeated elsewhere say it.
        start: See `Recipe`.
        start_optimizer: See `Recipe`.
        device: See `rlweights.backend.configure`.
    """

    name: str
    agent: str | None
    env: str | None = None
    overrides: tuple[str, ...] = ()
    runs: Path = Path("runs")
    folder: Path | None = None
    threads: int = 0
    start: str | None = None
    start_optimizer: bool = False
    device: str | None = None

    def to_json(self) -> str:
        """Returns the trial as one line."""
        return json.dumps(vars(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "Trial":
        """Returns the trial of a line."""
        data = json.loads(text)
        data["folder"] = None if data["folder"] is None else Path(data["folder"])
        return cls(**data | {"overrides": tuple(data["overrides"]), "runs": Path(data["runs"])})


@dataclass(frozen=True)
class Ended:
    """How one trial ended: its figures, or the line that says why there are none."""

    trial: Trial
    code: int
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def mean(self) -> float | None:
        """Mean return of the final evaluation, if there was one."""
        return self.facts.get("mean")


class Processes:
    """Trains trials in processes of their own, and passes on the signals that ask them to stop.

    No process outlives this one: each holds the end of a pipe, and ends when the other end is gone.

    Args:
        at_once: How many run at the same time.
        follow: Is told, by other threads, how far a trial is: the trial, its steps, its return, its rate.
    """

    def __init__(self, at_once: int, follow: Callable[..., None] | None = None):
        self._at_once = at_once
        self._follow = follow
        self._running: set[subprocess.Popen[str]] = set()
        self._signal: int | None = None
        self._lock = threading.RLock()  # a second signal may come while the first is passed on

    @property
    def stopped(self) -> bool:
        """Whether a signal has asked to stop."""
        return self._signal is not None

    def train(self, trials: Iterable[Trial]) -> Iterator[Ended]:
        """Yields how each trial ended, as they end; they are started in their order."""
        with self._signals(), ThreadPoolExecutor(self._at_once) as pool:
            for future in as_completed([pool.submit(self._one, trial) for trial in trials]):
                yield future.result()

    def _one(self, trial: Trial) -> Ended:
        # What it says may be more than a pipe holds, and is wanted only if it fails.
        with tempfile.TemporaryFile("w+", errors="replace") as said:
            return self._told(trial, said)

    def _told(self, trial: Trial, said: IO[str]) -> Ended:
        held, ours = os.pipe()
        facts: dict[str, Any] | None = None
        try:
            with self._lock:  # a signal finds each process either running or never started
                if self._signal is not None:
                    return Ended(trial, 128 + self._signal)
                # A session of its own: Ctrl-C reaches all of a terminal's processes, and two mean "at once".
                process = subprocess.Popen(
                    [sys.executable, "-m", "rlweights.experiments.workers", trial.to_json()],
                    stdin=held,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    text=True,
                    start_new_session=True,
                    env=_environment(trial.threads),
                )
                self._running.add(process)
            with process:
                for line in process.stdout or ():
                    if not line.startswith('{"'):
                        continue  # what libraries print behind Python's back
                    told = json.loads(line)
                    if "code" in told:
                        facts = told
                    elif self._follow is not None:
                        self._follow(trial, told["env_steps"], told["return"], told["rate"])
            self._running.discard(process)
        finally:
            os.close(held)
            os.close(ours)
        if facts is not None:
            return Ended(trial, facts.pop("code"), facts)
        if process.returncode < 0:
            return Ended(trial, 128 - process.returncode)
        said.seek(0)
        last = said.read().strip().splitlines()[-1:] or ["it said nothing"]
        return Ended(trial, process.returncode or STOPPED, error=last[0].removeprefix("error: "))

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Passes signals that end a run on to the processes; none is started after the first."""

        def handle(number: int, frame: object) -> None:
            with self._lock:
                self._signal = number
                for process in list(self._running):
                    process.send_signal(number)

        previous = {number: signal.signal(number, handle) for number in NUMBERS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _process(line: str) -> int:
    """What each process does: trains one trial, and says in one line of JSON how it ended."""
    trial = Trial.from_json(line)

    def session() -> int:
        configure(trial.device)
        follow = _teller(sys.stdout)
        with contextlib.redirect_stdout(sys.stderr):
            recipe = Recipe(
                trial.agent,
                trial.overrides,
                env=trial.env,
                start=trial.start,
                start_optimizer=trial.start_optimizer,
            )
            outcome = _trained(trial, recipe, follow)
        facts: dict[str, Any] = {"code": exit_code(outcome), "run": str(outcome.folder)}
        facts |= {"seconds": outcome.seconds, "env_steps": outcome.env_steps}
        if outcome.evaluation is not None:
            facts |= {"mean": outcome.evaluation.mean, "std": outcome.evaluation.std}
        print(json.dumps(facts))
        return facts["code"]

    return guarded(session)


def _teller(file: IO[str]) -> Follow:
    """Returns what writes how far a trial is, one line of JSON each time, and not too often."""
    due = 0.0

    def tell(env_steps: int, value: float | None, rate: float | None) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + _TOLD_EVERY
            print(json.dumps({"env_steps": env_steps, "return": value, "rate": rate}), file=file, flush=True)

    return tell


def _trained(trial: Trial, recipe: Recipe, follow: Follow) -> Any:
    """Trains; waits a little for the folder where a killed parent's process is about to leave it."""
    deadline = time.monotonic() + _UNLOCKED_WITHIN
    while True:
        try:
            place = {"folder": trial.folder, "resume": trial.folder is not None}
            return recipe.begin(trial.runs, **place, quiet=True, follow=follow)
        except RunLockedError:
            if trial.folder is None or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _environment(threads: int) -> dict[str, str] | None:
    """The variables of a process that tell TensorFlow how many threads to use; None: those of this one."""
    if not threads:
        return None
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads))}


if __name__ == "__main__":
    end_with_parent(lambda: os._exit(STOPPED))
    raise SystemExit(_process(sys.argv[1]))
