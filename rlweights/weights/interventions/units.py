"""Rules that re-initialize whole units: which layer feeds which, and what of a weight belongs to a unit."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.base import KERNELS_AND_BIASES, Intervention
from rlweights.weights.selection import owner_of


class UnitRule(Intervention):
    """Re-initializes units: incoming weights are drawn afresh, biases and outgoing weights become 0.

    Drawn is Gaussian noise with the root mean square that the incoming weights had when the optimizer was
    built. The network's function hardly changes, and the optimizer's slots of exactly these entries begin
    anew; its step count is global in Keras and stays. Parameters of a layer norm between two layers are left
    alone. Units are scored from outside, as the feedback "dormant_score/<layer path>" of shape [units]: the
    trainer writes it in every iteration, `WeightMonitor(probe=...)` in every epoch; NaN is not measured.

    Which layer takes the outputs of which is read off the paths and shapes: within a network (what has the
    same path before the layer's name) a layer is followed by the next one in build order, the channels of a
    convolution also through a flattening, and the last one is an output layer, whose units stay. What cannot
    be read is an error, until `units` says it.

    Args:
        units: Layers that take the outputs of a layer, by path or the end of one: {"trunk/hidden_1":
            ["policy/head", "value/head"]}; an empty list says that nothing does, and its units stay.
        **kwargs: See `Intervention`.
    """

    placements = ("after_iteration", "after_step")
    default_on = KERNELS_AND_BIASES

    def __init__(self, units: Mapping[str, str | Sequence[str]] | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self._units = {k: [v] if isinstance(v, str) else list(v) for k, v in (units or {}).items()}
        self._scores: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}
        self._scales: dict[int, Any] = {}
        self._kernels: dict[str, Any] = {}
        self._feeders: dict[int, list[str]] = {}
        """The layers with units to renew whose outputs a kernel takes, by the kernel's identity."""

    def renewed(self, layer: str, step: Scalar) -> Tensor:
        """Returns which units [U] of a layer are re-initialized now, bool."""
        raise NotImplementedError

    def build(self, variables: Sequence[Variable]) -> None:
        """Finds what each layer feeds, and declares the scores.

        Raises:
            ValueError: If that cannot be told of a layer, or not be written, or if there is nothing to
                recycle; or if the optimizer keeps slots that cannot be zeroed unit by unit.
        """
        kernels: dict[str, Any] = {}
        doubles = set()
        for variable in self.all_variables:
            if (
                self._owner.anatomy.is_kernel(variable)
                and kernels.setdefault(owner_of(variable), variable) is not variable
            ):
                doubles.add(owner_of(variable))
        selected = {id(v) for v in variables}
        for layer, successors in self._successors(kernels, selected).items():
            if layer in doubles:
                raise ValueError(f"{self.name}: {layer!r} has several kernels. {_way_out(layer, [])}")
            for successor in successors:
                if id(kernels[successor]) not in selected:
                    raise ValueError(
                        f"{self.name}: {successor!r} takes the outputs of {layer!r} and must be selected too"
                    )
                self._feeders.setdefault(id(kernels[successor]), []).append(layer)
            kernel = self._kernels[layer] = kernels[layer]
            self._sizes[layer] = int(kernel.shape[-1])
            unmeasured = [float("nan")] * self._sizes[layer]
            self._scores[layer] = self.feedback(f"dormant_score/{layer}", unmeasured)
            scale = ops.sqrt(ops.mean(ops.square(ops.cast(kernel, "float32"))))
            self._scales[id(kernel)] = self.add_variable(f"{layer.replace('/', '_')}_scale", initial=scale)
        if not self._scores:
            raise ValueError(
                f"{self.name}: no layer is followed by another that takes its outputs. Layers: "
                f"{', '.join(kernels) or 'none'}"
            )
        self._check_slots(variables)

    def _successors(self, kernels: Mapping[str, Any], selected: set[int]) -> dict[str, list[str]]:
        """Which layers take the outputs of each selected layer; without those that nothing follows."""
        named = {
            self._layer(name, kernels): [self._layer(each, kernels) for each in successors]
            for name, successors in self._units.items()
        }
        found: dict[str, list[str]] = {}
        for i, (layer, kernel) in enumerate(kernels.items()):
            if id(kernel) not in selected:
                if named.get(layer):
                    raise ValueError(f"{self.name}: `units` names {layer!r}, which is not selected")
                continue
            successors = named[layer] if layer in named else self._following(list(kernels)[i:], kernels)
            for successor in successors:
                if not _fits(kernel, kernels[successor]):
                    raise ValueError(
                        f"{self.name}: {layer!r} has {kernel.shape[-1]} units and {successor!r} takes "
                        f"{kernels[successor].shape[-2]} inputs. {_way_out(layer, ['...'])}"
                    )
            if successors:
                found[layer] = successors
        return found

    def _following(self, layers: Sequence[str], kernels: Mapping[str, Any]) -> list[str]:
        """What takes the outputs of the first of `layers`, as far as names and order tell."""
        layer, *later = layers
        if later and _network(later[0]) == _network(layer):
            return later[:1]
        # The last one of its network: an output layer, unless another network begins with its outputs.
        begins = [b for a, b in itertools.pairwise(layers) if _network(a) != _network(b)]
        if takers := [b for b in begins if _fits(kernels[layer], kernels[b])]:
            raise ValueError(
                f"{self.name}: {', '.join(takers)} may or may not take the outputs of {layer!r}. "
                f"{_way_out(layer, takers)}"
            )
        return []

    def _layer(self, name: str, kernels: Mapping[str, Any]) -> str:
        """The one layer whose path is `name`, or ends with it."""
        found = [layer for layer in kernels if layer == name or layer.endswith(f"/{name}")]
        if len(found) != 1:
            count = "no layer" if not found else "more than one layer"
            raise ValueError(f"{self.name}: {count} {name!r} among {', '.join(kernels)}")
        return found[0]

    def _check_slots(self, variables: Sequence[Any]) -> None:
        for variable in variables:
            shapes = [tuple(slot.shape) for slot in self._owner.slots(variable)]
            if any(shape not in ((), tuple(variable.shape)) for shape in shapes):
                raise ValueError(
                    f"{self.name}: the optimizer keeps state of {variable.path} that belongs to no single "
                    f"unit (shapes {', '.join(map(str, shapes))}); use another optimizer"
                )

    def preserves(self, promise: str) -> bool:
        """Weights that are drawn afresh keep no promise."""
        return False

    def update(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the weight with the entries of renewed units re-initialized."""
        fresh = ops.zeros_like(weight)
        if id(weight) in self._scales:
            fresh = ops.cast(self._scales[id(weight)], weight.dtype) * self.normal(weight, step)
        return self._rewritten(weight, ops.copy(weight), fresh, step)

    def update_slot(self, weight: Variable, slot: Variable, step: Scalar) -> Tensor | None:
        """Returns the optimizer slot with the entries of renewed units as they began, which mostly is 0."""
        if tuple(slot.shape) != tuple(weight.shape):
            return None
        beginning = self._owner.kept.beginning(slot)
        return self._rewritten(weight, ops.copy(slot), beginning * ops.ones_like(slot), step, beginning)

    def _rewritten(
        self, weight: Variable, value: Tensor, fresh: Tensor, step: Scalar, gone: float = 0.0
    ) -> Tensor:
        """`value`, shaped like `weight`, with `fresh` into renewed units and `gone` out of them."""
        layer = owner_of(weight)
        if layer in self._scores:
            value = ops.where(self.renewed(layer, step), fresh, value)
        for feeder in self._feeders.get(id(weight), ()):
            units = self._sizes[feeder]
            places = int(weight.shape[-2]) // units  # above 1 behind a flattened convolution
            rows = ops.reshape(ops.tile(self.renewed(feeder, step), places), (-1, 1))
            value = ops.where(rows, ops.full_like(value, gone), value)
        return value

    def unit_count(self) -> int:
        """Returns the number of units that may be re-initialized."""
        return sum(self._sizes.values())


def _network(layer: str) -> str:
    return layer.rpartition("/")[0]


def _fits(kernel: Variable, following: Variable) -> bool:
    """Whether `following` may take the outputs of `kernel`: unit by unit, or flattened, channels last."""
    units, inputs = int(kernel.shape[-1]), int(following.shape[-2])
    flattened = len(kernel.shape) > 2 and len(following.shape) == 2 and inputs % units == 0
    return inputs == units or flattened


def _way_out(layer: str, takers: Sequence[str]) -> str:
    return (
        f"Say what takes its outputs, `units={{{layer!r}: {list(takers)!r}}}` (an empty list: nothing does), "
        f"or leave it out with `on=`"
    )
