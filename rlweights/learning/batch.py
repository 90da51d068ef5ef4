"""Rollouts, minibatches, and the episodes that ended in them."""

from dataclasses import dataclass, field
from typing import NamedTuple

from rlweights.weights.arrays import Tensor


class Batch(NamedTuple):
    """One rollout."""

    observations: Tensor  # [T, N, ...]
    actions: Tensor  # [T, N, ...]
    rewards: Tensor  # [T, N] float32
    terminated: Tensor  # [T, N] float32, 1 where the step ended its episode for good
    truncated: Tensor  # [T, N] float32, 1 where it was cut off
    valid: Tensor  # [T, N] float32, 0 where the step was a reset that ignored the action
    last_observations: Tensor  # [N, ...], after the last step
    final_values: Tensor  # [T, N] float32, V(final observation) where `has_final`
    has_final: Tensor  # [T, N] float32, 1 where the next observation belongs to another episode


@dataclass
class Episodes:
    """The episodes that ended in one iteration; those whose return is not finite do not count."""

    count: int = 0
    total_return: float = 0.0
    total_length: int = 0
    extremes: tuple[float, float] | None = None
    """The lowest and the highest return; None while no episode has ended."""
    reported: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Scalars of the infos that ended episodes, by name: their total, and how many episodes had them."""
    failures: list[str] = field(default_factory=list)
    """What environments have raised that were made anew."""
    recreated: int = 0
    """How often environments were made anew since the run began."""
    nonfinite: str | None = None
    """The first reward or observation that was not finite, in words; the learner skips such updates."""
    phases: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Where tasks change: how many ended in each phase, and the sum of their returns."""
    running_phases: tuple[int, int] | None = None
    """The oldest and the newest phase of the episodes that go on; None where tasks do not change."""


class Minibatch(NamedTuple):
    """The samples that a loss is computed from; B is the size of a minibatch."""

    actions: Tensor  # [B, ...]
    old_log_prob: Tensor  # [B], of the acting policy
    old_values: Tensor  # [B]
    advantages: Tensor  # [B]
    returns: Tensor  # [B], the value targets
    valid: Tensor  # [B], 0 where the step was a reset that ignored the action
