"""The protocol of a training loop: iterations of rollout and update, whatever steps the environments."""

from collections.abc import Mapping
from typing import Any, Protocol

from rlweights.learning.batch import Episodes
from rlweights.weights.arrays import Array

Row = tuple[dict[str, float], Episodes]
"""Of one iteration: its scalars by tag, and the episodes that ended in it."""


class Loop(Protocol):
    """Runs iterations of rollout and update."""

    variables: list[Any]
    """State beyond the learner's that a checkpoint must hold."""

    cuts: str
    """What is cut of episodes and how often, in words; nothing at all if empty."""

    most_iterations: int
    """Iterations of one call, at most."""

    def warning(self) -> str:
        """Returns what has gone wrong and is worth one line, the same until the run ends; else nothing."""
        ...

    def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Sets attributes of the environments, by name; those that are not named get their own values.

        Where single environments are stepped, a value holds from the beginning of an environment's next
        episode on: an episode is a function of its seed, its actions and the parameters that it began with.
        Elsewhere it holds at once, and running episodes go on with it.

        Raises:
            ValueError: If the environments have no such attribute, or it cannot be set; the message says why.
        """
        ...

    def begin(self, iteration: int, attempt: int) -> None:
        """Begins new episodes: what follows depends on nothing but the variables, these two and the seed."""
        ...

    def state(self) -> dict[str, Array]:
        """Returns what is not in the variables and another loop needs to go on from here, by name."""
        ...

    def restore(self, state: Mapping[str, Array]) -> None:
        """Goes on from a state.

        Raises:
            BrokenEnvironment: If the environments do not come out where they were.
        """
        ...

    def advance(self, iteration: int, limit: int) -> list[Row]:
        """Runs at least one and at most `limit` iterations; returns scalars and episodes of each."""
        ...

    def probe(self) -> Array:
        """Returns a batch of encoded observations [B, ...] to measure hidden units on."""
        ...

    @property
    def probe_spec(self) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of the probe."""
        ...

    def close(self) -> None:
        """Releases what the loop holds."""
        ...
