"""What weights, updates, hidden units and policies look like, as pure functions of tensors.

`weights` is one tensor or variable, or any nest of them, which is then measured as one long vector; U are
the units of a layer. Every function returns float32: a scalar unless it says otherwise. Cases without an
answer (no entries, no spread, zero norms) return what the function says, and never NaN. All functions
compile with XLA; of those that need singular values see `singular_values`.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from rlweights.weights.arrays import Tensor

# Weights --------------------------------------------------------------------------------------------


def weight_norm(weights: Any) -> Any:
    """Returns ‖w‖₂; 0 if there are none."""
    return tf.norm(_flat(weights))


def weight_rms(weights: Any) -> Any:
    """Returns the root mean square √(Σ w² / n), which unlike the norm compares layers; 0 if there are none.

    Reference: Juliani and Ash, "A Study of Plasticity Loss in On-Policy Deep Reinforcement Learning",
    2024, https://arxiv.org/abs/2405.19153 ("weight magnitude").
    """
    return tf.sqrt(masked_mean(tf.square(_flat(weights))))


def weight_max(weights: Any) -> Any:
    """Returns max |w|; 0 if there are none."""
    return tf.reduce_max(tf.concat([[0.0], tf.abs(_flat(weights))], axis=0))


def distance_from_init(weights: Any, initial: Any) -> Any:
    """Returns the root mean square of w - w₀, which L2-Init keeps small; 0 if there are none.

    Reference: Kumar, Marklund and Van Roy, "Maintaining Plasticity in Continual Learning via Regenerative
    Regularization", 2023, https://arxiv.org/abs/2308.11958.
    """
    return tf.sqrt(masked_mean(tf.math.squared_difference(_flat(weights), _flat(initial))))


def clipped_share(weights: Any, bound: Tensor) -> Any:
    """Returns the share with |w| > bound: before a clamp, what it will change; 0 if there are none.

    Args:
        weights: See above.
        bound: Scalar, or a tensor that broadcasts against one weight tensor.

    Reference: Elsayed et al., "Weight Clipping for Deep Continual and Reinforcement Learning", 2024,
    https://arxiv.org/abs/2407.01704; the "proportion" of its code.
    """
    return masked_mean(_within(weights, bound, lambda w, b: w > b))


def saturated_share(weights: Any, bound: Tensor, tolerance: float = 1e-6) -> Any:
    """Returns the share with |w| ≥ bound (1 - tolerance): after a clamp, what stands at its wall.

    Args:
        weights: See above; 0 is returned if there are none.
        bound: Scalar, or a tensor that broadcasts against one weight tensor.
        tolerance: Part of the bound that still counts as the wall.
    """
    return masked_mean(_within(weights, bound, lambda w, b: w >= b * (1.0 - tolerance)))


# Updates --------------------------------------------------------------------------------------------


def global_norm(gradients: Any) -> Any:
    """Returns √(Σ ‖g‖²) over a nest of gradients; None is no gradient, and none at all have norm 0."""
    present = [tf.cast(g, tf.float32) for g in tf.nest.flatten(gradients) if g is not None]
    return tf.linalg.global_norm(present) if present else tf.zeros([])


def update_to_weight_ratio(before: Any, after: Any) -> Any:
    """Returns ‖after - before‖ / ‖before‖ of weights; 0 if `before` is zero."""
    before, after = _flat(before), _flat(after)
    return tf.math.divide_no_nan(tf.norm(after - before), tf.norm(before))


# Hidden units ---------------------------------------------------------------------------------------


def dormant_scores(activations: Tensor) -> Any:
    """Scores each unit by its mean absolute activation, relative to that of its layer.

        sᵢ = E|hᵢ| / (meanₖ E|hₖ| + 1e-9)

    Args:
        activations: [..., U]; the expectation is over the leading dimensions (samples, and places of a
            convolution).

    Returns:
        [U]. A layer that is all zero, or of which nothing was seen, has scores 0.

    Reference: Sokar et al., "The Dormant Neuron Phenomenon in Deep Reinforcement Learning", 2023,
    https://arxiv.org/abs/2302.12902, as in the authors' code, which has the 1e-9.
    """
    magnitude = _mean_over_samples(tf.abs(_samples(activations)))
    return magnitude / (masked_mean(magnitude) + 1e-9)


def dormant_share(activations: Tensor, tau: float = 0.025) -> Any:
    """Returns the share of units with `dormant_scores` sᵢ ≤ tau; 1 for a layer that is all zero.

    Args:
        activations: [..., U].
        tau: Threshold; the paper's experiments use 0, 0.025 and 0.1.
    """
    return masked_mean(_float(dormant_scores(activations) <= tau))


def dead_units(activations: Tensor, activation: str = "relu") -> Any:
    """Returns the share of units whose output says nothing about the input.

    For "relu" these are the units that are 0 on the whole batch, for any other activation those with a
    standard deviation below 0.001 over the batch.

    Args:
        activations: [..., U], outputs of the activation. Without samples all units are dead.
        activation: Name of the Keras activation.

    Reference: Moalla et al., "No Representation, No Trust", 2024, https://arxiv.org/abs/2405.00662; the
    counts of its code, for ReLU and tanh.
    """
    h = _samples(activations)
    if activation == "relu":
        return masked_mean(_float(tf.reduce_all(h == 0.0, axis=0)))
    variance = _mean_over_samples(tf.square(h - _mean_over_samples(h)))
    return masked_mean(_float(tf.sqrt(variance) < 1e-3))


def saturated_units(activations: Tensor, threshold: float = 0.99) -> Any:
    """Returns the share of outputs, over samples and units, with |h| > threshold; 0 without samples.

    For tanh units, whose gradient is then below 2 % of its largest value.

    Reference: Juliani and Ash (see `weight_rms`), the dead units of its code for tanh.
    """
    return masked_mean(_float(tf.abs(_samples(activations)) > threshold))


# Ranks of features ----------------------------------------------------------------------------------
#
# All take features [..., U] of the last hidden layer on a fixed batch of at least U samples: of fewer, no
# rank can exceed their number. They are not centred. Features that are all zero have rank 0.


def singular_values(features: Tensor) -> Any:
    """Returns the singular values [min(samples, U)] of features [..., U], in descending order.

    Keep this out of XLA programs, where a CPU takes 43 s for [2048, 64] against 2.4 ms in a plain graph.
    Several ranks of the same features in one graph share one decomposition.
    """
    return tf.linalg.svd(_samples(features), compute_uv=False)


def effective_rank(features: Tensor) -> Any:
    """Returns exp(-Σ p log p) with p = σ / Σ σ: a real number between 1 and U.

    Reference: Roy and Vetterli, "The Effective Rank: A Measure of Effective Dimensionality", 2007,
    definition 2.1.
    """
    sigma = singular_values(features)
    total = tf.reduce_sum(sigma)
    p = tf.math.divide_no_nan(sigma, total)
    return tf.where(total > 0.0, tf.exp(-tf.reduce_sum(tf.math.xlogy(p, p))), 0.0)


def srank(features: Tensor, delta: float = 0.01) -> Any:
    """Returns the smallest k with σ₁ + ... + σₖ ≥ (1 - delta) Σ σ. Some papers call this "stable rank".

    Reference: Kumar et al., "Implicit Under-Parameterization Inhibits Data-Efficient Deep Reinforcement
    Learning", 2021, https://arxiv.org/abs/2010.14498, section 3.
    """
    return _smallest_prefix(singular_values(features), 1.0 - delta)


def approximate_rank(features: Tensor, delta: float = 0.01) -> Any:
    """Returns the smallest k with σ₁² + ... + σₖ² ≥ (1 - delta) Σ σ².

    Reference: Yang et al., "Harnessing Structures for Value-Based Planning and Reinforcement Learning",
    2020, https://arxiv.org/abs/1909.12255, section 2.
    """
    return _smallest_prefix(tf.square(singular_values(features)), 1.0 - delta)


def feature_rank(features: Tensor, epsilon: float = 0.01) -> Any:
    """Returns the number of singular values with σ / √samples > epsilon.

    Reference: Lyle, Rowland and Dabney, "Understanding and Preventing Capacity Loss in Reinforcement
    Learning", 2022, https://arxiv.org/abs/2204.09560, eqs. 4 and 5.
    """
    scale = tf.sqrt(_float(tf.shape(_samples(features))[0]))
    return tf.reduce_sum(_float(singular_values(features) > epsilon * scale))


def stable_rank_fro(features: Tensor) -> Any:
    """Returns ‖F‖²_F / ‖F‖²₂ = Σ σ² / σ₁², the stable rank of numerical linear algebra.

    Reference: Rudelson and Vershynin, "Sampling from Large Matrices: An Approach through Geometric
    Functional Analysis", 2007, https://arxiv.org/abs/math/0503442.
    """
    squares = tf.square(singular_values(features))
    return tf.math.divide_no_nan(tf.reduce_sum(squares), weight_max(squares))


# Policies and values --------------------------------------------------------------------------------


def masked_mean(x: Tensor, mask: Tensor | None = None) -> Any:
    """Returns the mean of the entries of x [...] where mask [...] is not 0; 0 if there are none.

    Entries that do not count may even be NaN.
    """
    x = tf.convert_to_tensor(x)
    if mask is None:
        return tf.reduce_sum(x) / tf.cast(tf.maximum(tf.size(x), 1), x.dtype)
    counts = tf.cast(mask, tf.bool)
    size = tf.math.count_nonzero(counts, dtype=tf.int32)
    return tf.reduce_sum(tf.where(counts, x, 0.0)) / tf.cast(tf.maximum(size, 1), x.dtype)


def _float(x: Tensor) -> Tensor:
    return tf.cast(x, tf.float32)


def _flat(weights: Any) -> Tensor:
    """All weights of a nest in one float32 vector."""
    parts = [tf.reshape(_float(w), [-1]) for w in tf.nest.flatten(weights)]
    return tf.concat(parts, axis=0) if parts else tf.zeros([0])


def _within(weights: Any, bound: Tensor, test: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Applies a test of (|w|, bound) to each weight tensor; one float32 vector of 0 and 1."""
    bound = _float(bound)
    return _flat([test(tf.abs(_float(w)), bound) for w in tf.nest.flatten(weights)])


def _samples(activations: Tensor) -> Tensor:
    """[..., U] -> float32 [samples, U]."""
    activations = _float(activations)
    return tf.reshape(activations, [-1, activations.shape[-1]])


def _mean_over_samples(h: Tensor) -> Tensor:
    """[samples, U] -> [U]; 0 without samples."""
    return tf.reduce_sum(h, axis=0) / _float(tf.maximum(tf.shape(h)[0], 1))


def _smallest_prefix(descending: Tensor, share: float) -> Tensor:
    """The smallest number of leading entries that sum to `share` of the total; 0 if that is 0."""
    sums = tf.cumsum(descending)
    total = weight_max(sums)
    return tf.where(total > 0.0, tf.reduce_sum(_float(sums < share * total)) + 1.0, 0.0)
