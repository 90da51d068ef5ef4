"""How far a run has come: everything about it that is not a variable of TensorFlow's."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlweights.rollout import Episodes

WINDOW = 100
"""Episodes over which `rollout/ep_rew_mean` is a mean, as in Stable-Baselines3."""


@dataclass
class EpisodeWindow:
    """The newest iterations that together hold at least WINDOW episodes."""

    iterations: deque[tuple[int, float, int]] = field(default_factory=deque)
    count: int = 0

    def add(self, episodes: Episodes) -> None:
        """Adds the episodes that ended in one iteration; returns that are not finite do not count."""
        if episodes.count == 0 or not math.isfinite(episodes.total_return):
            return
        self.iterations.append((episodes.count, episodes.total_return, episodes.total_length))
        self.count += episodes.count
        while self.count - self.iterations[0][0] >= WINDOW:
            self.count -= self.iterations.popleft()[0]

    def scalars(self) -> dict[str, float]:
        """Mean return and length; nothing while no episode has ended."""
        if not self.count:
            return {}
        return {
            "rollout/ep_rew_mean": sum(r for _, r, _ in self.iterations) / self.count,
            "rollout/ep_len_mean": sum(n for _, _, n in self.iterations) / self.count,
        }


@dataclass
class Best:
    """The weights of the best evaluation so far; while there was none, those of the beginning."""

    weights: dict[str, np.ndarray]
    mean: float | None = None
    env_steps: int = 0

    def beaten_by(self, mean: float) -> bool:
        """Whether a mean return is at least as good; of equal ones the newest counts, NaN never does."""
        return math.isfinite(mean) and (self.mean is None or mean >= self.mean)


@dataclass
class Progress:
    """Where a run stands between two iterations.

    Attributes:
        best: The weights of the best evaluation.
        iteration: Iterations made.
        attempt: How often the run went back to a checkpoint; each attempt draws other random numbers.
        finished: Whether the budget is used up and the last evaluation made.
        window: The newest episodes.
    """

    best: Best
    iteration: int = 0
    attempt: int = 0
    finished: bool = False
    window: EpisodeWindow = field(default_factory=EpisodeWindow)

    def metadata(self) -> dict[str, Any]:
        """Returns all but the weights, as JSON can hold it."""
        return {
            "iteration": self.iteration,
            "attempt": self.attempt,
            "finished": self.finished,
            "best": [self.best.mean, self.best.env_steps],
            "window": [list(each) for each in self.window.iterations],
        }

    @classmethod
    def of(cls, metadata: Mapping[str, Any], best: dict[str, np.ndarray]) -> "Progress":
        """Returns the progress that `metadata` described, with the weights of the best evaluation."""
        progress = cls(Best(best, *metadata["best"]))
        progress.iteration = metadata["iteration"]
        progress.attempt = metadata["attempt"]
        progress.finished = metadata["finished"]
        for episodes in metadata["window"]:
            progress.window.add(Episodes(*episodes))
        return progress
