"""Pruning of weights by magnitude, with or without regrowth."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.base import Intervention
from rlweights.weights.ranking import largest, largest_in_groups, largest_of_all
from rlweights.weights.selection import kernels

SCOPES = ("layer", "global")


class Pruning(Intervention):
    """Holds the smallest weights at zero, more of them from step to step.

        s(t) = sparsity + (initial - sparsity) (1 - (t - begin) / (end - begin))³

    At the steps begin, begin + every, ..., end all but the largest (1 - s) n of the n weights that are still
    there become zero, and stay so: the optimizer sees no gradient of them, its moments of them begin anew,
    and no other rule, noise or average brings them back. With `regrowth` the network is sparse from the
    start, and a share of the kept weights gives way each time to those that are zero and have the largest
    gradients, fewer from time to time: regrowth / 2 (1 + cos(π (t - begin) / (end - begin))).

    `optimizer.evaluation()`, `rlweights.strip` and exports have the zeros. Put it before rules that should
    see them; what is held does not depend on the order.

    Args:
        sparsity: Share of zeros in the end, in [0, 1). Of whole units: of units.
        begin: Optimizer step of the first pruning.
        end: Optimizer step of the last one.
        every: Steps from one to the next.
        initial: Share of zeros at `begin`.
        scope: "layer": the share holds of each weight tensor; "global": of all of them together, by one
            threshold.
        structure: "weight"; "unit": whole units, by the norm of their incoming weights, with their biases
            where these are selected (leave the output layer out with `on=`); or "N:M", such as "2:4": N of M
            neighbouring inputs of a unit are kept, from `begin` on, whatever `sparsity`.
        regrowth: Share of the kept weights that give way, in [0, 1); 0.3 in RigL, with `initial` equal to
            `sparsity`.
        **kwargs: See `Intervention`.

    Metrics: `sparsity`, the share of zeros in the selected weights, as it is after the last pruning.

    References: Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
    compression", 2017, https://arxiv.org/abs/1710.01878, eq. 1; Evci, Gale, Menick, Castro and Elsen,
    "Rigging the Lottery: Making All Tickets Winners", 2020, https://arxiv.org/abs/1911.11134 (regrowth; the
    first mask is random there, and by magnitude here); Mishra et al., "Accelerating Sparse Deep Neural
    Networks", 2021, https://arxiv.org/abs/2104.08378 ("2:4").

    Examples:
        >>> Pruning(0.9, begin=1_000, end=9_000)
        Pruning(sparsity=0.9, begin=1000, end=9000)
    """

    when = "Small models; networks that are sparse from the start."
    example = "Pruning(0.9, end=8_000)"
    evidence = (
        (
            "digits",
            "80 % of zeros cost nothing that ten seeds show (0.975, plain 0.978), 90 % keep 0.962, or 0.967 "
            "by one threshold for all kernels, where pruning after training leaves 0.329; 95 % keep 0.896 "
            "and 0.931",
        ),
    )

    placements = ("after_step",)
    default_on = kernels()
    metric_names = ("sparsity",)

    def __init__(
        self,
        sparsity: float,
        *,
        end: int,
        begin: int = 0,
        every: int = 100,
        initial: float = 0.0,
        scope: str = "layer",
        structure: str = "weight",
        regrowth: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, value in (("sparsity", sparsity), ("initial", initial), ("regrowth", regrowth)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1.0:
                raise ValueError(f"`{name}` must be in [0, 1). Received: {value!r}")
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every!r}")
        if not 0 <= begin <= end:
            raise ValueError(
                f"`end` must be at least `begin` = {begin}, and that at least 0. Received: {end!r}"
            )
        if scope not in SCOPES:
            raise ValueError(f"`scope` takes {' or '.join(map(repr, SCOPES))}. Received: {scope!r}")
        pattern = re.fullmatch(r"(\d+):(\d+)", structure)
        if not (pattern or structure in ("weight", "unit")) or (
            pattern and int(pattern[1]) >= int(pattern[2])
        ):
            raise ValueError(
                f"`structure` takes 'weight', 'unit' or 'N:M' with N below M, such as '2:4'. Received: "
                f"{structure!r}"
            )
        if regrowth and structure != "weight":
            raise ValueError(f"`regrowth` goes with the structure 'weight' only. Received: {structure!r}")
        self.sparsity, self.initial, self.regrowth = float(sparsity), float(initial), float(regrowth)
        self.begin, self.end, self.every = int(begin), int(end), int(every)
        self.scope, self.structure = scope, structure
        self._pattern = (int(pattern[1]), int(pattern[2])) if pattern else None
        self._masks: dict[int, Any] = {}

    def build(self, variables: Sequence[Variable]) -> None:
        """Creates the masks; at first everything is free.

        Raises:
            ValueError: If a weight has no units, its inputs cannot be divided into groups, or there is no
                gradient to grow by.
        """
        for variable in variables:
            name = f"{variable.path.replace('/', '_')}_mask"
            mask = self.add_variable(name, shape=variable.shape, dtype="bool", initial=True)
            self._masks[id(variable)] = mask
            if self.structure == "unit":
                self.kernel_of(variable)
            if self.regrowth:
                self.gradient(variable)
            if self._pattern:
                inputs = math.prod(int(variable.shape[axis]) for axis in self.inputs_of(variable))
                if inputs % self._pattern[1]:
                    raise ValueError(
                        f"{self.name}: {variable.path} has {inputs} inputs, which are no multiple of "
                        f"{self._pattern[1]}; leave it out with `on=`"
                    )

    def share(self, step: Scalar) -> Scalar:
        """Returns the share of zeros that is due at a step, between `initial` and `sparsity`."""
        return self.sparsity + (self.initial - self.sparsity) * ops.power(1.0 - self._progress(step), 3)  # pyright: ignore[reportOperatorIssue]

    def due(self, step: Scalar) -> Scalar:
        """Returns whether masks are renewed at this step."""
        regular = ops.equal(ops.mod(step - self.begin, self.every), 0)
        during = ops.logical_and(step >= self.begin, step <= self.end)
        return ops.logical_and(during, ops.logical_or(regular, ops.equal(step, self.end)))

    def survey(self, weights: Sequence[Variable], step: Scalar) -> None:
        """Renews the masks."""
        kernels = [w for w in weights if self.structure != "unit" or not self.is_bias(w)]
        scores = [self._score(w) for w in kernels]
        if self._pattern:
            kept = [self._in_groups(w, s) for w, s in zip(kernels, scores, strict=True)]
        elif self.scope == "global":
            kept = largest_of_all(scores, self._count(scores, step))
        else:
            kept = [largest(each, self._count([each], step)) for each in scores]
        if self.regrowth:
            kept = self._regrown(kernels, scores, kept, step)
        chosen = dict(zip(map(id, kernels), kept, strict=True))
        for weight in weights:
            mask = chosen[id(weight)] if id(weight) in chosen else self._of_units(weight, chosen)
            self._masks[id(weight)].assign(ops.broadcast_to(mask, weight.shape))

    def update(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the weight with zeros where the mask has none."""
        return ops.where(self.mask(weight), ops.copy(weight), ops.zeros(weight.shape, weight.dtype))

    def update_slot(self, weight: Variable, slot: Variable, step: Scalar) -> Tensor | None:
        """Returns the optimizer slot as it began where the weight is held."""
        if tuple(slot.shape) != tuple(weight.shape):
            return None
        beginning = ops.full(slot.shape, self._owner.kept.beginning(slot), slot.dtype)
        return ops.where(self.mask(weight), ops.copy(slot), beginning)

    def mask(self, weight: Variable) -> Tensor:
        """Returns which entries are kept, bool [...]."""
        if id(weight) not in self._masks:
            raise ValueError(f"{self.name}: a mask needs a weight of a built optimizer.")
        return ops.copy(self._masks[id(weight)])

    def preserves(self, promise: str) -> bool:
        """Zeros are within every bound; a norm or an angle they change."""
        return promise == "bound"

    def observe(
        self, before: Sequence[Tensor], after: Sequence[Tensor], step: Scalar
    ) -> Mapping[str, Tensor]:
        """Counts the zeros."""
        zeros = [ops.sum(ops.cast(ops.equal(each, 0), "float32")) for each in after]
        size = float(sum(math.prod(each.shape) for each in after))
        return {"sparsity": ops.sum(ops.stack(zeros)) / size}

    def _progress(self, step: Scalar) -> Scalar:
        passed = ops.cast(step - self.begin, "float32") / float(max(self.end - self.begin, 1))
        return ops.clip(passed, 0.0, 1.0) if self.end > self.begin else ops.ones_like(passed)

    def _score(self, weight: Variable) -> Tensor:
        """What decides over entries [...] or units [1, ..., U]: what is held already has none."""
        magnitude = ops.where(self.mask(weight), ops.abs(ops.cast(weight, "float32")), 0.0)
        if self.structure != "unit":
            return magnitude
        inputs = list(self.inputs_of(weight))
        return ops.sqrt(ops.sum(ops.square(magnitude), axis=inputs, keepdims=True))

    def _count(self, scores: Sequence[Tensor], step: Scalar) -> Scalar:
        size = sum(math.prod(each.shape) for each in scores)
        return ops.maximum(ops.cast(ops.round(size * (1.0 - self.share(step))), "int32"), 1)

    def _in_groups(self, weight: Variable, score: Tensor) -> Tensor:
        inputs = self.inputs_of(weight)
        order = [*(a for a in range(len(weight.shape)) if a not in inputs), *inputs]
        turned = ops.transpose(score, order)
        flat = ops.reshape(turned, (-1, math.prod(int(weight.shape[a]) for a in inputs)))
        chosen = ops.reshape(largest_in_groups(flat, *(self._pattern or (1, 1))), turned.shape)
        return ops.transpose(chosen, [order.index(axis) for axis in range(len(order))])

    def _regrown(
        self, weights: Sequence[Variable], scores: Sequence[Tensor], kept: Sequence[Tensor], step: Scalar
    ) -> list[Tensor]:
        """Masks of as many entries: the smallest of those that are kept give way to the steepest others."""
        share = 0.5 * self.regrowth * (1.0 + ops.cos(math.pi * self._progress(step)))  # pyright: ignore[reportOperatorIssue]
        masks = []
        for weight, score, mask in zip(weights, scores, kept, strict=True):
            count = ops.sum(ops.cast(mask, "int32"))
            given = ops.cast(ops.floor(ops.cast(count, "float32") * share), "int32")
            stays = largest(ops.where(mask, score + 1e-30, 0.0), count - given)
            steepness = ops.abs(ops.cast(self.gradient(weight), "float32")) + 1e-30
            grown = largest(ops.where(stays, 0.0, steepness), given)
            masks.append(ops.logical_or(stays, grown))
        return masks

    def _of_units(self, bias: Variable, chosen: Mapping[int, Tensor]) -> Tensor:
        """The mask of a bias [...]: the units that its kernel keeps."""
        kernel = self.kernel_of(bias)
        if id(kernel) not in chosen:
            return ops.ones(bias.shape, "bool")
        return ops.reshape(chosen[id(kernel)], bias.shape)
