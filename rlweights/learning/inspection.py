"""Diagnostics of an agent while it trains: its weights, and the plasticity of its hidden units."""

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from rlweights.learning.learner import Learner
from rlweights.weights import diagnostics
from rlweights.weights.arrays import Array, Scalar, Tensor, Variable
from rlweights.weights.compilation import TaggedScalars, compiled

PROBE_SIZE = 256
"""Observations on which hidden units are measured: fixed for a run, so that only the weights move."""


@dataclass(frozen=True)
class Spread:
    """The content of a histogram: values, and the bound on their size; None: there is none."""

    values: Array
    bound: float | None = None


class Inspection:
    """Measures an agent's kernels, and its hidden units on a fixed batch of observations.

    Args:
        learner: The agent's learner.
        initial: The initial values of the trainable variables, in order.
        probe: The fixed batch [B, ...].
    """

    def __init__(self, learner: Learner, initial: Sequence[Array], probe: Array):
        self._learner = learner
        self._initial = list(initial)
        self._tagged = TaggedScalars()
        self._kernels = [
            (variable, tf.constant(first))
            for variable, first in zip(learner.networks.trainable_variables, initial, strict=True)
            if len(variable.shape) >= 2
        ]
        self.probe = probe
        self._measure = compiled(self._scalars, tf.TensorSpec(probe.shape, probe.dtype), xla=False)

    def measure(self) -> dict[str, float]:
        """Returns the scalars of the present weights, by tag."""
        return self._tagged.unpacked(self._measure(tf.constant(self.probe)).numpy())

    def measure_initial(self) -> dict[str, float]:
        """Returns the scalars of the initial weights, by tag; the present weights come back as they are."""
        variables = self._learner.networks.trainable_variables
        present = [variable.numpy() for variable in variables]
        try:
            for variable, first in zip(variables, self._initial, strict=True):
                variable.assign(first)
            return self.measure()
        finally:
            for variable, value in zip(variables, present, strict=True):
                variable.assign(value)

    def spreads(self) -> dict[str, Spread]:
        """Returns the content of histograms by tag: the present kernels, and the newest gradient of each.

        Nothing is computed for it: the update has left the gradients behind.
        """
        spreads = {}
        for variable, _ in self._kernels:
            limits = [float(limit) for limit in self._limits(variable)]
            spreads[f"weights/{variable.path}"] = Spread(variable.numpy(), min(limits, default=None))
            spreads[f"gradients/{variable.path}"] = Spread(self._learner.gradients[variable.path].numpy())
        return spreads

    def _limits(self, variable: Variable) -> list[Scalar]:
        """The bounds that rules hold a weight to, as they were in the last optimizer step."""
        optimizer = self._learner.optimizer
        step = tf.maximum(tf.convert_to_tensor(optimizer.iterations) - 1, 0)
        rules = [rule for rule in optimizer.interventions if any(v is variable for v in rule.variables)]
        return [limit for rule in rules if (limit := rule.limit(variable, step)) is not None]

    def _scalars(self, probe: Tensor) -> Tensor:
        scalars: dict[str, Scalar] = {}
        for variable, first in self._kernels:
            layer, weight = variable.path.rpartition("/")[0], variable.value
            scalars[f"weights/{layer}/norm"] = diagnostics.weight_norm(weight)
            scalars[f"weights/{layer}/rms"] = diagnostics.weight_rms(weight)
            scalars[f"weights/{layer}/max"] = diagnostics.weight_max(weight)
            scalars[f"weights/{layer}/distance_from_init"] = diagnostics.distance_from_init(weight, first)
            if limits := self._limits(variable):
                scalars[f"weights/{layer}/bound"] = tf.reduce_min(tf.stack(limits))
        for layer, activations in self._learner.networks.activations(probe).items():
            scalars[f"plasticity/{layer}/dormant_share"] = diagnostics.dormant_share(activations)
            scalars[f"plasticity/{layer}/saturated_units"] = diagnostics.saturated_units(activations)
            if len(activations.shape) == 2:
                scalars[f"plasticity/{layer}/effective_rank"] = diagnostics.effective_rank(activations)
        return self._tagged.packed(scalars)
