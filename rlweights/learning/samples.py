"""What the samples of a rollout look like: most of what keeps an agent from learning shows here first.

Shapes: T steps of N environments, time-major [T, N, ...].
"""

from typing import NamedTuple

import tensorflow as tf

from rlweights.learning.batch import Batch
from rlweights.learning.distributions import Distribution
from rlweights.learning.metrics import variance
from rlweights.weights.arrays import Array, Scalar, Tensor
from rlweights.weights.diagnostics import masked_mean

CONSTANT = 1e-6
"""Deviation of a feature, in units of its size, up to which it counts as constant."""


class ActionBounds(NamedTuple):
    """Bounds of continuous actions, in the units of the policy; infinite where there are none."""

    low: Array  # [A]
    high: Array  # [A]


def sample_scalars(
    batch: Batch,
    returns: Tensor,
    distribution: Distribution,
    bounds: ActionBounds | None = None,
    features: bool = False,
) -> dict[str, Scalar]:
    """Measures a rollout.

    Args:
        batch: The rollout.
        returns: The value targets [T, N].
        distribution: Of the actions.
        bounds: Of continuous actions; None: they have none.
        features: Whether observations are numbers [T, N, D] that mean something one by one.

    Returns:
        Scalars by tag; NaN where there is nothing to measure. `reward_outlier` is the largest |r| over the
        mean |r| of the rewards that are not 0: the mean stands in for the median, for which a program would
        have to sort. `observation_scale` is the largest deviation of a feature over the smallest of those
        that vary.
    """
    valid, size = batch.valid, tf.maximum(tf.reduce_sum(batch.valid), 1.0)
    magnitudes = tf.where(valid > 0, tf.abs(batch.rewards), 0.0)
    nonzero = tf.reduce_sum(tf.cast(magnitudes > 0, tf.float32))
    ended = tf.reduce_sum(tf.maximum(batch.terminated, batch.truncated))
    scalars = {
        "rollout/return_std": tf.sqrt(variance(returns, valid)),
        "rollout/reward_nonzero_share": nonzero / size,
        "rollout/reward_outlier": tf.reduce_max(magnitudes) * nonzero / tf.reduce_sum(magnitudes),
        "rollout/truncated_share": tf.reduce_sum(batch.truncated) / ended,
    }
    if distribution.max_entropy is not None and not distribution.action_shape:
        actions, counts = tf.reshape(batch.actions, [-1]), tf.reshape(valid, [-1])
        taken = tf.math.unsorted_segment_sum(counts, actions, distribution.parameter_size)
        scalars["rollout/action_top_share"] = tf.reduce_max(taken) / size
    if bounds is not None:
        outside = tf.cast((batch.actions < bounds.low) | (batch.actions > bounds.high), tf.float32)
        scalars["rollout/action_clipped_share"] = masked_mean(tf.reduce_mean(outside, axis=-1), valid)
    if features:
        scalars |= _feature_scalars(batch.observations, valid, size)
    return scalars


def _feature_scalars(observations: Tensor, valid: Tensor, size: Scalar) -> dict[str, Scalar]:
    # Squares of what is far from 0 and varies little would cancel: the first observation is the origin.
    shifted = tf.where(valid[..., None] > 0, observations - observations[0, 0], 0.0)
    mean = tf.reduce_sum(shifted, axis=[0, 1]) / size
    squares = tf.reduce_sum(shifted * shifted, axis=[0, 1]) / size
    deviation = tf.sqrt(tf.maximum(squares - mean * mean, 0.0))
    varies = deviation > CONSTANT * tf.maximum(tf.abs(observations[0, 0]), 1e-3)
    smallest = tf.reduce_min(tf.where(varies, deviation, float("inf")))
    return {
        "rollout/observation_scale": tf.where(
            tf.reduce_any(varies), tf.reduce_max(deviation) / smallest, float("nan")
        ),
        "rollout/observation_constant_share": 1.0 - tf.reduce_mean(tf.cast(varies, tf.float32)),
    }
