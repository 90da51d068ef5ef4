"""The throughput of a run."""

import contextlib
import time
from collections.abc import Iterator


class Rate:
    """Environment steps per second over about the last second of training, evaluations not counted."""

    def __init__(self) -> None:
        self.value: float | None = None
        self._since: float | None = None  # unset: the first call would measure the compilation
        self._steps = 0

    def tick(self, env_steps: int) -> None:
        """Counts environment steps that have just been made."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            return
        self._steps += env_steps
        if self.value is None or now - self._since > 1.0:
            self.value = self._steps / max(now - self._since, 1e-9)
            self._since, self._steps = now, 0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time of a `with` block."""
        started = time.monotonic()
        yield
        if self._since is not None:
            self._since += time.monotonic() - started
