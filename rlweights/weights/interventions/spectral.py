"""Singular values of kernels: the largest one held, or all of them made equal."""

from collections.abc import Sequence
from typing import Any

from rlweights.weights import prng
from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.base import Intervention
from rlweights.weights.selection import kernels


class SpectralNorm(Intervention):
    """Divides each kernel by its largest singular value, which power iteration estimates as it goes.

        v <- u Wᵀ / |u Wᵀ|;  u <- v W / |v W|;  σ = v W uᵀ;  W <- norm W / σ

    W is the kernel as a matrix [inputs, units]. Without `only_above` it is what Keras' layer
    `SpectralNormalization` does to its kernel before each call in training.

    Args:
        norm: The singular value that is left.
        iterations: Power iterations a step; the estimate goes on from that of the step before.
        only_above: Whether kernels whose largest singular value is below `norm` are left alone.
        **kwargs: See `Intervention`.

    Metrics: `largest`, the largest estimate of all kernels, before they are divided.

    References: Miyato, Kataoka, Koyama and Yoshida, "Spectral Normalization for Generative Adversarial
    Networks", 2018, https://arxiv.org/abs/1802.05957; Gogianu et al., "Spectral Normalisation for Deep
    Reinforcement Learning: an Optimisation Perspective", 2021, https://arxiv.org/abs/2105.05246 (which
    normalizes a few layers, not all).
    """

    when = "Layers whose slope is to be bounded: critics, discriminators, a few layers of a value network."
    example = "SpectralNorm()"

    default_on = kernels()
    metric_names = ("largest",)
    promise = "spectral norm"

    def __init__(self, norm: float = 1.0, iterations: int = 1, only_above: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        if iterations < 1:
            raise ValueError(f"`iterations` must be at least 1. Received: {iterations!r}")
        self.norm = self.strength(norm, "norm", minimum=0.0)
        self.iterations, self.only_above = int(iterations), only_above
        self._vectors: dict[int, Any] = {}
        self._values: dict[int, Any] = {}

    def build(self, variables: Sequence[Variable]) -> None:
        """Draws the first vectors u [1, units]."""
        for v in variables:
            path, units = v.path.replace("/", "_"), int(v.shape[-1])
            drawn = prng.normal([1, units], self.seed, self.stream_of(v, "vector"), 0)
            self._vectors[id(v)] = self.add_variable(f"{path}_vector", shape=(1, units), initial=drawn)
            self._values[id(v)] = self.add_variable(f"{path}_value", initial=1.0)

    def survey(self, weights: Sequence[Variable], step: Scalar) -> None:
        """Goes on with the power iterations."""
        for weight in weights:
            matrix = ops.reshape(ops.cast(weight, "float32"), (-1, weight.shape[-1]))
            u = ops.copy(self._vectors[id(weight)])
            v = u
            for _ in range(self.iterations):
                v = _unit(ops.matmul(u, ops.transpose(matrix)))
                u = _unit(ops.matmul(v, matrix))
            self._vectors[id(weight)].assign(u)
            self._values[id(weight)].assign(ops.sum(ops.matmul(v, matrix) * u))

    def preserves(self, promise: str) -> bool:
        """What else was promised need not hold of other singular values."""
        return self.undone

    def update(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the kernel divided by its singular value; a kernel of zeros as it is."""
        if id(weight) not in self._values:
            raise ValueError(f"{self.name}: a singular value needs a weight of a built optimizer.")
        value, norm = self._values[id(weight)], self.norm(step)
        factor = ops.where(value > 0.0, norm / ops.maximum(value, 1e-30), 1.0)
        if self.only_above:
            factor = ops.minimum(factor, 1.0)
        return ops.cast(ops.cast(weight, "float32") * factor, weight.dtype)

    def observe(self, before: Sequence[Tensor], after: Sequence[Tensor], step: Scalar) -> dict[str, Tensor]:
        """Reports the largest singular value."""
        return {"largest": ops.max(ops.stack([ops.copy(each) for each in self._values.values()]))}


class Orthogonal(Intervention):
    """Replaces each kernel by the orthogonal matrix that is nearest to it: a retraction after each step.

        W <- gain U Vᵀ,  where W = U S Vᵀ

    W is the kernel as a matrix [inputs, units]; its shorter side becomes orthonormal. The factor is found by
    Newton and Schulz's iteration X <- 1.5 X - 0.5 X Xᵀ X, of matrix products alone, until |X Xᵀ - 1| is
    below 1e-5 a row: two or three rounds for a matrix that has taken a step since, more at first.

    Args:
        gain: The singular value of all directions.
        rounds: Iterations at most.
        **kwargs: See `Intervention`.

    Metrics: `relative_change` alone.

    References: Absil, Mahony and Sepulchre, "Optimization Algorithms on Matrix Manifolds", 2008, example
    4.1.3 (the polar retraction); Higham, "Functions of Matrices", 2008, section 8.3 (the iteration); Huang
    et al., "Orthogonal Weight Normalization", 2018, https://arxiv.org/abs/1709.06079 (kernels that stay
    orthogonal).
    """

    when = "Deep and recurrent networks whose signals are neither to grow nor to fade."
    example = "Orthogonal()"

    default_on = kernels()
    promise = "orthogonality"

    def __init__(self, gain: float = 1.0, rounds: int = 40, **kwargs: Any):
        super().__init__(**kwargs)
        if rounds < 1:
            raise ValueError(f"`rounds` must be at least 1. Received: {rounds!r}")
        self.gain, self.rounds = self.strength(gain, "gain", minimum=0.0), int(rounds)

    def preserves(self, promise: str) -> bool:
        """What else was promised need not hold of other singular values."""
        return self.undone

    def update(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the orthogonal factor times the gain."""
        matrix: Any = ops.reshape(ops.cast(weight, "float32"), (-1, weight.shape[-1]))
        tall = matrix.shape[0] > matrix.shape[1]
        x = ops.transpose(matrix) if tall else matrix
        x = self._factor(x / ops.maximum(self.gain(step), 1e-30))
        x = self.gain(step) * (ops.transpose(x) if tall else x)
        return ops.cast(ops.reshape(x, weight.shape), weight.dtype)

    def _factor(self, x: Tensor) -> Tensor:
        rows = int(x.shape[0])
        one = ops.eye(rows)

        def deviation(x: Tensor) -> Scalar:
            return ops.norm(ops.matmul(x, ops.transpose(x)) - one)

        # Within 0.5 of orthogonal the iteration converges as it is, and from anywhere below the norm 1.
        near = deviation(x) < 0.5
        x = ops.where(near, x, x / ops.maximum(ops.norm(x), 1e-30))

        def going(i: Scalar, x: Tensor) -> Scalar:
            return ops.logical_and(i < self.rounds, deviation(x) > 1e-5 * rows)

        def round_(i: Scalar, x: Tensor) -> tuple[Scalar, Tensor]:
            cubic: Any = ops.matmul(ops.matmul(x, ops.transpose(x)), x)
            return i + 1, 1.5 * x - 0.5 * cubic

        _, found = ops.while_loop(going, round_, (ops.zeros([], "int32"), x))  # pyright: ignore[reportGeneralTypeIssues]
        return found


def _unit(vector: Tensor) -> Tensor:
    return vector / ops.sqrt(ops.maximum(ops.sum(ops.square(vector)), 1e-12))
