"""Single environments in a process each: one that dies or hangs is named, and ends the run."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from typing import Any

import gymnasium as gym
from gymnasium.vector.async_vector_env import _async_worker

from rlweights.errors import BrokenEnvironment

_GONE = (EOFError, ConnectionError, BrokenPipeError)
"""What a pipe says whose other end is no more."""


def work(index: int, make: Callable[[], gym.Env], *others: Any) -> None:
    """What each process does: Gymnasium's work, until the other end of its pipe is gone, with the parent.

    Args:
        index: See Gymnasium's worker.
        make: Makes the environment.
        *others: See Gymnasium's worker.
    """
    env = make()  # what this raises is shown
    with contextlib.suppress(*_GONE):
        _async_worker(index, lambda: env, *others)


class WatchedProcesses(gym.vector.AsyncVectorEnv):
    """Gymnasium's asynchronous environments, whose processes may die or hang.

    Args:
        makers: Make one environment each.
        name: What errors call the environment.
        patience: Seconds to wait for an answer to `reset` and `step`.
        **options: For `gymnasium.vector.AsyncVectorEnv`.
    """

    def __init__(self, makers: Any, name: str, patience: float, **options: Any):
        self.called, self._patience, self._lost = name, patience, False
        super().__init__(makers, worker=work, **options)

    def reset(self, **arguments: Any) -> Any:
        """Resets all environments.

        Raises:
            BrokenEnvironment: If a process has died, or does not answer in time.
        """
        with self._watched("reset"):
            return super().reset(**arguments)

    def step(self, actions: Any) -> Any:
        """Steps all environments; errors as `reset`."""
        with self._watched("step"):
            return super().step(actions)

    def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Calls a method of all environments, however long it takes: episodes are played again by one."""
        with self._watched(name):
            return super().call(name, *arguments, **named)

    def reset_wait(self, timeout: float | None = None) -> Any:
        """Waits for the observations of `reset`, as long as the patience lasts."""
        self._await("reset")
        return super().reset_wait(timeout)

    def step_wait(self, timeout: float | None = None) -> Any:
        """Waits for the outcome of `step`, as long as the patience lasts."""
        self._await("step")
        return super().step_wait(timeout)

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Ends the processes: those that are well by themselves, all of them at once where one is lost."""
        try:
            super().close_extras(self._patience if timeout is None else timeout, terminate or self._lost)
        except Exception:  # a dead process cannot be asked to close
            for process in self.processes:
                with contextlib.suppress(Exception):
                    process.kill()
                    process.join()

    def _check_spaces(self) -> None:
        with self._watched("its making"):
            self._ask_for_spaces()

    def _ask_for_spaces(self) -> None:
        super()._check_spaces()

    @contextlib.contextmanager
    def _watched(self, what: str) -> Iterator[None]:
        """Names the environment whose process is gone."""
        try:
            yield
        except _GONE:
            raise self._death(what) from None

    def _await(self, what: str) -> None:
        """Waits until every process has answered, or is gone; says which one does neither in time."""
        until = time.monotonic() + self._patience
        waiting = {i: pipe for i, pipe in enumerate(self.parent_pipes) if pipe is not None}
        while waiting:
            ready = wait(list(waiting.values()), max(0.0, until - time.monotonic()))
            waiting = {i: pipe for i, pipe in waiting.items() if pipe not in ready}
            if waiting and not ready:
                self._lost = True
                others = f" (nor have {len(waiting) - 1} more)" if len(waiting) > 1 else ""
                raise BrokenEnvironment(
                    f"{self.called}: environment {next(iter(waiting))} has not answered {what}() for "
                    f"{self._patience:g} seconds{others}: environment.timeout"
                )

    def _death(self, what: str) -> BrokenEnvironment:
        self._lost = True
        time.sleep(0.1)  # until the system knows how it ended
        dead = [(i, each.exitcode) for i, each in enumerate(self.processes) if each.exitcode is not None]
        i, code = dead[0] if dead else (0, None)
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        called = f"{what}()" if what.isidentifier() else what
        return BrokenEnvironment(f"{self.called}: the process of environment {i} died in {called} ({how})")

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        """Passes on what an environment has raised, without Gymnasium's own lines about it."""
        level = gym.logger.min_level
        gym.logger.min_level = gym.logger.ERROR + 1
        try:
            super()._raise_if_errors(successes)
        finally:
            gym.logger.min_level = level
