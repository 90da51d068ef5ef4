"""The guard of a run: decides whether training goes on after numbers that are not finite."""

from collections.abc import Mapping

from rlweights.learning.batch import Episodes
from rlweights.running.config import schema

MAX_ROLLBACKS = 3
"""Attempts to train past one checkpoint."""

QUANTITIES = ("weights", "observations", "rewards", "loss", "gradients")
"""Quantities that may be not finite, in the order of cause and effect."""


class NotFinite(Exception):
    """Something is not finite, and skipping updates does not help; the message names it."""


class Guard:
    """Watches the updates of a run.

    The compiled update has skipped every optimizer step that was not finite. The guard decides whether
    training goes on nevertheless.

    Args:
        section: The agent's settings.
    """

    def __init__(self, section: schema.GuardSection):
        self._section = section
        self._first: str | None = None
        self._rollbacks = 0

    def judge(self, scalars: Mapping[str, float], episodes: Episodes) -> None:
        """Looks at one iteration.

        Raises:
            NotFinite: If training must not simply go on. The message names the first quantity that was bad:
                at the beginning of the streak, and in the order of cause and effect.
        """
        bad = [name for name in QUANTITIES if scalars[f"update/nonfinite_{name}"]]
        if not scalars["update/skipped"] and "weights" not in bad:
            self._first = None
            return
        if self._first is None:
            self._first = (
                "the weights" if "weights" in bad else episodes.nonfinite or _named(bad[0], episodes)
            )
        streak = scalars["update/nonfinite_streak"]
        skips = self._section.on_nonfinite == "skip" and streak < self._section.patience
        if "weights" in bad or not skips:
            raise NotFinite(self._first)
        if not streak:
            self._first = None

    def may_go_back(self) -> bool:
        """Whether the run may go back to its last checkpoint; counts the attempts."""
        self._rollbacks += 1
        self._first = None
        return self._section.on_nonfinite == "rollback" and self._rollbacks <= MAX_ROLLBACKS

    def passed(self) -> None:
        """Takes note of a new checkpoint: from there the attempts count anew."""
        self._rollbacks = 0


HUGE = 1e15
"""A reward whose square is near the end of float32 (3e38), once it is added up over a horizon of returns."""


def _named(quantity: str, episodes: Episodes) -> str:
    """What was not finite; and why, where finite rewards are so large that their squares are not."""
    if quantity not in ("loss", "gradients") or not episodes.total_length:
        return f"the {quantity}"
    mean = episodes.total_return / episodes.total_length
    if abs(mean) < HUGE:
        return f"the {quantity}"
    how = "scale them, by environment.normalize_rewards or a wrapper"
    return f"the {quantity}, of rewards that are {mean:.0e} a step: {how}"
