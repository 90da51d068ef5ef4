"""Rules on several devices at once: every replica computes the same, and nothing is averaged away."""

from collections.abc import Sequence
from typing import Any

from rlweights.weights import backend
from rlweights.weights.arrays import Variable


def refuse(optimizer: Any, variables: Sequence[Variable]) -> None:
    """Refuses what the replicas of a strategy could decide differently, or what they would aggregate.

    Raises:
        ValueError: If there are several replicas, and the optimizer asks each of them for itself whether its
            gradients are finite, or a trainable weight has an aggregation.
    """
    if backend.replicas(optimizer) == 1:
        return
    if optimizer.on_nonfinite is not None:
        raise ValueError(
            "`on_nonfinite` asks each replica for itself, and one would skip what another one takes; in a "
            "strategy of several replicas use LossScaleOptimizer(InterventionOptimizer(inner, rules))"
        )
    for variable in variables:
        if variable.trainable and variable.aggregation not in (None, "none"):
            raise ValueError(
                f"{variable.path} has aggregation={variable.aggregation!r}: each replica must keep what a "
                f"rule has written there to the last bit, so in a strategy weights take aggregation='none'"
            )
