"""Dense networks with known weights, and optimizer steps in which nothing but rules writes."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

import rlweights as rw


def model(*units: int, inputs: int = 4, name: str = "network") -> Any:
    """Layers hidden_0, hidden_1, ...; the values of each weight go evenly from -k to k, k = 1, 2, ..."""
    layers = [keras.layers.Dense(n, name=f"hidden_{i}") for i, n in enumerate(units)]
    network = keras.Sequential([keras.Input((inputs,)), *layers], name=name)
    for index, variable in enumerate(network.trainable_variables):
        values = np.linspace(-1.0, 1.0, int(np.prod(variable.shape)), dtype=np.float32)
        variable.assign(values.reshape(variable.shape) * (index + 1))
    return network


def built(rules: Sequence[rw.Intervention], network: Any, inner: Any = None) -> Any:
    optimizer = rw.InterventionOptimizer(inner or keras.optimizers.SGD(0.1), rules, metrics_every=1)
    optimizer.build(network.trainable_variables)
    return optimizer


def step(optimizer: Any, network: Any, gradient: float = 0.0) -> None:
    """One optimizer step whose gradients are all the same number."""
    optimizer.apply(
        [gradient * ops.ones_like(v) for v in network.trainable_variables]  # pyright: ignore[reportOperatorIssue]
    )


def applied(rule: rw.Intervention, network: Any, steps: int = 1) -> Any:
    """One iteration of steps with gradients of zero."""
    optimizer = built([rule], network)
    optimizer.begin_iteration()
    for _ in range(steps):
        step(optimizer, network)
    optimizer.end_iteration()
    return optimizer


def arrays(network: Any) -> list[np.ndarray]:
    return [v.numpy().copy() for v in network.trainable_variables]


def assert_equal(some: Sequence[Any], others: Sequence[Any]) -> None:
    """Asserts that two lists of arrays are equal bit for bit."""
    for one, other in zip(some, others, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
