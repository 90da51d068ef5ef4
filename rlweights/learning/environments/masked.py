"""A TensorFlow environment whose observations have its masks of allowed actions behind them."""

import tensorflow as tf

from rlweights.learning.environments.wrapper import EnvironmentWrapper
from rlweights.weights.arrays import Tensor


class Masked(EnvironmentWrapper):
    """Another environment, as an agent with masks sees it: observations [N, D + P], flat.

    Its `observation_space` is the environment's, without masks.

    Args:
        environment: The environment; its `action_mask` returns masks.
    """

    def observe(self, state: Tensor) -> Tensor:
        """Returns what the agent sees of `state`, and which actions it may choose."""
        seen, mask = self.environment.observe(state), self.environment.action_mask(state)
        assert mask is not None
        return tf.concat([tf.reshape(seen, [seen.shape[0], -1]), tf.cast(mask, seen.dtype)], axis=1)
