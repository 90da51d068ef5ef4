"""Weight clipping."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.base import KERNELS_AND_BIASES, Intervention

UNITS = ("fan_in", "init", "absolute")


class Clipping(Intervention):
    """Clips each weight to [-b, b] after every optimizer step.

        b = bound / sqrt(fan_in);  w <- min(max(w, -b), b)

    With the unit "fan_in" this is the paper's rule, b = bound / sqrt(fan_in) per layer, where a bias takes
    the fan-in of its own layer's kernel. "init" measures in the largest absolute value that the layer's
    kernel had when the optimizer was built, "absolute" is absolute. Log standard deviations and
    normalization parameters are left alone by default; the reference implementation clips the former by
    oversight.

    Args:
        bound: The bound in `unit`s: a number, a schedule of the step, or a `Feedback`. The paper's own
            reinforcement learning script uses 3.
        unit: "fan_in", "init" or "absolute".
        per_layer: Whether to measure each layer besides all of them together.
        **kwargs: See `Intervention`.

    Metrics: `clipped`, the share of weights that the clamp changed in this step; `saturated`, the share
    that stands at the bound after it; with `per_layer` also `clipped/<layer path>` and
    `saturated/<layer path>`.

    Reference: Elsayed, Lan, Lyle and Mahmood, "Weight Clipping for Deep Continual and Reinforcement
    Learning", 2024, https://arxiv.org/abs/2407.01704, algorithm 1.
    """

    when = "Networks that go on learning through many tasks; bounds on what a weight may become."
    example = "Clipping(3.0)"
    evidence = (
        (
            "turning_half_cheetah",
            "a bound of 1.5, without the value network's last layer, ends late phases at 1,566, better than "
            "plain PPO at 465.1; AdamW with 0.1, which is no rule, at 1,555",
        ),
        (
            "new_tasks_cartpole",
            "a bound of 1.5 reaches 169.8, better than plain PPO with 89.5; an entropy bonus 175.8",
        ),
    )

    default_on = KERNELS_AND_BIASES
    metric_names = ("clipped", "saturated")
    promise = "bound"

    def __init__(self, bound: Any = 3.0, unit: str = "fan_in", per_layer: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        if unit not in UNITS:
            raise ValueError(f"`unit` takes {', '.join(map(repr, UNITS))}. Received: {unit!r}")
        self.unit = unit
        self.per_layer = per_layer
        self.bound = self.strength(bound, "bound", minimum=0.0)
        self._scales: dict[int, Any] = {}

    def build(self, variables: Sequence[Variable]) -> None:
        """Fixes each weight's scale: one bound is `bound(step) * scale`.

        Raises:
            ValueError: If a weight has no fan-in, or a kernel began at 0 in the unit "init".
        """
        if self.unit == "fan_in":
            self._scales = {id(v): self.fan_in(v) ** -0.5 for v in variables}
        elif self.unit == "init":
            # A variable and not a constant: a loaded optimizer must keep the reach of its first weights.
            for variable in variables:
                reach = ops.max(ops.abs(self.kernel_of(variable)))
                if not float(reach) > 0.0:
                    raise ValueError(
                        f"{self.name}: the kernel of {variable.path} began at 0, and a bound measured in "
                        f"that would hold it there; leave it out with `on=`, or take another `unit`"
                    )
                name = f"{variable.path.replace('/', '_')}_reach"
                self._scales[id(variable)] = self.add_variable(name, initial=reach)
        if self.per_layer:
            layers = dict.fromkeys(self.layer_of(v) for v in variables)
            each = (f"{metric}/{layer}" for metric in Clipping.metric_names for layer in layers)
            self.metric_names = (*Clipping.metric_names, *each)

    def limit(self, weight: Variable, step: Scalar) -> Scalar | None:
        """Returns the bound of one weight, a scalar of the weight's dtype."""
        if self.unit == "absolute":
            return ops.cast(self.bound(step), weight.dtype)
        if id(weight) not in self._scales:
            raise ValueError(f"{self.name}: the unit {self.unit!r} needs a weight of a built optimizer.")
        scale = ops.cast(self._scales[id(weight)], "float32")
        return ops.cast(self.bound(step) * scale, weight.dtype)

    def update(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the clamped weight."""
        limit = self.limit(weight, step)
        return ops.clip(weight, -limit, limit)

    def preserves(self, promise: str) -> bool:
        """A wider bound holds within a narrower one; a norm or an angle does not survive a clamp."""
        return promise == "bound" or self.undone

    def observe(
        self, before: Sequence[Tensor], after: Sequence[Tensor], step: Scalar
    ) -> Mapping[str, Tensor]:
        """Counts what the clamp changed, and what stands at the bound."""
        counts: dict[str, list[Any]] = {}
        for variable, old, new in zip(self.variables, before, after, strict=True):
            limit = self.limit(variable, step)
            clipped = ops.sum(ops.cast(ops.abs(old) > limit, "float32"))
            saturated = ops.sum(ops.cast(ops.abs(new) >= limit, "float32"))
            counted = (clipped, saturated, math.prod(variable.shape))
            for suffix in ("", f"/{self.layer_of(variable)}") if self.per_layer else ("",):
                sums = counts.get(suffix, (0.0, 0.0, 0))
                counts[suffix] = [a + b for a, b in zip(sums, counted, strict=True)]
        shares = {f"clipped{suffix}": clipped / size for suffix, (clipped, _, size) in counts.items()}
        return shares | {f"saturated{suffix}": high / size for suffix, (_, high, size) in counts.items()}
