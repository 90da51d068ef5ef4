"""Where trials run: processes of their own on the cores of this machine."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlweights.backend import configure
from rlweights.errors import STOPPED, guarded
from rlweights.running.recipe import Recipe
from rlweights.running.session import exit_code


@dataclass(frozen=True)
class Ended:
    """How one seed ended: its figures, or the line that says why there are none."""

    seed: int
    code: int
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def mean(self) -> float | None:
        """Mean return of the final evaluation, if there was one."""
        return self.facts.get("mean")


class Processes:
    """Trains seeds in processes of their own, and passes on the signals that ask them to stop.

    Args:
        at_once: How many run at the same time.
    """

    def __init__(self, at_once: int):
        self._at_once = at_once
        self._running: set[subprocess.Popen[str]] = set()
        self._signal: int | None = None
        self._lock = threading.RLock()  # a second signal may come while the first is passed on

    def train(
        self,
        seeds: Sequence[int],
        agent: str,
        env: str | None,
        overrides: Sequence[str],
        runs: Path,
        start: Path | None = None,
        start_optimizer: bool = False,
    ) -> Iterator[Ended]:
        """Yields how each seed ended, as they end."""
        begins = None if start is None else str(start), start_optimizer
        with self._signals(), ThreadPoolExecutor(self._at_once) as pool:
            futures = [
                pool.submit(self._one, seed, (agent, env, [*overrides, f"seed={seed}"], str(runs), *begins))
                for seed in seeds
            ]
            for future in as_completed(futures):
                yield future.result()

    def _one(self, seed: int, arguments: Sequence[Any]) -> Ended:
        with self._lock:  # a signal finds each process either running or never started
            if self._signal is not None:
                return Ended(seed, 128 + self._signal)
            # A session of its own: Ctrl-C reaches all of a terminal's processes, and two mean "at once".
            process = subprocess.Popen(
                [sys.executable, "-m", "rlweights.experiments.workers", json.dumps(arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self._running.add(process)
        with process:
            output, errors = process.communicate()
        self._running.discard(process)
        lines = output.splitlines()
        if lines and lines[-1].startswith("{"):
            facts = json.loads(lines[-1])
            return Ended(seed, facts.pop("code"), facts)
        if process.returncode < 0:
            return Ended(seed, 128 - process.returncode)
        last = errors.strip().splitlines()[-1:] or ["it said nothing"]
        return Ended(seed, process.returncode or STOPPED, error=last[0].removeprefix("error: "))

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Passes SIGINT and SIGTERM on to the processes; none is started after the first."""

        def handle(number, frame):
            with self._lock:
                self._signal = number
                for process in list(self._running):
                    process.send_signal(number)

        previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _process(arguments: str) -> int:
    """What each process does: trains one seed, and says in one line of JSON how it ended."""
    agent, env, overrides, runs, *begins = json.loads(arguments)
    start, start_optimizer = begins or (None, False)

    def session() -> int:
        with contextlib.redirect_stdout(sys.stderr):
            recipe = Recipe(agent, overrides, env=env, start=start, start_optimizer=start_optimizer)
            outcome = recipe.begin(Path(runs), quiet=True)
        facts: dict[str, Any] = {"code": exit_code(outcome), "run": str(outcome.folder)}
        facts |= {"seconds": outcome.seconds, "env_steps": outcome.env_steps}
        if outcome.evaluation is not None:
            facts |= {"mean": outcome.evaluation.mean, "std": outcome.evaluation.std}
        print(json.dumps(facts))
        return facts["code"]

    return guarded(session)


if __name__ == "__main__":
    configure()
    raise SystemExit(_process(sys.argv[1]))
