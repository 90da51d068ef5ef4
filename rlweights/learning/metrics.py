"""Metrics of policies, of values and of their updates, as pure functions of tensors."""

import tensorflow as tf

from rlweights.weights.arrays import Scalar, Tensor
from rlweights.weights.diagnostics import masked_mean


def policy_churn(before: Tensor, after: Tensor) -> Scalar:
    """Returns the share of states whose greedy action an update has changed; 0 without states.

    Args:
        before: Discrete greedy actions [B] or [B, ...] (`Distribution.mode`) before the update; of several
            components, one that changed suffices.
        after: The same after it.

    Reference: Schaul et al., "The Phenomenon of Policy Churn", 2022, https://arxiv.org/abs/2206.00730.
    """
    changed = tf.convert_to_tensor(before) != tf.convert_to_tensor(after)
    changed = tf.reduce_any(changed, axis=list(range(1, len(changed.shape))))
    return masked_mean(_float(changed))


def approx_kl(log_prob: Tensor, old_log_prob: Tensor, mask: Tensor | None = None) -> Scalar:
    """Estimates KL(π_old || π) from samples of π_old as the mean of r - 1 - log r, with r = π / π_old.

    The estimator is unbiased and, unlike the mean of -log r, never negative.

    Args:
        log_prob: log π [...] of the actions.
        old_log_prob: log π_old [...].
        mask: [...], 0 where a sample does not count; None: all count. 0 is returned if none does.

    Reference: Schulman, "Approximating KL Divergence", 2020, http://joschu.net/blog/kl-approx.html, k3.
    """
    log_ratio = _float(log_prob - old_log_prob)
    return masked_mean(tf.math.expm1(log_ratio) - log_ratio, mask)


def clip_fraction(
    log_prob: Tensor, old_log_prob: Tensor, clip_range: Scalar, mask: Tensor | None = None
) -> Scalar:
    """Returns the share of samples with |r - 1| > clip_range, where PPO's clipping may bind.

    Arguments and the value without samples are those of `approx_kl`.

    Reference: Huang et al., "The 37 Implementation Details of Proximal Policy Optimization", 2022.
    """
    distance = tf.abs(tf.math.expm1(_float(log_prob - old_log_prob)))
    return masked_mean(_float(distance > clip_range), mask)


def variance(x: Tensor, mask: Tensor | None = None) -> Scalar:
    """Returns the mean square distance of the entries of x [...] from their mean; 0 without entries.

    Args:
        x: The entries.
        mask: [...], 0 where an entry does not count; None: all count.
    """
    return masked_mean(tf.square(x - masked_mean(x, mask)), mask)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor | None = None) -> Scalar:
    """Returns 1 - Var(returns - values) / Var(returns): 1 is perfect, 0 no better than a constant.

    Args:
        values: Predictions [...].
        returns: What they predict [...].
        mask: [...], 0 where a sample does not count; None: all count.

    Returns:
        Scalar in (-∞, 1]; 0 where the returns do not vary beyond the rounding of float32.
    """
    values, returns = _float(values), _float(returns)

    spread = variance(returns, mask)
    varies = spread > 1e-12 * masked_mean(tf.square(returns), mask)
    return tf.where(varies, 1.0 - tf.math.divide_no_nan(variance(returns - values, mask), spread), 0.0)


def _float(x: Tensor) -> Tensor:
    return tf.cast(x, tf.float32)
