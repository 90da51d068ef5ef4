"""Shrinkage of weights: towards zero, towards where they began, or towards fresh ones."""

from collections.abc import Sequence
from typing import Any

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.base import KERNELS_AND_BIASES, Intervention

TARGETS = ("zero", "initial", "fresh")


class Shrinkage(Intervention):
    """Moves weights a little towards a target: w <- (1 - rate) w + rate * target (+ perturbation).

        w <- w + rate (target - w) + perturb fresh

    =========  =========================================  ===============================================
    towards    the target                                 known as
    =========  =========================================  ===============================================
    "zero"     0                                          decoupled weight decay; with `perturb` and the
                                                          placement "after_iteration": shrink and perturb
    "initial"  the weight when the optimizer was built    decoupled L2-Init; of a network that was trained
                                                          before, decoupled L2-SP, with "zero" on new layers
    "fresh"    a new draw from the initial distribution   soft shrink and perturb (rate 1e-6, after every
                                                          step)
    =========  =========================================  ===============================================

    A draw from the initial distribution is Gaussian here, with the root mean square that the weight had when
    the optimizer was built: a variable does not know its initializer, and what the method needs of it is its
    scale. A weight that began at zero, as biases do, is drawn as zero.

    Args:
        rate: Share of the way, in [0, 1]: a number, a schedule of the step, or a `Feedback`. The default is
            that of soft shrink and perturb; the published shrink and perturb goes half of the way.
        towards: "zero", "initial" or "fresh".
        perturb: Factor on a fresh draw that is added after shrinking, 0 for none: a number, a schedule of
            the step, or a `Feedback`. The published shrink and perturb adds half of one.
        **kwargs: See `Intervention`.

    Metrics: `relative_change` alone.

    References: Ash and Adams, "On Warm-Starting Neural Network Training", 2020,
    https://arxiv.org/abs/1910.08475 (shrink and perturb); Kumar et al., "Maintaining Plasticity in Continual
    Learning via Regenerative Regularization", 2023, https://arxiv.org/abs/2308.11958 (L2-Init, there in the
    loss); Li, Grandvalet and Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional
    Networks", 2018, https://arxiv.org/abs/1802.01483 (L2-SP, there in the loss); Juliani and Ash, "A Study of
    Plasticity Loss in On-Policy Deep Reinforcement Learning", 2024, https://arxiv.org/abs/2405.19153 (soft
    shrink and perturb; its published code has 1e-6 for it, and 0.5 and 0.5 for shrink and perturb).

    Examples:
        >>> Shrinkage(0.5, towards="zero", perturb=0.5, placement="after_iteration").placement
        'after_iteration'
    """

    when = "Data that changes: weights that stay near where learning was easy; weight decay."
    example = 'Shrinkage(1e-4, towards="initial")'
    evidence = (
        (
            "turning_half_cheetah",
            "a rate of 1e-4 towards the initial weights ends late phases at 1,454, better than plain PPO at "
            "465.1; AdamW with 0.1, which is no rule, at 1,555",
        ),
        (
            "new_tasks_cartpole",
            "a rate of 1e-3 towards the initial weights reaches 192.7, better than plain PPO with 89.5, and "
            "with layer norm 239.5; layer norm alone 138.4",
        ),
    )

    default_on = KERNELS_AND_BIASES

    def __init__(self, rate: Any = 1e-6, towards: str = "fresh", perturb: Any = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        if towards not in TARGETS:
            raise ValueError(f"`towards` takes {', '.join(map(repr, TARGETS))}. Received: {towards!r}")
        if isinstance(rate, int | float) and not 0.0 <= rate <= 1.0:
            raise ValueError(f"`rate` must be in [0, 1]. Received: {rate!r}")
        self.towards = towards
        self.rate = self.strength(rate, "rate", minimum=0.0)
        self.perturb = self.strength(perturb, "perturb", minimum=0.0)
        self._perturbs = not (isinstance(perturb, int | float) and perturb == 0.0)
        self._initial: dict[int, Any] = {}
        self._scales: dict[int, Any] = {}

    def build(self, variables: Sequence[Variable]) -> None:
        """Keeps the initial weights, or their scale, if the target needs them."""
        for variable in variables:
            if self.towards == "initial":
                self._initial[id(variable)] = self.add_variable("initial", like=variable, initial=variable)
            if self.towards == "fresh" or self._perturbs:
                scale = ops.sqrt(ops.mean(ops.square(ops.cast(variable, "float32"))))
                name = f"{variable.path.replace('/', '_')}_scale"
                self._scales[id(variable)] = self.add_variable(name, initial=scale)

    def delta(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns rate * (target - weight), plus the perturbation."""
        # As a difference: a rate of 1e-6 keeps all its digits, while 1 - 1e-6 in float32 keeps two of them.
        change = ops.cast(self.rate(step), weight.dtype) * (self._target(weight, step) - weight)
        if self._perturbs:
            perturb = ops.cast(self.perturb(step), weight.dtype)
            change = change + perturb * self._fresh(weight, step, "perturbation")
        return change

    def preserves(self, promise: str) -> bool:
        """What goes towards zero stays within its bound."""
        towards_zero = self.towards == "zero" and not self._perturbs
        return (promise == "bound" and towards_zero) or self.undone

    def _target(self, weight: Variable, step: Scalar) -> Tensor:
        if self.towards == "zero":
            return ops.zeros(weight.shape, weight.dtype)
        if self.towards == "initial":
            return self._kept(self._initial, weight)
        return self._fresh(weight, step, "target")

    def _fresh(self, weight: Variable, step: Scalar, stream: str) -> Tensor:
        scale = ops.cast(self._kept(self._scales, weight), weight.dtype)
        return scale * self.normal(weight, step, stream)

    def _kept(self, state: dict[int, Any], weight: Variable) -> Tensor:
        if id(weight) not in state:
            raise ValueError(f"{self.name}: this shrinkage needs a weight of a built optimizer.")
        return ops.copy(state[id(weight)])
