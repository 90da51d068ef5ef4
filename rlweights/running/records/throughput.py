"""The throughput of a run."""

import contextlib
import time
from collections.abc import Iterator


class Rate:
    """Environment steps per second of training; the first call, which compiles, and evaluations do not count.

    Attributes:
        value: Over about the last second; None before it is known.
        seconds: How long was trained.
        paused_seconds: How long something else was done.
    """

    def __init__(self) -> None:
        self.value: float | None = None
        self.seconds = self.paused_seconds = 0.0
        self._since: float | None = None  # unset: the first call would measure the compilation
        self._steps = self._all_steps = 0

    @property
    def mean(self) -> float | None:
        """Over the whole time that was trained; None before it is known."""
        return self._all_steps / self.seconds if self.seconds else None

    def tick(self, env_steps: int) -> None:
        """Counts environment steps that have just been made."""
        now = time.monotonic()
        if self._since is None:
            self._since = self._last = now
            return
        self._steps += env_steps
        self._all_steps += env_steps
        self.seconds += now - self._last
        self._last = now
        if self.value is None or now - self._since > 1.0:
            self.value = self._steps / max(now - self._since, 1e-9)
            self._since, self._steps = now, 0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time of a `with` block."""
        started = time.monotonic()
        try:
            yield
        finally:
            elapsed = time.monotonic() - started
            self.paused_seconds += elapsed
            if self._since is not None:
                self._since += elapsed
                self._last += elapsed
