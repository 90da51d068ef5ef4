"""The protocol of a training loop: iterations of rollout and update, whatever steps the environments."""

from typing import Any, Protocol

from rlweights.learning.batch import Episodes
from rlweights.weights.arrays import Array

Row = tuple[dict[str, float], Episodes]
"""Of one iteration: its scalars by tag, and the episodes that ended in it."""


class Loop(Protocol):
    """Runs iterations of rollout and update."""

    variables: list[Any]
    """State beyond the learner's that a checkpoint must hold."""

    exact: bool
    """Whether what follows depends on the variables alone, without a boundary: any iteration may be saved."""

    def boundary(self, iteration: int, attempt: int) -> None:
        """Makes what follows depend on nothing but the variables, (iteration, attempt) and the seed."""
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
