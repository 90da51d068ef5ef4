"""Running statistics of observations and rewards, kept in the graph, as weights of the network."""

import keras
import numpy as np
from keras import ops


class ObservationNormalization(keras.layers.Layer):
    """Normalises observations by their running mean and standard deviation.

    The statistics are non-trainable weights: they are saved and exported with the network, and do not
    change unless `update` is called, so evaluation and play see them frozen.

    Args:
        shape: Shape of one observation.
        limit: Normalised observations are clipped to [-limit, limit].
        epsilon: Added to the variance.
        **kwargs: See `keras.layers.Layer`.
    """

    def __init__(self, shape, limit: float = 10.0, epsilon: float = 1e-8, **kwargs):
        super().__init__(trainable=False, **kwargs)
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

    def call(self, observations):
        """Returns the normalised observations [B, ...]."""
        x = (ops.cast(observations, "float32") - self.mean) * ops.rsqrt(self.variance + self.epsilon)
        return ops.clip(x, -self.limit, self.limit)

    def update(self, observations, mask) -> None:
        """Merges a batch into the statistics.

        Args:
            observations: [B, ...].
            mask: [B], 1 where the observation counts.
        """
        weight = ops.reshape(mask, (-1,) + (1,) * len(self.observation_shape))
        _merge(self, ops.cast(observations, "float32"), weight, axes=0)

    def numpy_scale(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Returns (mean, 1 / standard deviation, limit) for a forward pass in NumPy."""
        variance = ops.convert_to_numpy(self.variance)
        inverse = (1.0 / np.sqrt(variance + np.float32(self.epsilon))).astype(np.float32)
        return ops.convert_to_numpy(self.mean).copy(), inverse, self.limit

    def get_config(self):
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

    def __init__(self, num_envs: int, gamma: float, limit: float = 10.0, epsilon: float = 1e-8, **kwargs):
        super().__init__(trainable=False, **kwargs)
        self.gamma = float(gamma)
        self.limit = float(limit)
        self.epsilon = float(epsilon)
        add = self.add_weight
        self.returns = add(shape=(num_envs,), initializer="zeros", trainable=False, name="returns")
        self.mean = add(shape=(), initializer="zeros", trainable=False, name="mean")
        self.variance = add(shape=(), initializer="ones", trainable=False, name="variance")
        self.count = add(shape=(), initializer="zeros", trainable=False, name="count")

    def scale(self, rewards, continues, valid):
        """Updates the statistics by a rollout and returns its scaled rewards.

        Args:
            rewards: [T, N].
            continues: [T, N], 0 where an episode ended with the step.
            valid: [T, N], 0 where the step was a reset.

        Returns:
            Scaled and clipped rewards [T, N].
        """

        def step(carried, inputs):
            reward, goes_on = inputs
            current = carried * self.gamma + reward
            return current * goes_on, current

        carried, running = ops.scan(step, ops.convert_to_tensor(self.returns), (rewards, continues))
        self.returns.assign(carried)
        _merge(self, running, valid, axes=(0, 1))
        scaled = rewards * ops.rsqrt(self.variance + self.epsilon)
        return ops.clip(scaled, -self.limit, self.limit)


def _merge(statistics, values, weight, axes) -> None:
    """Merges a batch into mean, variance and count (Chan, Golub and LeVeque 1979, pairwise update)."""
    size = ops.maximum(ops.sum(weight), 1.0)
    mean = ops.sum(values * weight, axis=axes) / size
    variance = ops.sum(ops.square(values - mean) * weight, axis=axes) / size
    old = ops.convert_to_tensor(statistics.count)
    total = old + size
    difference = mean - statistics.mean
    spread = statistics.variance * old + variance * size + ops.square(difference) * old * size / total
    statistics.mean.assign(statistics.mean + difference * size / total)
    statistics.variance.assign(spread / total)
    statistics.count.assign(total)
