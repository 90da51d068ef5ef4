"""A closer look at an agent while it trains: its weights, and how plastic its hidden units still are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from rlweights import diagnostics
from rlweights.compiled import compiled
from rlweights.networks import ActorCritic

PROBE_SIZE = 256
"""Observations on which hidden units are measured: fixed for a run, so that only the weights move."""


class Inspection:
    """Measures an agent's kernels, and its hidden units on a fixed batch of observations.

    Args:
        networks: The agent's networks.
        initial: The initial values of their trainable variables, in order.
        probe: The fixed batch [B, ...].
    """

    def __init__(self, networks: ActorCritic, initial: Sequence[np.ndarray], probe: np.ndarray):
        self._networks = networks
        self._tags: list[str] = []
        self._kernels = [
            (variable, tf.constant(first))
            for variable, first in zip(networks.trainable_variables, initial, strict=True)
            if len(variable.shape) >= 2
        ]
        self.probe = probe
        self._measure = compiled(self._scalars, tf.TensorSpec(probe.shape, probe.dtype), xla=False)

    def measure(self) -> dict[str, float]:
        """Returns the scalars of the present weights, by tag."""
        values = self._measure(tf.constant(self.probe)).numpy()
        return dict(zip(self._tags, values.tolist(), strict=True))

    def kernels(self) -> dict[str, np.ndarray]:
        """Returns the present kernels, by path."""
        return {variable.path: variable.numpy() for variable, _ in self._kernels}

    def _scalars(self, probe):
        scalars: dict[str, Any] = {}
        for variable, first in self._kernels:
            layer, weight = variable.path.rpartition("/")[0], variable.value
            scalars[f"weights/{layer}/norm"] = diagnostics.weight_norm(weight)
            scalars[f"weights/{layer}/rms"] = diagnostics.weight_rms(weight)
            scalars[f"weights/{layer}/max"] = diagnostics.weight_max(weight)
            scalars[f"weights/{layer}/distance_from_init"] = diagnostics.distance_from_init(weight, first)
        for layer, activations in self._networks.activations(probe).items():
            scalars[f"plasticity/{layer}/dormant_share"] = diagnostics.dormant_share(activations)
            scalars[f"plasticity/{layer}/saturated_units"] = diagnostics.saturated_units(activations)
            if len(activations.shape) == 2:
                scalars[f"plasticity/{layer}/effective_rank"] = diagnostics.effective_rank(activations)
        self._tags = list(scalars)
        return tf.stack([tf.cast(scalars[tag], tf.float32) for tag in self._tags])
