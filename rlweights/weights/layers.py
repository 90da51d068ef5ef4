"""What a weight is to its layer: a kernel or a bias, and which axes of the kernel are inputs."""

import functools
import gc
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import keras

from rlweights.weights.arrays import Variable
from rlweights.weights.keras_internals import conv_lstm_cell, own_variables
from rlweights.weights.selection import owner_of


@dataclass(frozen=True, eq=False)
class Part:
    """What one weight is to its layer.

    Args:
        weight: The weight.
        inputs: Axes of the kernel that are summed over in one unit: (0,) of a dense kernel [in, out].
        kernel: The kernel with which the weight makes a unit, of a bias that of its layer; None: itself.
    """

    weight: Variable
    inputs: tuple[int, ...]
    kernel: Variable = None

    @property
    def is_kernel(self) -> bool:
        """Whether the weight is a kernel itself."""
        return self.kernel is None or self.kernel is self.weight

    @property
    def fan_in(self) -> int:
        """Number of inputs of a unit; 1 where one entry is looked up."""
        kernel = self.weight if self.kernel is None else self.kernel
        return math.prod(int(kernel.shape[axis]) for axis in self.inputs)


@functools.singledispatch
def parts_of(layer: keras.layers.Layer) -> Sequence[Part]:
    """Returns the parts of a layer, without those of the layers in it: a hook for layers of your own.

    A layer that is not known has the parts of a dense one, if its weights are named "kernel" [in, out] and
    "bias"; what has other names or more axes is unknown, and rules that need its fan-in say so.

    Examples:
        >>> class Mixing(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.w = self.add_weight(shape=(shape[-1], 2, 3), name="w")
        >>> @parts_of.register
        ... def _(layer: Mixing):
        ...     return [Part(layer.w, inputs=(0,))]
    """
    own = _named(layer)
    matrices = {name: w for name, w in own.items() if len(w.shape) == 2}
    if set(matrices) & {"kernel"} and all(len(w.shape) <= 2 for w in own.values()):
        return _with_bias(own, {"kernel": (0,)})
    return []


@parts_of.register
def _(layer: keras.layers.Dense) -> Sequence[Part]:
    return _with_bias(_named(layer), {"kernel": (0,), "lora_kernel_a": (0,), "lora_kernel_b": (0,)})


@parts_of.register
def _(layer: keras.layers.EinsumDense) -> Sequence[Part]:
    own = _named(layer)
    operands, _, output = layer.equation.replace(" ", "").replace("...", "").partition("->")
    kernel = operands.partition(",")[2]
    inputs = tuple(axis for axis, label in enumerate(kernel) if label not in output)
    low = tuple(axis for axis in inputs if axis < len(kernel) - 1)
    return _with_bias(own, {"kernel": inputs, "lora_kernel_a": low, "lora_kernel_b": (0,)})


@parts_of.register(keras.layers.Conv1D)
@parts_of.register(keras.layers.Conv2D)
@parts_of.register(keras.layers.Conv3D)
def _(layer: keras.layers.Layer) -> Sequence[Part]:
    own = _named(layer)
    places = tuple(range(len(own["kernel"].shape) - 1))  # the axis before the last counts a group's channels
    return _with_bias(own, {"kernel": places, "lora_kernel_a": places, "lora_kernel_b": (0,)})


@parts_of.register(keras.layers.Conv1DTranspose)
@parts_of.register(keras.layers.Conv2DTranspose)
@parts_of.register(keras.layers.Conv3DTranspose)
def _(layer: keras.layers.Layer) -> Sequence[Part]:
    own = _named(layer)
    axes = len(own["kernel"].shape)  # [..., out, in]; with strides a unit meets only some of the places
    return _with_bias(own, {"kernel": (*range(axes - 2), axes - 1)})


@parts_of.register(keras.layers.DepthwiseConv1D)
@parts_of.register(keras.layers.DepthwiseConv2D)
def _(layer: keras.layers.Layer) -> Sequence[Part]:
    own = _named(layer)
    return _with_bias(own, {"kernel": tuple(range(len(own["kernel"].shape) - 2))})


@parts_of.register(keras.layers.SeparableConv1D)
@parts_of.register(keras.layers.SeparableConv2D)
def _(layer: keras.layers.Layer) -> Sequence[Part]:
    own = _named(layer)
    places = tuple(range(len(own["depthwise_kernel"].shape) - 2))
    pointwise = tuple(range(len(places) + 1))
    return _with_bias(
        own, {"pointwise_kernel": pointwise, "depthwise_kernel": places}, kernel="pointwise_kernel"
    )


@parts_of.register(keras.layers.SimpleRNNCell)
@parts_of.register(keras.layers.LSTMCell)
@parts_of.register(keras.layers.GRUCell)
def _(layer: keras.layers.Layer) -> Sequence[Part]:
    return _with_bias(_named(layer), {"kernel": (0,), "recurrent_kernel": (0,)})


@parts_of.register(conv_lstm_cell())
def _(layer: keras.layers.Layer) -> Sequence[Part]:
    own = _named(layer)
    places = tuple(range(len(own["kernel"].shape) - 1))
    return _with_bias(own, {"kernel": places, "recurrent_kernel": places})


@parts_of.register
def _(layer: keras.layers.Embedding) -> Sequence[Part]:
    # One row is looked up, nothing is summed.
    return _with_bias(
        _named(layer), {"embeddings": (), "lora_embeddings_a": (), "lora_embeddings_b": (0,)}, kernel=None
    )


def _named(layer: keras.layers.Layer) -> dict[str, Variable]:
    return {variable.name: variable for variable in own_variables(layer)}


def _with_bias(
    own: Mapping[str, Variable], inputs: Mapping[str, tuple[int, ...]], kernel: str | None = "kernel"
) -> list[Part]:
    parts = [Part(own[name], axes) for name, axes in inputs.items() if name in own]
    if "bias" in own and kernel in own:
        parts.append(Part(own["bias"], inputs[kernel], own[kernel]))
    return parts


class Anatomy:
    """The layers of weights, found when they are first asked for.

    A Keras variable does not know its layer, and an optimizer is handed variables only; so the layer is
    looked for among all layers that are alive (0.1 s once). Weights without one are known by their paths.

    Args:
        variables: All trainable weights, in their order.
    """

    def __init__(self, variables: Iterable[Variable]):
        self._variables = list(variables)
        self._owners: dict[int, keras.layers.Layer] | None = None
        self._parts: dict[int, Part] = {}
        self._names: dict[int, str] = {}

    def part(self, weight: Variable) -> Part | None:
        """Returns what a weight is to its layer, or None if that is unknown."""
        self._look()
        return self._parts.get(id(weight))

    def known_part(self, weight: Variable) -> Part:
        """Returns what a weight is to its layer.

        Raises:
            ValueError: If that is unknown; the message says of which layer, and the ways out.
        """
        if (part := self.part(weight)) is not None:
            return part
        layer = self.owner(weight)
        if len(weight.shape) >= 2 and layer is not None:
            raise ValueError(
                f"which axes of {weight.path}, shape {tuple(weight.shape)}, are inputs is not known of the "
                f"layer {type(layer).__name__}. Say it with `rlweights.parts_of.register`, leave the weight "
                f"out with `on=`, or give a bound in absolute units."
            )
        raise ValueError(
            f"{weight.path} has no fan-in, because its layer owns no kernel; leave it out with `on=`, or "
            f"give the bound in absolute units."
        )

    def is_kernel(self, weight: Variable) -> bool:
        """Whether a weight is a kernel; one that is unknown if it has two or more dimensions."""
        part = self.part(weight)
        return len(weight.shape) >= 2 if part is None else part.is_kernel

    def layer_name(self, weight: Variable) -> str:
        """Returns the path of the layer of a weight; of several of one path later ones are numbered."""
        self._look()
        return self._names.get(id(weight), owner_of(weight))

    def owner(self, weight: Variable) -> keras.layers.Layer | None:
        """Returns the layer that owns a weight, or None if no layer does."""
        self._look()
        assert self._owners is not None
        return self._owners.get(id(weight))

    def _look(self) -> None:
        if self._owners is not None:
            return
        wanted, self._owners = {id(v) for v in self._variables}, {}
        for each in gc.get_objects():
            if issubclass(type(each), keras.layers.Layer):
                own = {id(v) for v in own_variables(each)} & wanted
                if not own:
                    continue
                parts = {id(part.weight): part for part in parts_of(each)}
                for key in own:
                    # A shared weight is what the layer that knows it says.
                    if key not in self._parts:
                        self._owners[key] = each
                        if key in parts:
                            self._parts[key] = parts[key]
        self._know_the_unowned()
        self._name()

    def _know_the_unowned(self) -> None:
        """Takes a matrix that no layer owns for a kernel [in, out], and a vector beside it for its bias."""
        alone = [v for v in self._variables if id(v) not in (self._owners or {})]
        kernels = {owner_of(v): v for v in reversed(alone) if len(v.shape) == 2}
        for variable in alone:
            if len(variable.shape) == 2:
                self._parts[id(variable)] = Part(variable, (0,))
            elif len(variable.shape) == 1 and owner_of(variable) in kernels:
                self._parts[id(variable)] = Part(variable, (0,), kernels[owner_of(variable)])

    def _name(self) -> None:
        seen: dict[str, list[int]] = {}
        for variable in self._variables:
            path, owner = owner_of(variable), id((self._owners or {}).get(id(variable)))
            owners = seen.setdefault(path, [])
            if owner not in owners:
                owners.append(owner)
            number = owners.index(owner) + 1
            self._names[id(variable)] = path if number == 1 else f"{path}_{number}"
