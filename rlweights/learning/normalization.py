"""Running statistics of observations and rewards, kept in the graph, as weights of the network."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from rlweights.weights.arrays import Array, Tensor


@keras.saving.register_keras_serializable(package="rlweights")
class ObservationNormalization(keras.layers.Layer):
    """Normalizes observations by their running mean and standard deviation.

    The statistics are non-trainable weights: they are saved and exported with the network, and do not
    change unless `update` is called, so evaluation and play see them frozen.

    Args:
        shape: Shape of one observation.
        limit: Normalized observations are clipped to [-limit, limit].
        epsilon: Added to the variance.
        **kwargs: See `keras.layers.Layer`.
    """

    def __init__(self, shape: Sequence[int], limit: float = 10.0, epsilon: float = 1e-8, **kwargs: Any):
        super().__init__(**{"trainable": False, **kwargs})
        self.observation_shape = tuple(int(n) for n in shape)
        self.limit = float(limit)
        self.epsilon = float(epsilon)
        self.mean = self.add_weight(
            shape=self.observation_shape, initializer="zeros", trainable=False, name="mean"
        )
        self.variance = self.add_weight(
            shape=self.observation_shape, initializer="ones", trainable=False, name="variance"
        )
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")

    def call(self, observations: Tensor) -> Tensor:
        """Returns the normalized observations [B, ...]."""
        inverse: Tensor = ops.rsqrt(self.variance + self.epsilon)
        return ops.clip((ops.cast(observations, "float32") - self.mean) * inverse, -self.limit, self.limit)

    def update(self, observations: Tensor, mask: Tensor) -> None:
        """Merges a batch into the statistics; observations that are not finite do not count.

        Args:
            observations: [B, ...].
            mask: [B], 1 where the observation counts.
        """
        x: Tensor = ops.cast(observations, "float32")
        finite = ops.all(ops.isfinite(x), axis=tuple(range(1, len(x.shape))), keepdims=True)
        weight = ops.where(finite, ops.reshape(mask, finite.shape), 0.0)
        _merge(self, ops.where(finite, x, 0.0), weight, axes=0)

    def numpy_scale(
        self, mean: Array | None = None, variance: Array | None = None
    ) -> tuple[Array, Array, float]:
        """Returns (mean, 1 / standard deviation, limit) for a forward pass in NumPy.

        Args:
            mean: The mean, where it has been fetched already.
            variance: The variance, likewise.
        """
        mean = self.mean.numpy().copy() if mean is None else mean
        variance = self.variance.numpy().copy() if variance is None else variance
        return mean, 1.0 / np.sqrt(variance + np.float32(self.epsilon)), self.limit

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        own = {"shape": self.observation_shape, "limit": self.limit, "epsilon": self.epsilon}
        return super().get_config() | own


class RewardScaling(keras.layers.Layer):
    """Divides rewards by the running standard deviation of the discounted return of each environment.

    Args:
        num_envs: Number of environments N.
        gamma: Discount of the running return.
        limit: Scaled rewards are clipped to [-limit, limit].
        epsilon: Added to the variance.
        **kwargs: See `keras.layers.Layer`.

    Reference: Engstrom et al., "Implementation Matters in Deep Policy Gradients", 2020, section 3.
    """

    def __init__(
        self, num_envs: int, gamma: float, limit: float = 10.0, epsilon: float = 1e-8, **kwargs: Any
    ):
        super().__init__(trainable=False, **kwargs)
        self.gamma = float(gamma)
        self.limit = float(limit)
        self.epsilon = float(epsilon)
        add = self.add_weight
        self.returns = add(shape=(num_envs,), initializer="zeros", trainable=False, name="returns")
        self.mean = add(shape=(), initializer="zeros", trainable=False, name="mean")
        self.variance = add(shape=(), initializer="ones", trainable=False, name="variance")
        self.count = add(shape=(), initializer="zeros", trainable=False, name="count")

    def scale(self, rewards: Tensor, continues: Tensor, valid: Tensor) -> Tensor:
        """Updates the statistics by a rollout and returns its scaled rewards.

        Args:
            rewards: [T, N].
            continues: [T, N], 0 where an episode ended with the step.
            valid: [T, N], 0 where the step was a reset.

        Returns:
            Scaled and clipped rewards [T, N]. Those that are not finite are left alone, and do not count.
        """
        finite = ops.isfinite(rewards)
        usable: Tensor = ops.where(finite, rewards, 0.0)

        def step(carried: Tensor, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            reward, goes_on = inputs
            current = carried * self.gamma + reward
            return current * goes_on, current

        scanned: Tensor = ops.scan(step, ops.convert_to_tensor(self.returns), (usable, continues))
        carried, running = scanned
        self.returns.assign(carried)
        _merge(self, running, valid, axes=(0, 1))
        inverse: Tensor = ops.rsqrt(self.variance + self.epsilon)
        return ops.where(finite, ops.clip(usable * inverse, -self.limit, self.limit), rewards)


def _merge(statistics: Any, values: Tensor, weight: Tensor, axes: int | tuple[int, ...]) -> None:
    """Merges a batch into mean, variance and count (Chan, Golub and LeVeque 1979, pairwise update)."""
    count: Tensor = ops.sum(weight)
    size: Tensor = ops.maximum(count, 1.0)
    mean: Tensor = ops.sum(values * weight / size, axis=axes)
    variance: Tensor = ops.sum(ops.square(values - mean) * weight / size, axis=axes)
    total: Tensor = statistics.count + count
    share = count / ops.maximum(total, 1.0)  # of the batch; 0 leaves everything as it is
    difference = mean - statistics.mean
    change = variance - statistics.variance + ops.square(difference) * (1.0 - share)
    statistics.mean.assign(statistics.mean + difference * share)
    statistics.variance.assign(statistics.variance + change * share)
    statistics.count.assign(total)
