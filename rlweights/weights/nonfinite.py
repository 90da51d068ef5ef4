"""Steps whose gradients are not finite: taken, skipped, or the end of training."""

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from rlweights.errors import TrainingStopped
from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import entries
from rlweights.weights.branches import either

CHOICES = (None, "skip", "raise")


def refuse(choice: str | None) -> None:
    """Checks `on_nonfinite`.

    Raises:
        ValueError: If it is none of `CHOICES`.
    """
    if choice not in CHOICES:
        raise ValueError(f"`on_nonfinite` takes {', '.join(map(repr, CHOICES))}. Received: {choice!r}")


def all_finite(gradients: Sequence[Tensor | None]) -> Scalar:
    """Returns whether every entry of all gradients is finite; None is no gradient."""
    # What is not finite makes the sum not finite, and so might an overflow: each entry is asked.
    dense = [entries(each) for each in gradients if each is not None]
    return ops.all(ops.stack([ops.all(ops.isfinite(each)) for each in dense])) if dense else True


def guarded(step: Callable[[], Any], gradients: Sequence[Tensor | None], skipped: Variable) -> None:
    """Takes a step in the graph if its gradients are finite, and counts it in `skipped` otherwise.

    A step that is skipped leaves weights, optimizer and rules as they were, to the last bit.
    """

    def skip() -> None:
        skipped.assign_add(1)

    either(all_finite(gradients), step, skip)


def stop_training(skipped: Variable) -> None:
    """Ends training that has met a step that is not finite; outside of graphs.

    Raises:
        TrainingStopped: If there was one. The weights are those before it.
    """
    if int(ops.convert_to_numpy(skipped)) > 0:
        skipped.assign(0)
        raise TrainingStopped(
            "the gradients of a step are not finite; the weights are those before it. Look for NaN or "
            'infinity in the data, or lower the learning rate; `on_nonfinite="skip"` leaves out such steps'
        )
