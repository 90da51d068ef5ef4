"""Noise in the weights: fixed, scheduled, fed from outside, or adapted to a distance between policies."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlweights.weights import prng
from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.base import KERNELS_AND_BIASES, Intervention


class Noise(Intervention):
    """Adds Gaussian noise to weights.

        w <- w + stddev ε,  ε normal

    The placement gives it its meaning: "during_gradient" is weight noise (undone after each gradient),
    "during_iteration" is parameter-noise exploration (one draw acts and learns, then is undone; the
    gradient is taken at the noisy weights and applied to the clean ones, Plappert et al. 2018, eq. 2),
    "after_step" and "after_iteration" keep the noise.

    Args:
        stddev: Standard deviation: a number, a schedule of the step, or a `Feedback`.
        kind: "gaussian" (independent entries) or "factorised": f(x) f(y)^T for a kernel, with
            f(x) = sign(x) sqrt|x|, which needs (in + out) instead of (in * out) draws.
        **kwargs: See `Intervention`.

    Metrics: `stddev`, the standard deviation used.

    References: Plappert et al., "Parameter Space Noise for Exploration", 2018,
    https://arxiv.org/abs/1706.01905; Fortunato et al., "Noisy Networks for Exploration", 2018,
    https://arxiv.org/abs/1706.10295, section 3 (factorized noise); Graves, "Practical Variational
    Inference for Neural Networks", 2011 (weight noise).
    """

    when = "Exploration in the weights; robustness against small errors in them."
    example = "Noise(0.01)"

    placement = "during_gradient"
    default_on = KERNELS_AND_BIASES
    metric_names = ("stddev",)

    def __init__(self, stddev: Any, kind: str = "gaussian", **kwargs: Any):
        super().__init__(**kwargs)
        if kind not in ("gaussian", "factorised"):
            raise ValueError(f"`kind` takes 'gaussian' or 'factorised'. Received: {kind!r}")
        self.kind = kind
        self.stddev = self.strength(stddev, "stddev", minimum=0.0)

    def delta(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns stddev times a fresh draw."""
        if self.kind == "gaussian":
            return self.normal(weight, step, stddev=self.stddev)
        return ops.cast(self.stddev(step), weight.dtype) * self._factorised(weight, step)

    def preserves(self, promise: str) -> bool:
        """Noise that is kept breaks every promise."""
        return self.undone

    def _factorised(self, weight: Variable, step: Scalar) -> Tensor:
        """An outer product of two vectors of noise; a vector (a bias) gets f of its own noise."""
        counter = step if self._applications is None else self._applications
        shape = tuple(int(n) for n in weight.shape)

        def vector(size: int, side: str) -> Tensor:
            drawn = prng.normal([size], self.seed, self.stream_of(weight, side), counter)
            return ops.sign(drawn) * ops.sqrt(ops.abs(drawn))

        if len(shape) < 2 or self.is_bias(weight):
            return ops.cast(ops.reshape(vector(math.prod(shape), "out"), shape), weight.dtype)
        inputs = self.inputs_of(weight)
        rows = [n if axis in inputs else 1 for axis, n in enumerate(shape)]
        columns = [1 if axis in inputs else n for axis, n in enumerate(shape)]
        entering = ops.reshape(vector(math.prod(rows), "in"), rows)
        return ops.cast(entering * ops.reshape(vector(math.prod(columns), "out"), columns), weight.dtype)

    def observe(
        self, before: Sequence[Tensor], after: Sequence[Tensor], step: Scalar
    ) -> Mapping[str, Tensor]:
        """Reports the standard deviation."""
        return {"stddev": self.stddev(step)}


class AdaptiveNoise(Intervention):
    """Gaussian noise whose size holds the distance between clean and noisy policy at a target.

        stddev <- stddev coefficient   if the distance of the policies was at most target
        stddev <- stddev / coefficient   else

    Before each iteration: stddev <- stddev * coefficient if the distance that was measured in the last one
    is at most `target`, else stddev / coefficient. The distance is the feedback `distance`, written from
    outside; as long as it is NaN (nothing measured yet) the noise keeps its size. The
    trainer writes "policy_distance" on the rollout's own observations: the mean KL divergence for discrete
    actions, the root mean square difference of the mean actions for continuous ones.

    Args:
        target: Target distance: a number, a schedule of the step, or a `Feedback`. An epsilon-greedy
            equivalent for discrete actions is -log(1 - e + e / actions); for continuous actions it is
            the standard deviation of the action noise to be matched.
        initial_stddev: Standard deviation of the first iterations.
        coefficient: Factor of one adaptation, above 1.
        distance: Name of the feedback that carries the measured distance.
        **kwargs: See `Intervention`.

    Metrics: `stddev`; `distance`, the last one measured; `target`.

    Reference: Plappert et al., "Parameter Space Noise for Exploration", 2018,
    https://arxiv.org/abs/1706.01905, eq. 1 and 2; coefficient 1.01 from its published code.
    """

    when = "Exploration in the weights whose effect on the policy is held at a size."
    example = "AdaptiveNoise(0.01)"
    evidence = (
        (
            "far_end_of_the_chain",
            "a target of 0.3 finds the end of 50 states with a share of 1.000 of the seeds, better than "
            "plain PPO with 0.300; an entropy bonus 0.300",
        ),
    )

    placement = "during_iteration"
    default_on = KERNELS_AND_BIASES
    metric_names = ("stddev", "distance", "target")

    def __init__(
        self,
        target: Any = 0.01,
        initial_stddev: float = 0.02,
        coefficient: float = 1.01,
        distance: str = "policy_distance",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not coefficient > 1.0:
            raise ValueError(f"`coefficient` must be above 1. Received: {coefficient!r}")
        self.target = self.strength(target, "target", minimum=0.0)
        self.initial_stddev = self.strength(initial_stddev, "initial_stddev", minimum=0.0)(0)
        self.coefficient = float(coefficient)
        self._distance_name = distance
        self.distance: Any = None
        self.stddev: Any = None

    def build(self, variables: Sequence[Variable]) -> None:
        """Creates the standard deviation and declares the measured distance."""
        self.stddev = self.add_variable("stddev", initial=self.initial_stddev)
        self.distance = self.feedback(self._distance_name, float("nan"))

    def begin_iteration(self, step: Scalar) -> None:
        """Adapts the standard deviation to the distance measured in the last iteration."""
        distance, target = self.distance(step), self.target(step)
        grown, shrunk = self.stddev * self.coefficient, self.stddev / self.coefficient
        adapted = ops.where(distance <= target, grown, shrunk)
        self.stddev.assign(ops.where(ops.isnan(distance), ops.copy(self.stddev), adapted))

    def delta(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns stddev times a fresh draw."""
        stddev = self.initial_stddev if self.stddev is None else self.stddev
        return self.normal(weight, step, stddev=lambda _: stddev)

    def preserves(self, promise: str) -> bool:
        """Noise that is kept breaks every promise."""
        return self.undone

    def observe(
        self, before: Sequence[Tensor], after: Sequence[Tensor], step: Scalar
    ) -> Mapping[str, Tensor]:
        """Reports size, measured distance and target."""
        distance = self.distance(step)
        shown = ops.where(ops.isnan(distance), 0.0, distance)
        return {"stddev": self.stddev, "distance": shown, "target": self.target(step)}
