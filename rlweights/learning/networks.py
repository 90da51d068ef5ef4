"""Policy and value networks: named Keras models from observations to one flat vector of outputs.

Every layer has a fixed name, so that `variable.path` reads "policy/hidden_0/kernel" whatever else the
process has built before.
"""

import inspect
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import keras
import numpy as np
from keras import ops

from rlweights.learning.heads import Head, orthogonal
from rlweights.learning.masking import Masking
from rlweights.learning.normalization import ObservationNormalization
from rlweights.learning.parts import NATURE, ObservationPart, convolutions_for, layer_prefixes
from rlweights.learning.tables import Table
from rlweights.weights.arrays import Tensor, Variable

__all__ = ["NATURE", "ActorCritic", "CustomTrunk", "Head", "Trunk", "actor_critic"]

PIXELS = (0.0, 1.0 / 255.0)
"""Lowest value of images of bytes, and the factor that scales the rest to [0, 1]."""


def unit_interval(pixels: tuple[float, float], images: Tensor) -> Tensor:
    """Returns images of bytes [B, ...] as float32 on [0, 1]; images of floats are there already.

    Args:
        pixels: As PIXELS, of the space's own bounds.
        images: uint8 or float32.
    """
    if images.dtype != "uint8":
        return images
    low, factor = pixels
    x = ops.cast(images, "float32")
    return ops.multiply(x - low if low else x, factor)


class Trunk(keras.Model):
    """Hidden layers: optional convolutions, then dense layers, each with an optional layer norm.

    Observations of several parts come as one flat vector: images in it go through convolutions of their own,
    indices are looked up in tables, and what comes of it is put beside the numbers, in the parts' order.

    Args:
        hidden_sizes: Units of each dense layer.
        activation: Name of a Keras activation.
        layer_norm: Whether to normalize before each activation.
        convolutions: (filters, kernel size, stride) of each convolution; for images [H, W, C].
        parts: The parts of observations that are a flat vector, if some are images or indices.
        pixels: See PIXELS.
        normalization: Normalizes observations first, but no indices; shared between networks.
        name: First part of the path of every weight.
        seed: Seed of the initial weights, orthogonal with gain sqrt(2).
    """

    def __init__(
        self,
        hidden_sizes: Sequence[int],
        activation: str = "tanh",
        *,
        layer_norm: bool = False,
        convolutions: Sequence[tuple[int, int, int]] = (),
        parts: Sequence[ObservationPart] = (),
        pixels: tuple[float, float] = PIXELS,
        normalization: ObservationNormalization | None = None,
        name: str = "trunk",
        seed: int = 0,
    ):
        super().__init__(name=name)
        self.normalization = normalization
        self.pixels = pixels
        self.parts = tuple(parts)
        self.activation = keras.activations.get(activation)
        self.tables: dict[str, Table] = {}
        self.branches: dict[str, list[keras.layers.Conv2D]] = {}
        self.convolutions = _convolutions(convolutions, "", seed + 100)
        for i, (part, prefix) in enumerate(zip(self.parts, layer_prefixes(self.parts), strict=True)):
            if part.kind == "index":
                self.tables[part.name] = Table(part.counts, seed + 200 + i, name=f"{prefix}table")
            elif part.kind == "image":
                branch = _convolutions(convolutions_for(part.shape), prefix, seed + 100 + 10 * i)
                self.branches[part.name] = branch
                self.convolutions = [*self.convolutions, *branch]
        self.hidden = [
            keras.layers.Dense(units, kernel_initializer=orthogonal(2**0.5, seed + i), name=f"hidden_{i}")
            for i, units in enumerate(hidden_sizes)
        ]
        self.norms = [
            keras.layers.LayerNormalization(name=f"norm_{i}") if layer_norm else None
            for i in range(len(hidden_sizes))
        ]

    def activations(self, observations: Tensor) -> dict[str, Tensor]:
        """Returns the outputs [..., units] of every hidden layer by its path ("policy/hidden_0")."""
        layers = [*self.convolutions, *self.hidden]
        outputs = self._outputs(observations)[: len(layers)]
        return {a.kernel.path.rpartition("/")[0]: x for a, x in zip(layers, outputs, strict=True)}

    def _outputs(self, observations: Tensor) -> list[Tensor]:
        """The outputs of every hidden layer, in order; the last are the features."""
        x: Tensor = observations
        if self.normalization is not None:
            x = self.normalization(x)
        seen: list[Tensor] = []
        if self.parts:
            x = self._joined(x, observations, seen)
        elif self.convolutions:
            x = self._convolved(unit_interval(self.pixels, x), self.convolutions, seen)
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            x = layer(x)
            x = self.activation(x if norm is None else norm(x))
            seen.append(x)
        return seen or [x]

    def _convolved(self, images: Tensor, layers: Sequence[keras.layers.Conv2D], seen: list[Tensor]) -> Tensor:
        """The flat features of images [B, H, W, C]; what each layer puts out is added to `seen`."""
        x = images
        for layer in layers:
            x = self.activation(layer(x))
            seen.append(x)
        return ops.reshape(x, (-1, int(np.prod(x.shape[1:]))))

    def _joined(self, x: Tensor, indices: Tensor, seen: list[Tensor]) -> Tensor:
        """The parts of flat observations [B, D] as features beside each other; indices are not normalized."""
        found: list[Tensor] = []
        for part in self.parts:
            if part.kind == "index":
                found.append(self.tables[part.name](indices[:, part.start : part.end]))
                continue
            piece = x[:, part.start : part.end]
            if part.kind == "image":
                piece = ops.reshape(piece, (-1, *part.shape))
                piece = self._convolved(piece, self.branches[part.name], seen)
            found.append(piece)
        return found[0] if len(found) == 1 else ops.concatenate(found, axis=-1)

    def call(self, observations: Tensor) -> Tensor:
        """Returns the features [B, units]."""
        return self._outputs(observations)[-1]


class CustomTrunk(keras.Model):
    """The user's hidden layers: any Keras model that turns observations into features [B, units].

    Observations come as float32: images in [0, 1], or normalized if the agent normalizes them. Weights are
    named after this trunk and the model's layers, "policy/conv/kernel".

    Args:
        build: Returns a Keras model or layer. Of one argument, it gets the shape of one encoded observation.
            Of two, it gets the shape and the space of one observation: of a Dict or a Tuple, the shapes of
            all parts by their names, "arm.camera", and the model is called with a dict of them. Initializers
            without a seed get one from `seed`.
        observation_shape: Shape of one observation.
        space: The space of one observation, for a `build` of two arguments.
        parts: The parts of an observation, likewise.
        pixels: See PIXELS.
        normalization: Normalizes observations first; shared between networks.
        name: First part of the path of every weight.
        seed: Seed of the initial weights.

    Raises:
        ValueError: If `build` returns no Keras layer, or its layer does not return features.
    """

    def __init__(
        self,
        build: Callable[..., Any],
        observation_shape: Sequence[int],
        *,
        space: gym.Space | None = None,
        parts: Sequence[ObservationPart] = (),
        pixels: tuple[float, float] = PIXELS,
        normalization: ObservationNormalization | None = None,
        name: str = "trunk",
        seed: int = 0,
    ):
        super().__init__(name=name)
        self.normalization = normalization
        self.pixels = pixels
        self.parts = tuple(parts) if takes_space(build) else ()
        self.divided = isinstance(space, gym.spaces.Dict | gym.spaces.Tuple)
        shape = tuple(observation_shape)
        shapes = {part.name: part.shape for part in self.parts}
        arguments = (shapes if self.divided else shapes[""], space) if self.parts else (shape,)
        state = random.getstate()
        random.seed(seed)  # from here Keras takes the seeds of initializers that have none
        try:
            with keras.name_scope(name):
                self.model = build(*arguments)
                if not isinstance(self.model, keras.layers.Layer):
                    raise ValueError(f"must return a Keras model. Received: {type(self.model).__name__}")
                features = self.model(self.divided_up(*[ops.zeros((2, *shape))] * 2))
        finally:
            random.setstate(state)
        found = getattr(features, "shape", type(features).__name__)
        if not keras.ops.is_tensor(features) or len(found) != 2 or found[0] != 2:
            raise ValueError(f"must return features [B, units]; two observations became {found}")

    def prepared(self, observations: Tensor) -> Any:
        """Returns observations as the model sees them, float32: a tensor, or a dict of the parts'."""
        if self.normalization is not None:
            x = self.normalization(observations)
        else:
            x = unit_interval(self.pixels, observations)
        return self.divided_up(x, observations)

    def divided_up(self, x: Tensor, indices: Tensor) -> Any:
        """Returns what the model is called with: the parts of `x` in their shapes; indices as they came."""
        if not self.parts:
            return x
        found = {}
        for part in self.parts:
            source = indices if part.kind == "index" else x
            piece = source if len(self.parts) == 1 else source[:, part.start : part.end]
            found[part.name] = ops.reshape(piece, (-1, *part.shape))
        return found if self.divided else found[""]

    def activations(self, observations: Tensor) -> dict[str, Tensor]:
        """Returns the features [B, units] as the only layer: those inside the user's model are not known."""
        return {f"{self.name}/features": self(observations)}

    def call(self, observations: Tensor) -> Tensor:
        """Returns the features [B, units]."""
        return self.model(self.prepared(observations))


@dataclass
class ActorCritic:
    """The two networks of an agent: `policy` gives distribution parameters, `value` gives V(s)."""

    policy: keras.Model
    value: keras.Model
    normalization: ObservationNormalization | None = None
    masking: Masking | None = None

    @property
    def trainable_variables(self) -> list[Variable]:
        """All trainable weights, each once (a shared trunk belongs to both networks)."""
        both = [*self.policy.trainable_variables, *self.value.trainable_variables]
        return list({id(v): v for v in both}.values())

    @property
    def variables(self) -> list[Variable]:
        """All weights and statistics, each once."""
        both = [*self.policy.variables, *self.value.variables]
        return list({id(v): v for v in both}.values())

    @property
    def log_std(self) -> Variable | None:
        """The policy's log standard deviations [outputs], for continuous actions; else None."""
        return getattr(self.policy, "log_std", None)

    def seen(self, observations: Tensor) -> Tensor:
        """Returns what hidden layers see of observations [..., D + P]: all but their masks."""
        return observations if self.masking is None else self.masking.seen(observations)

    def values(self, observations: Tensor) -> Tensor:
        """Returns V [B] of observations [B, ...]."""
        return ops.squeeze(self.value(observations), -1)

    def activations(self, observations: Tensor) -> dict[str, Tensor]:
        """Returns the hidden activations by layer path ("policy/hidden_0"), [B, units] each."""
        trunks = {id(each.trunk): each.trunk for each in (self.policy, self.value)}
        seen = self.seen(observations)
        return {k: v for trunk in trunks.values() for k, v in trunk.activations(seen).items()}


def actor_critic(
    observation_shape: Sequence[int],
    parameter_outputs: int,
    *,
    hidden_sizes: Sequence[int] = (64, 64),
    value_hidden_sizes: Sequence[int] | None = None,
    activation: str = "tanh",
    layer_norm: bool = False,
    shared: bool = False,
    convolutions: Sequence[tuple[int, int, int]] = (),
    log_std: float | None = None,
    normalize_observations: bool = False,
    policy_gain: float = 0.01,
    model: Callable[..., Any] | None = None,
    dtype: str | None = None,
    space: gym.Space | None = None,
    parts: Sequence[ObservationPart] = (),
    pixels: tuple[float, float] = PIXELS,
    masking: Masking | None = None,
    seed: int = 0,
) -> ActorCritic:
    """Builds the two networks of an agent.

    Args:
        observation_shape: Shape of one observation, as the hidden layers see it.
        parameter_outputs: Linear outputs of the policy (logits, or means).
        hidden_sizes: Units of the hidden layers of the policy.
        value_hidden_sizes: Units of those of the value network; None: the same.
        activation: Name of a Keras activation.
        layer_norm: Whether to put a layer norm before each activation.
        shared: Whether both networks share one trunk ("trunk/hidden_0").
        convolutions: See `Trunk`.
        log_std: Initial log standard deviation, for continuous actions.
        normalize_observations: Whether observations are normalized by running statistics, as a layer.
        policy_gain: Gain of the policy's last layer.
        model: Builds the user's hidden layers instead of those described here, see `CustomTrunk`.
        dtype: Of observations; None: uint8 before convolutions, else float32.
        space: The space of one observation, for `model`.
        parts: The parts of one observation, see `Trunk` and `CustomTrunk`.
        pixels: See PIXELS.
        masking: Where observations hold an action mask; None: nowhere.
        seed: Seed of the initial weights.

    Raises:
        ValueError: If `model` builds no network that fits, or weights whose names depend on what the process
            has built before.
    """
    normalization = (
        ObservationNormalization(observation_shape, name="normalization") if normalize_observations else None
    )

    def trunk(name: str, sizes: Sequence[int], seed: int) -> Any:
        if model is not None:
            return CustomTrunk(
                model,
                observation_shape,
                space=space,
                parts=parts,
                pixels=pixels,
                normalization=normalization,
                name=name,
                seed=seed,
            )
        return Trunk(
            sizes,
            activation,
            layer_norm=layer_norm,
            convolutions=convolutions,
            parts=()
            if all(each.kind == "numbers" or len(observation_shape) > 1 for each in parts)
            else parts,
            pixels=pixels,
            normalization=normalization,
            name=name,
            seed=seed,
        )

    example = ops.zeros((1, *observation_shape), dtype=dtype or ("uint8" if convolutions else "float32"))
    policy_trunk = trunk("trunk" if shared else "policy", hidden_sizes, seed * 1000)
    value_trunk = policy_trunk
    if not shared:
        sizes = hidden_sizes if value_hidden_sizes is None else value_hidden_sizes
        value_trunk = trunk("value", sizes, seed * 1000 + 300)
    # Built separately, trunks and heads keep one-part path prefixes; inside a call they would nest.
    for each in (policy_trunk, value_trunk):
        each(example)
    options: Any = {"log_std": log_std, "masking": masking, "masks": True, "name": "policy"}
    policy = Head(policy_trunk, parameter_outputs, policy_gain, seed=seed * 1000 + 600, **options)
    value = Head(value_trunk, 1, 1.0, masking=masking, name="value", seed=seed * 1000 + 700)
    if masking is not None:
        example = ops.zeros((1, *masking.whole), dtype=example.dtype)
    for each in (policy, value):
        each(example)
    if model is not None:
        another = policy_trunk if value_trunk is not policy_trunk else trunk("trunk", (), 0)
        _check_names(value_trunk, another)
    return ActorCritic(policy, value, normalization, masking)


def _check_names(trunk: CustomTrunk, another: CustomTrunk) -> None:
    """Refuses weights whose names change when they are built again: no checkpoint could be read."""
    ours, theirs = ([v.path.partition("/")[2] for v in each.model.variables] for each in (trunk, another))
    for first, second in zip(ours, theirs, strict=True):
        if first != second:
            why = f"{first!r} is {second!r} when it is built again"
            raise ValueError(f"every layer and model in it needs a name of its own: {why}")
    if double := next((name for name in ours if ours.count(name) > 1), None):
        raise ValueError(f"every layer and model in it needs a name of its own: there are two {double!r}")


def takes_space(build: Callable[..., Any]) -> bool:
    """Whether a builder of hidden layers takes two arguments, shapes and space, and not the shape alone."""
    try:
        parameters = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):  # what is written in C says nothing
        return False
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(places) > 1 and (places[1].default is inspect.Parameter.empty or places[1].name == "space")


def _convolutions(
    described: Sequence[tuple[int, int, int]], prefix: str, seed: int
) -> list[keras.layers.Conv2D]:
    return [
        keras.layers.Conv2D(
            filters,
            size,
            stride,
            kernel_initializer=orthogonal(2**0.5, seed + i),
            name=f"{prefix}convolution_{i}",
        )
        for i, (filters, size, stride) in enumerate(described)
    ]
