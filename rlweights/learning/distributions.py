"""Action distributions as stateless specifications over one flat array of network outputs.

A specification holds no tensors. What varies comes in as `parameters` [..., P], so the same object serves
TensorFlow graphs and NumPy acting. Randomness comes in as `noise`, so that sampling is a pure function:

    parameters [..., P], noise [..., noise_size] -> actions [..., *action_shape]
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from rlweights.weights.arrays import Array, Scalar, Tensor
from rlweights.weights.diagnostics import masked_mean

LOG_STD_LIMIT = 20.0
"""Log standard deviations are clipped to ±20, where densities and gradients are finite in float32."""

_TINY = np.finfo(np.float32).tiny
_HALF_LOG_2PI = 0.5 * np.log(2.0 * np.pi)


class Distribution(ABC):
    """An action distribution: samples, modes, log-probabilities, entropies and divergences.

    `sample` and `mode` are for TensorFlow; `sample_numpy` and `mode_numpy` give the same for NumPy arrays,
    where calling TensorFlow would cost more than the rest of a step.

    Args:
        parameter_size: Number of network outputs P.
        action_shape: Shape of one action.
        noise_size: Number of random numbers that one action takes.

    Raises:
        ValueError: If `parameter_size` is less than 1: there is nothing to choose.
    """

    noise_kind: ClassVar[Literal["uniform", "normal"]] = "uniform"
    """The kind of noise that `sample` takes: uniform on [0, 1), or standard normal."""

    action_dtype: ClassVar[Any] = np.int32

    max_entropy: float | None = None
    """The entropy of the uniform policy in nats; None where there is none."""

    def __init__(self, parameter_size: int, action_shape: tuple[int, ...], noise_size: int):
        if parameter_size < 1:
            raise ValueError(f"A {type(self).__name__} needs at least one parameter.")
        self.parameter_size = parameter_size
        self.action_shape = action_shape
        self.noise_size = noise_size

    def noise_shape(self, batch_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape [..., noise_size] of the noise for a batch of actions."""
        return (*batch_shape, self.noise_size)

    def noise(self, rng: np.random.Generator, batch_shape: Sequence[int]) -> Array:
        """Draws the float32 noise [..., noise_size] for a batch of actions."""
        draw = rng.standard_normal if self.noise_kind == "normal" else rng.random
        return draw(self.noise_shape(batch_shape), dtype=np.float32)

    @abstractmethod
    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Returns actions [..., *action_shape] for noise [..., noise_size]."""

    @abstractmethod
    def sample_numpy(self, parameters: Array, noise: Array) -> Array:
        """Returns the actions of `sample`, for NumPy arrays."""

    @abstractmethod
    def mode(self, parameters: Tensor) -> Tensor:
        """Returns the most likely actions [..., *action_shape]."""

    @abstractmethod
    def mode_numpy(self, parameters: Array) -> Array:
        """Returns the actions of `mode`, for NumPy arrays."""

    def choose_numpy(self, parameters: Array, rng: np.random.Generator | None) -> Array:
        """Returns actions [..., *action_shape] for parameters [..., P]: drawn by `rng`, else the mode."""
        if rng is None:
            return self.mode_numpy(parameters)
        return self.sample_numpy(parameters, self.noise(rng, parameters.shape[:-1]))

    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """Returns the logarithms [...] of the probabilities or densities of actions [..., *action_shape].

        Raises:
            ValueError: If the shapes do not fit each other; many such pairs would broadcast silently.
        """
        expected = tf.TensorShape(parameters.shape[:-1]).concatenate(self.action_shape)
        if parameters.shape[-1] != self.parameter_size or not expected.is_compatible_with(actions.shape):
            raise ValueError(
                f"{type(self).__name__} takes parameters [..., {self.parameter_size}] and one action of "
                f"shape {self.action_shape} for each. Received shapes: {tuple(parameters.shape)} and "
                f"{tuple(actions.shape)}"
            )
        return self._log_prob(parameters, actions)

    @abstractmethod
    def _log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """Returns `log_prob`; the shapes fit."""

    @abstractmethod
    def entropy(self, parameters: Tensor) -> Tensor:
        """Returns the entropies [...] in nats."""

    @abstractmethod
    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        """Returns KL(p || q) [...] in nats, of two parameter arrays."""

    def distance(self, p: Tensor, q: Tensor, mask: Tensor | None = None) -> Scalar:
        """Measures how far two policies are apart, for adapting parameter noise: the mean of KL(p || q).

        Args:
            p: Parameters [..., P] of the clean policy.
            q: Parameters [..., P] of the perturbed one.
            mask: [...], 0 where a sample does not count; None: all count.

        Returns:
            Scalar; 0 if no sample counts.

        Reference: Plappert et al., "Parameter Space Noise for Exploration", 2018,
        https://arxiv.org/abs/1706.01905; the distances are those of the authors' code for discrete and for
        continuous actions.
        """
        return masked_mean(self.kl(p, q), mask)


class Categorical(Distribution):
    """One of `num_actions` actions; the parameters are their logits."""

    def __init__(self, num_actions: int):
        super().__init__(num_actions, (), num_actions)
        self.max_entropy = math.log(num_actions) or None

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Returns argmax(logits - log(-log(noise))), the Gumbel-max trick."""
        return self.mode(parameters - tf.math.log(-tf.math.log(tf.maximum(noise, _TINY))))

    def sample_numpy(self, parameters: Array, noise: Array) -> Array:
        """Returns the actions of `sample`, for NumPy arrays."""
        return self.mode_numpy(parameters - np.log(-np.log(np.maximum(noise, _TINY))))

    def mode(self, parameters: Tensor) -> Tensor:
        """Returns the action of the largest logit, the first one of several."""
        return tf.argmax(parameters, axis=-1, output_type=tf.int32)

    def mode_numpy(self, parameters: Array) -> Array:
        """Returns the actions of `mode`, for NumPy arrays."""
        return np.argmax(parameters, axis=-1).astype(np.int32)

    def _log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        # A product and not a gather, whose gradient is a scatter: for two actions it takes 0.6 of the time.
        log_probs = tf.nn.log_softmax(parameters)
        chosen = tf.one_hot(actions, self.parameter_size, dtype=log_probs.dtype)
        return tf.reduce_sum(log_probs * chosen, axis=-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        """Returns -Σ p log p."""
        log_probs = tf.nn.log_softmax(parameters)
        return -tf.reduce_sum(tf.exp(log_probs) * log_probs, axis=-1)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        """Returns Σ p (log p - log q)."""
        log_p, log_q = tf.nn.log_softmax(p), tf.nn.log_softmax(q)
        return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)


class MultiCategorical(Distribution):
    """Independent categoricals of `nvec` actions each; the parameters are all their logits, concatenated."""

    def __init__(self, nvec: Sequence[int]):
        self.parts = [Categorical(number) for number in nvec]
        super().__init__(sum(nvec), (len(self.parts),), sum(nvec))
        self.max_entropy = sum(map(math.log, nvec)) or None

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Returns the action of each categorical."""
        return tf.stack([part.sample(x, u) for part, x, u in self._split(parameters, noise)], axis=-1)

    def sample_numpy(self, parameters: Array, noise: Array) -> Array:
        """Returns the actions of `sample`, for NumPy arrays."""
        return np.stack([part.sample_numpy(x, u) for part, x, u in self._split(parameters, noise)], axis=-1)

    def mode(self, parameters: Tensor) -> Tensor:
        """Returns each categorical's mode."""
        return tf.stack([part.mode(x) for part, x in self._split(parameters)], axis=-1)

    def mode_numpy(self, parameters: Array) -> Array:
        """Returns the actions of `mode`, for NumPy arrays."""
        return np.stack([part.mode_numpy(x) for part, x in self._split(parameters)], axis=-1)

    def _log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        parts = enumerate(self._split(parameters))
        return tf.add_n([part.log_prob(x, actions[..., i]) for i, (part, x) in parts])

    def entropy(self, parameters: Tensor) -> Tensor:
        """Returns the sum over the categoricals."""
        return tf.add_n([part.entropy(x) for part, x in self._split(parameters)])

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        """Returns the sum over the categoricals."""
        return tf.add_n([part.kl(x, y) for part, x, y in self._split(p, q)])

    def _split(self, *arrays: Any) -> Iterator[Any]:
        """Yields each categorical with its part of each array [..., P]."""
        start = 0
        for part in self.parts:
            end = start + part.parameter_size
            yield part, *(x[..., start:end] for x in arrays)
            start = end


class Bernoulli(Distribution):
    """`size` independent bits; the parameters are the logits of each being 1."""

    action_dtype = np.int8

    def __init__(self, size: int):
        super().__init__(size, (size,), size)
        self.max_entropy = size * math.log(2.0)

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Returns noise < sigmoid(logits)."""
        return tf.cast(noise < tf.sigmoid(parameters), tf.int8)

    def sample_numpy(self, parameters: Array, noise: Array) -> Array:
        """Returns the actions of `sample`, for NumPy arrays."""
        # The sigmoid by way of tanh, which overflows for no logit.
        return (noise < 0.5 + 0.5 * np.tanh(0.5 * parameters)).astype(np.int8)

    def mode(self, parameters: Tensor) -> Tensor:
        """Returns logits > 0."""
        return tf.cast(parameters > 0, tf.int8)

    def mode_numpy(self, parameters: Array) -> Array:
        """Returns the actions of `mode`, for NumPy arrays."""
        return (parameters > 0).astype(np.int8)

    def _log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        sign = 2.0 * tf.cast(actions, parameters.dtype) - 1.0
        return tf.reduce_sum(tf.math.log_sigmoid(sign * parameters), axis=-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        """Returns -Σ (p log p + (1 - p) log(1 - p))."""
        on = tf.sigmoid(parameters) * tf.math.log_sigmoid(parameters)
        off = tf.sigmoid(-parameters) * tf.math.log_sigmoid(-parameters)
        return -tf.reduce_sum(on + off, axis=-1)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        """Returns the sum over the bits."""
        on = tf.sigmoid(p) * (tf.math.log_sigmoid(p) - tf.math.log_sigmoid(q))
        off = tf.sigmoid(-p) * (tf.math.log_sigmoid(-p) - tf.math.log_sigmoid(-q))
        return tf.reduce_sum(on + off, axis=-1)


class Gaussian(Distribution):
    """`size` independent normal variables; the parameters are all means, then all log stddevs."""

    noise_kind = "normal"
    action_dtype = np.float32

    def __init__(self, size: int):
        super().__init__(2 * size, (size,), size)

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Returns mean + stddev * noise."""
        mean, log_std = self._split(parameters)
        return mean + tf.exp(log_std) * noise

    def sample_numpy(self, parameters: Array, noise: Array) -> Array:
        """Returns the actions of `sample`, for NumPy arrays."""
        # Slices and bounds take a third of the time of np.split and np.clip.
        log_std = np.maximum(np.minimum(parameters[..., self.noise_size :], LOG_STD_LIMIT), -LOG_STD_LIMIT)
        return self.mode_numpy(parameters) + np.exp(log_std) * noise

    def mode(self, parameters: Tensor) -> Tensor:
        """Returns the means."""
        return parameters[..., : self.noise_size]

    def mode_numpy(self, parameters: Array) -> Array:
        """Returns the actions of `mode`, for NumPy arrays."""
        return self.mode(parameters)

    def _log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        mean, log_std = self._split(parameters)
        z = (actions - mean) * tf.exp(-log_std)
        return -tf.reduce_sum(0.5 * z * z + log_std + _HALF_LOG_2PI, axis=-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        """Returns Σ (log stddev + 1/2 + log(2π) / 2)."""
        _, log_std = self._split(parameters)
        return tf.reduce_sum(log_std + (0.5 + _HALF_LOG_2PI), axis=-1)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        """Returns Σ (log(σ_q / σ_p) + (σ_p² + (μ_p - μ_q)²) / (2 σ_q²) - 1/2)."""
        (p_mean, p_log_std), (q_mean, q_log_std) = self._split(p), self._split(q)
        log_ratio = p_log_std - q_log_std
        z = (p_mean - q_mean) * tf.exp(-q_log_std)
        return tf.reduce_sum(0.5 * (tf.math.expm1(2.0 * log_ratio) + z * z) - log_ratio, axis=-1)

    def distance(self, p: Tensor, q: Tensor, mask: Tensor | None = None) -> Scalar:
        """Returns the root of the mean squared difference of the means, over samples and dimensions.

        Arguments, the value without samples and the reference are those of `Distribution.distance`.
        """
        squared = tf.math.squared_difference(self.mode(p), self.mode(q))
        return tf.sqrt(masked_mean(tf.reduce_mean(squared, axis=-1), mask))

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (mean, log_std), [..., size] each."""
        mean, log_std = tf.split(parameters, 2, axis=-1)
        return mean, bounded(log_std)


def bounded(log_std: Tensor) -> Tensor:
    """Returns log standard deviations [...] as `Gaussian` takes them: within LOG_STD_LIMIT."""
    return tf.clip_by_value(log_std, -LOG_STD_LIMIT, LOG_STD_LIMIT)


def for_space(space: spaces.Space) -> Distribution:
    """Returns the distribution over the actions of a Gymnasium space.

    Its actions are flat and counted from 0; `action_decoder` adds the shape and the start of the space.

    Raises:
        ValueError: If there is no distribution for such a space; the message shows it.
    """
    if isinstance(space, spaces.Discrete):
        return Categorical(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return MultiCategorical([int(n) for n in np.ravel(space.nvec)])
    if isinstance(space, spaces.MultiBinary):
        return Bernoulli(int(np.prod(space.shape)))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return Gaussian(int(np.prod(space.shape)))
    raise ValueError(f"unsupported action space: {space}")
