"""What weights, updates, hidden units and policies look like, as pure functions of tensors.

`weights` is one tensor or variable, or any nest of them, which is then measured as one long vector; U are
the units of a layer. Every function returns float32: a scalar unless it says otherwise. Cases without an
answer (no entries, no spread, zero norms) return what the function says, and never NaN. All functions
compile with XLA; of those that need singular values see `singular_values`.
"""

from collections.abc import Callable
from typing import Any

import keras

from rlweights.weights.arrays import Tensor
from rlweights.weights.backend import ops

# Weights --------------------------------------------------------------------------------------------


def weight_norm(weights: Any) -> Any:
    """Returns ‖w‖₂; 0 if there are none."""
    return _norm(_flat(weights))


def weight_rms(weights: Any) -> Any:
    """Returns the root mean square √(Σ w² / n), which unlike the norm compares layers; 0 if there are none.

    Reference: Juliani and Ash, "A Study of Plasticity Loss in On-Policy Deep Reinforcement Learning",
    2024, https://arxiv.org/abs/2405.19153 ("weight magnitude").
    """
    return ops.sqrt(masked_mean(ops.square(_flat(weights))))


def weight_max(weights: Any) -> Any:
    """Returns max |w|; 0 if there are none."""
    return ops.max(ops.concatenate([ops.zeros([1]), ops.abs(_flat(weights))]))


def distance_from_init(weights: Any, initial: Any) -> Any:
    """Returns the root mean square of w - w₀, which L2-Init keeps small; 0 if there are none.

    Reference: Kumar, Marklund and Van Roy, "Maintaining Plasticity in Continual Learning via Regenerative
    Regularization", 2023, https://arxiv.org/abs/2308.11958.
    """
    return ops.sqrt(masked_mean(ops.square(_flat(weights) - _flat(initial))))


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


def update_to_weight_ratio(before: Any, after: Any) -> Any:
    """Returns ‖after - before‖ / ‖before‖ of weights; 0 if `before` is zero."""
    before, after = _flat(before), _flat(after)
    return ops.divide_no_nan(_norm(after - before), _norm(before))


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
    magnitude = _mean_over_samples(ops.abs(_samples(activations)))
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
        return masked_mean(_float(ops.all(ops.equal(h, 0.0), axis=0)))
    variance = _mean_over_samples(ops.square(h - _mean_over_samples(h)))
    return masked_mean(_float(ops.sqrt(variance) < 1e-3))


def saturated_units(activations: Tensor, threshold: float = 0.99) -> Any:
    """Returns the share of outputs, over samples and units, with |h| > threshold; 0 without samples.

    For tanh units, whose gradient is then below 2 % of its largest value.

    Reference: Juliani and Ash (see `weight_rms`), the dead units of its code for tanh.
    """
    return masked_mean(_float(ops.abs(_samples(activations)) > threshold))


# Ranks of features ----------------------------------------------------------------------------------
#
# All take features [..., U] of the last hidden layer on a fixed batch of at least U samples: of fewer, no
# rank can exceed their number. They are not centred. Features that are all zero have rank 0.


def singular_values(features: Tensor) -> Any:
    """Returns the singular values [min(samples, U)] of features [..., U], in descending order.

    Keep this out of XLA programs, where a CPU takes 43 s for [2048, 64] against 2.4 ms in a plain graph.
    Several ranks of the same features in one graph share one decomposition.
    """
    return ops.svd(_samples(features), compute_uv=False)


def effective_rank(features: Tensor) -> Any:
    """Returns exp(-Σ p log p) with p = σ / Σ σ: a real number between 1 and U.

    Reference: Roy and Vetterli, "The Effective Rank: A Measure of Effective Dimensionality", 2007,
    definition 2.1.
    """
    sigma = singular_values(features)
    total = ops.sum(sigma)
    p = ops.divide_no_nan(sigma, total)
    entropy = -ops.sum(p * ops.log(ops.where(p > 0.0, p, 1.0)))
    return ops.where(total > 0.0, ops.exp(entropy), 0.0)


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
    return _smallest_prefix(ops.square(singular_values(features)), 1.0 - delta)


def feature_rank(features: Tensor, epsilon: float = 0.01) -> Any:
    """Returns the number of singular values with σ / √samples > epsilon.

    Reference: Lyle, Rowland and Dabney, "Understanding and Preventing Capacity Loss in Reinforcement
    Learning", 2022, https://arxiv.org/abs/2204.09560, eqs. 4 and 5.
    """
    scale = ops.sqrt(_float(ops.shape(_samples(features))[0]))
    return ops.sum(_float(singular_values(features) > epsilon * scale))


def stable_rank_fro(features: Tensor) -> Any:
    """Returns ‖F‖²_F / ‖F‖²₂ = Σ σ² / σ₁², the stable rank of numerical linear algebra.

    Reference: Rudelson and Vershynin, "Sampling from Large Matrices: An Approach through Geometric
    Functional Analysis", 2007, https://arxiv.org/abs/math/0503442.
    """
    squares = ops.square(singular_values(features))
    return ops.divide_no_nan(ops.sum(squares), weight_max(squares))


# Policies and values --------------------------------------------------------------------------------


def masked_mean(x: Tensor, mask: Tensor | None = None) -> Any:
    """Returns the mean of the entries of x [...] where mask [...] is not 0; 0 if there are none.

    Entries that do not count may even be NaN.
    """
    x = ops.convert_to_tensor(x)
    if mask is None:
        return ops.sum(x) / ops.cast(ops.maximum(ops.size(x), 1), x.dtype)
    counts = ops.cast(mask, "bool")
    size = ops.sum(ops.cast(counts, "int32"))
    return ops.sum(ops.where(counts, x, 0.0)) / ops.cast(ops.maximum(size, 1), x.dtype)


def _float(x: Tensor) -> Tensor:
    return ops.cast(x, "float32")


def _flat(weights: Any) -> Tensor:
    """All weights of a nest in one float32 vector."""
    parts = [ops.reshape(_float(w), [-1]) for w in keras.tree.flatten(weights)]
    return ops.concatenate(parts) if parts else ops.zeros([0])


def _norm(vector: Tensor) -> Tensor:
    return ops.sqrt(ops.sum(ops.square(vector)))


def _within(weights: Any, bound: Tensor, test: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Applies a test of (|w|, bound) to each weight tensor; one float32 vector of 0 and 1."""
    bound = _float(bound)
    return _flat([test(ops.abs(_float(w)), bound) for w in keras.tree.flatten(weights)])


def _samples(activations: Tensor) -> Tensor:
    """[..., U] -> float32 [samples, U]."""
    activations = _float(activations)
    return ops.reshape(activations, [-1, activations.shape[-1]])


def _mean_over_samples(h: Tensor) -> Tensor:
    """[samples, U] -> [U]; 0 without samples."""
    return ops.sum(h, axis=0) / _float(ops.maximum(ops.shape(h)[0], 1))


def _smallest_prefix(descending: Tensor, share: float) -> Tensor:
    """The smallest number of leading entries that sum to `share` of the total; 0 if that is 0."""
    sums = ops.cumsum(descending)
    total = weight_max(sums)
    return ops.where(total > 0.0, ops.sum(_float(sums < share * total)) + 1.0, 0.0)
