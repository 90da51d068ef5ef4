"""What flows: rollouts, minibatches, and the episodes that ended in them."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Batch(NamedTuple):
    """One rollout."""

    observations: Any  # [T, N, ...]
    actions: Any  # [T, N, ...]
    rewards: Any  # [T, N] float32
    terminated: Any  # [T, N] float32, 1 where the step ended its episode for good
    truncated: Any  # [T, N] float32, 1 where it was cut off
    valid: Any  # [T, N] float32, 0 where the step was a reset that ignored the action
    last_observations: Any  # [N, ...], after the last step
    final_values: Any  # [T, N] float32, V(final observation) where `has_final`
    has_final: Any  # [T, N] float32, 1 where the next observation belongs to another episode


@dataclass
class Episodes:
    """The episodes that ended in one iteration; those whose return is not finite do not count."""

    count: int = 0
    total_return: float = 0.0
    total_length: int = 0
    nonfinite: str | None = None
    """The first reward or observation that was not finite, in words; the learner skips such updates."""
    phases: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Where tasks change: how many ended in each phase, and the sum of their returns."""
    running_phases: tuple[int, int] | None = None
    """The oldest and the newest phase of the episodes that go on; None where tasks do not change."""


class Minibatch(NamedTuple):
    """What a loss gets to see; B is the size of a minibatch."""

    actions: Any  # [B, ...]
    old_log_prob: Any  # [B], of the acting policy
    old_values: Any  # [B]
    advantages: Any  # [B]
    returns: Any  # [B], the value targets
    valid: Any  # [B], 0 where the step was a reset that ignored the action
