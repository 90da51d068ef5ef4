"""Networks' last layers: a linear layer behind hidden layers, with free parameters and action masks."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rlweights.learning.masking import Masking
from rlweights.weights.arrays import Tensor


class Head(keras.Model):
    """A trunk and a linear layer, with optional free parameters (log standard deviations) behind it.

    Args:
        trunk: The hidden layers; two heads may share one.
        outputs: Number of linear outputs.
        gain: Gain of the orthogonal initial kernel: 0.01 for policies, 1 for values.
        log_std: Initial log standard deviation, appended `outputs` times to the output; None: none.
        masking: Where observations hold a mask, which the hidden layers do not see; None: they hold none.
        masks: Whether the mask is applied to the outputs, which are logits then.
        name: First part of the path of the weights of the last layer.
        seed: Seed of the initial weights.
    """

    def __init__(
        self,
        trunk: Any,
        outputs: int,
        gain: float,
        *,
        log_std: float | None = None,
        masking: Masking | None = None,
        masks: bool = False,
        name: str,
        seed: int,
    ):
        super().__init__(name=name)
        self.trunk = trunk
        self.head = keras.layers.Dense(outputs, kernel_initializer=orthogonal(gain, seed), name="head")
        self.outputs = outputs
        self.masking = masking
        self.masks = masks and masking is not None
        self.initial_log_std = log_std
        self.log_std: Any = None

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Builds the head's free parameters under the name of this model."""
        if self.initial_log_std is not None:
            self.log_std = self.add_weight(
                shape=(self.outputs,),
                initializer=keras.initializers.Constant(self.initial_log_std),
                name="log_std",
            )
        self.built = True

    def call(self, observations: Tensor) -> Tensor:
        """Returns the outputs [B, outputs], or [B, 2 * outputs] with log standard deviations."""
        if self.masking is None:
            outputs = self.head(self.trunk(observations))
        else:
            outputs = self.head(self.trunk(self.masking.seen(observations)))
            if self.masks:
                outputs = self.masking.applied(outputs, observations)
        if self.log_std is None:
            return outputs
        return ops.concatenate([outputs, ops.broadcast_to(self.log_std, ops.shape(outputs))], axis=-1)


def orthogonal(gain: float, seed: int) -> Any:
    """Returns the initializer of every kernel."""
    return keras.initializers.Orthogonal(gain=gain, seed=seed)
