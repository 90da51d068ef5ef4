"""When what a rule does in a step is measured."""

from rlweights.weights.arrays import Scalar
from rlweights.weights.backend import ops

_RARELY = 100
_EARLY = [1, 2, 4, 8, 16, 32, 64]


def is_looked_at(step: Scalar, every: int | None) -> Scalar | bool:
    """Returns whether the metrics of a step are measured.

    Args:
        step: Optimizer steps before this one, a scalar integer tensor.
        every: Steps from one measurement to the next; None: rarely, but early. That is after 1, 2, 4 ... 64
            steps, and then after each 100, so that a short epoch has metrics, too.

    Returns:
        True, or a scalar bool where it depends on the step.
    """
    if every == 1:
        return True
    count = ops.convert_to_tensor(step) + 1
    if every is not None:
        return ops.equal(ops.mod(count, every), 0)
    early = ops.any(ops.equal(count, ops.cast(_EARLY, count.dtype)))
    return ops.logical_or(early, ops.equal(ops.mod(count, _RARELY), 0))


def checked(every: int | None) -> int | None:
    """Returns a number of steps between two measurements.

    Raises:
        ValueError: If it is none.
    """
    if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        raise ValueError(f"`metrics_every` takes a whole number of at least 1, or None. Received: {every!r}")
    return every
