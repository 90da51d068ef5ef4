"""Fewer bits: weights rounded to a grid, to signs, or to a few shared values, while they are trained."""

from collections.abc import Sequence
from typing import Any

import keras

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.base import Intervention
from rlweights.weights.selection import kernels

UNDONE = ("during_gradient", "during_iteration")


class Quantization(Intervention):
    """Trains at rounded weights: quantization-aware training by the straight-through estimator.

        scale = (2^(bits-1) - 1) / (max |w| + 1e-7)        one for each output channel
        q(w)  = clip(round(w scale), -(2^(bits-1) - 1), 2^(bits-1) - 1) / scale

    Loss and gradient are taken at q(w), and the step is made on the weights themselves, which keep all their
    digits. Evaluations, `rlweights.strip` and exports have q(w); Keras' `quantize("int8")` then finds the
    same integers for 8 bits. The grid is symmetric: 8 bits are 255 values, 2 bits are three.

    Args:
        bits: 2 to 8.
        begin: Optimizer steps before the rounding sets in.
        **kwargs: See `Intervention`.

    Metrics: `relative_change` alone, which here is the relative rounding error.

    References: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
    Only Inference", 2018, https://arxiv.org/abs/1712.05877; Bengio, Léonard and Courville, "Estimating or
    Propagating Gradients Through Stochastic Neurons", 2013, https://arxiv.org/abs/1308.3432; the grid is that
    of Keras' `keras.quantizers.abs_max_quantize`.
    """

    when = "Models for devices that compute in 8 bits or fewer."
    example = "Quantization(bits=4)"

    placement = "during_gradient"
    placements = UNDONE
    default_on = kernels()

    def __init__(self, bits: int = 8, begin: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        if bits not in range(2, 9):
            raise ValueError(f"`bits` must be 2 to 8. Received: {bits!r}")
        if begin < 0:
            raise ValueError(f"`begin` must be at least 0. Received: {begin!r}")
        self.bits, self.begin = int(bits), int(begin)

    def update(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the rounded weight, or the weight as it is before `begin`."""
        rounded = self.rounded(weight, weight)
        return rounded if not self.begin else ops.where(step >= self.begin, rounded, weight)

    def exported(self, weight: Variable, value: Tensor) -> Tensor:
        """Returns the rounded value."""
        return self.rounded(weight, value)

    def rounded(self, weight: Variable, value: Tensor) -> Tensor:
        """Returns a value [...] of `weight` on its grid."""
        most = 2 ** (self.bits - 1) - 1
        integers, scale = keras.quantizers.abs_max_quantize(
            ops.cast(value, "float32"), _channels(self, weight), (-most, most), "int8", 1e-7
        )
        levels: Any = ops.cast(integers, "float32")
        return ops.cast(levels / scale, weight.dtype)


class Binarization(Intervention):
    """Trains at the signs of weights, with or without a scale for each output channel.

        b(w) = α sign(w),  α = mean |w| of the channel, or 1;  sign(0) = 1

    Loss and gradient are taken at b(w), the step is made on the weights themselves, and evaluations and
    exports have b(w). Weights that run away from zero never change their sign again: BinaryConnect holds
    them in [-1, 1], here the rule `Clipping(1.0, unit="absolute")`.

    Args:
        scale: "mean" or "one".
        **kwargs: See `Intervention`.

    Metrics: `relative_change` alone.

    References: Courbariaux, Bengio and David, "BinaryConnect: Training Deep Neural Networks with binary
    weights during propagations", 2015, https://arxiv.org/abs/1511.00363 (scale "one"); Rastegari, Ordonez,
    Redmon and Farhadi, "XNOR-Net", 2016, https://arxiv.org/abs/1603.05279, eq. 6 (scale "mean").
    """

    when = "Weights of one bit."
    example = "Binarization()"

    placement = "during_gradient"
    placements = UNDONE
    default_on = kernels()

    def __init__(self, scale: str = "mean", **kwargs: Any):
        super().__init__(**kwargs)
        if scale not in ("mean", "one"):
            raise ValueError(f"`scale` takes 'mean' or 'one'. Received: {scale!r}")
        self.scale = scale

    def update(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the signs."""
        return self.signs(weight, weight)

    def exported(self, weight: Variable, value: Tensor) -> Tensor:
        """Returns the signs of the value."""
        return self.signs(weight, value)

    def signs(self, weight: Variable, value: Tensor) -> Tensor:
        """Returns the signs of a value [...] of `weight`, times the scale."""
        value = ops.cast(value, "float32")
        signs = ops.where(value >= 0.0, ops.ones_like(value), -ops.ones_like(value))
        if self.scale == "mean":
            signs = signs * ops.mean(ops.abs(value), axis=_channels(self, weight), keepdims=True)
        return ops.cast(signs, weight.dtype)


class Clustering(Intervention):
    """Trains at a few values that the entries of each weight share: weight clustering.

        c(w) = the nearest of the centroids;  centroid <- the mean of the entries that are nearest to it

    Centroids begin evenly from the least to the largest entry, and make one step of k-means (Lloyd's
    algorithm) before each gradient; one with no entries stays. Loss and gradient are taken at c(w), the step
    is made on the weights themselves, and evaluations and exports have c(w), of which a file stores log2 k
    bits an entry.

    Args:
        clusters: Number k of values of each weight, at least 2.
        **kwargs: See `Intervention`.

    Metrics: `relative_change` alone.

    Reference: Han, Mao and Dally, "Deep Compression", 2016, https://arxiv.org/abs/1510.00149, section 3
    (there the centroids take gradient steps; here they follow the weights, which do).
    """

    when = "Files that store few different numbers."
    example = "Clustering(16)"

    placement = "during_gradient"
    placements = UNDONE
    default_on = kernels()

    def __init__(self, clusters: int = 16, **kwargs: Any):
        super().__init__(**kwargs)
        if clusters < 2:
            raise ValueError(f"`clusters` must be at least 2. Received: {clusters!r}")
        self.clusters = int(clusters)
        self._centroids: dict[int, Any] = {}

    def build(self, variables: Sequence[Variable]) -> None:
        """Places the centroids of each weight [clusters] evenly."""
        for variable in variables:
            value = ops.cast(variable, "float32")
            evenly = ops.linspace(ops.min(value), ops.max(value), self.clusters)
            name = f"{variable.path.replace('/', '_')}_centroids"
            self._centroids[id(variable)] = self.add_variable(name, shape=(self.clusters,), initial=evenly)

    def survey(self, weights: Sequence[Variable], step: Scalar) -> None:
        """Moves each centroid to the mean of its entries."""
        for weight in weights:
            centroids = self._centroids[id(weight)]
            value = ops.reshape(ops.cast(weight, "float32"), [-1])
            places = ops.expand_dims(ops.arange(self.clusters, dtype="int32"), -1)
            members = ops.cast(ops.equal(places, self._nearest(weight, value)), "float32")
            counts, sums = ops.sum(members, axis=-1), ops.sum(members * value, axis=-1)
            centroids.assign(ops.where(counts > 0.0, sums / ops.maximum(counts, 1.0), centroids))

    def update(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the nearest centroids."""
        return self.clustered(weight, weight)

    def exported(self, weight: Variable, value: Tensor) -> Tensor:
        """Returns the centroids nearest to the value."""
        return self.clustered(weight, value)

    def clustered(self, weight: Variable, value: Tensor) -> Tensor:
        """Returns the centroids nearest to a value [...] of `weight`."""
        if id(weight) not in self._centroids:
            raise ValueError(f"{self.name}: centroids need a weight of a built optimizer.")
        nearest = ops.take(self._centroids[id(weight)], self._nearest(weight, ops.cast(value, "float32")))
        return ops.cast(ops.reshape(nearest, weight.shape), weight.dtype)

    def _nearest(self, weight: Variable, value: Tensor) -> Tensor:
        """The index of the centroid nearest to each entry: they are in order, as means of neighbours are."""
        centroids: Any = ops.copy(self._centroids[id(weight)])
        borders = 0.5 * (centroids[1:] + centroids[:-1])
        above: list[Any] = [ops.cast(value > borders[i], "int32") for i in range(self.clusters - 1)]
        return sum(above[1:], above[0])


def _channels(rule: Intervention, weight: Variable) -> list[int] | None:
    """The axes of a weight that have one scale together: the inputs of a unit; None: all of it."""
    if rule.is_bias(weight):
        return None
    # A row of an embedding is looked up, and nothing is summed: each has a scale of its own.
    return list(rule.inputs_of(weight)) or [len(weight.shape) - 1]
