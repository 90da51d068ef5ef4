"""From Gymnasium's observation spaces to arrays, and from sampled actions to what environments take."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from gymnasium import spaces

from rlweights.learning.parts import ObservationPart, image_axes
from rlweights.weights.arrays import Array

WIDEST = 65_535
"""Largest range of an integer box that is scaled: 16 bits. A wider one says nothing about the values."""

MOST_ONE_HOT = 1_024
"""Values of a discrete space at most that become one-hot vectors; of more, the index is looked up."""

UNBOUNDED = 1e10
"""Bounds of actions from here on are no bounds: float32's largest number is often written for none."""


@dataclass(frozen=True)
class Encoding:
    """How observations become arrays.

    Attributes:
        images: Which images go through convolutions: "all", also in dicts and tuples; "large", as version
            0.1 did: uint8 of 36 x 36 pixels or more that are the whole observation; or "none".
        own_bounds: Whether integers are scaled by the space's own bounds; else only uint8 is, by 255.
        most_one_hot: See MOST_ONE_HOT; None: all are one-hot.
    """

    images: Literal["all", "large", "none"] = "all"
    own_bounds: bool = True
    most_one_hot: int | None = MOST_ONE_HOT


VERSION_1 = Encoding("large", own_bounds=False, most_one_hot=None)
"""The encoding of version 0.1: what was trained with it acts with it."""


@dataclass(frozen=True)
class ObservationEncoder:
    """Turns a batch of observations into one array [N, *shape].

    Attributes:
        shape: Shape of one encoded observation.
        dtype: "uint8" for images of bytes, which the network scales itself, else "float32".
        encode: The function from a batch as Gymnasium's vector environments give it; raises ValueError,
            TypeError, KeyError or IndexError for what does not fit the space.
        space: The space.
        parts: What the observation consists of, in the order of the encoded array.
        pixels: Lowest value of uint8 images, and the factor that scales the rest to [0, 1].
    """

    shape: tuple[int, ...]
    dtype: str
    encode: Callable[[Any], Array]
    space: spaces.Space
    parts: tuple[ObservationPart, ...]
    pixels: tuple[float, float] = (0.0, 1.0 / 255.0)

    @property
    def is_image(self) -> bool:
        """Whether observations are images [H, W, C]."""
        return len(self.shape) == 3

    @property
    def has_images(self) -> bool:
        """Whether there are images in the observations."""
        return any(part.kind == "image" for part in self.parts)


def observation_encoder(space: spaces.Space, encoding: Encoding | None = None) -> ObservationEncoder:
    """Returns the encoder of an observation space.

    Float boxes stay as they are, but flat. Integer boxes are scaled to [0, 1] by the space's own `low` and
    `high`, unless they are wider than WIDEST. Images, see `_image`, keep their shape [H, W, C], channels
    last, stacks folded into the channels. Discrete and multi-discrete values become one-hot vectors, or
    indices if they have more than MOST_ONE_HOT values; multi-binary ones floats. Dicts and tuples are
    concatenated into one flat vector, in the order of the space; `parts` says where what lies.

    Args:
        space: The space of one observation.
        encoding: How; None: as described.

    Raises:
        ValueError: For any other space; the message shows it.
    """
    how = encoding or Encoding()
    if isinstance(space, spaces.Box) and (found := _image(space, how)) is not None:
        return _image_encoder(space, how, *found)
    leaves = _leaves(space, how)
    parts, start = [], 0
    for part, _ in leaves:
        parts.append(replace(part, start=start))
        start += part.size
    return ObservationEncoder((start,), "float32", _joined(space, leaves), space, tuple(parts))


Leaf = tuple[ObservationPart, Callable[[Any], Array]]
"""A part, and what encodes a batch of it flat."""


def _joined(space: spaces.Space, leaves: list[Leaf]) -> Callable[[Any], Array]:
    """Encodes a whole observation: the parts beside each other, by the same walk that found them."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return leaves[0][1]
    encoders = iter([encode for _, encode in leaves])
    paths: list[tuple[tuple[Any, ...], Callable[[Any], Array]]] = []

    def walk(inner: Any, path: tuple[Any, ...]) -> None:
        if isinstance(inner, spaces.Dict | spaces.Tuple):
            for key in _keys(inner):
                walk(inner[key], (*path, key))
        else:
            paths.append((path, next(encoders)))

    walk(space, ())

    def joined(batch: Any) -> Array:
        found = []
        for path, encode in paths:
            value = batch
            for key in path:
                value = value[key]
            found.append(encode(value))
        return np.concatenate(found, axis=1)

    return joined


def _keys(space: Any) -> list[Any]:
    return list(space.spaces) if isinstance(space, spaces.Dict) else list(range(len(space.spaces)))


def _leaves(space: Any, how: Encoding, name: str = "") -> list[Leaf]:
    """The parts of a space, and what encodes each."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        found: list[Leaf] = []
        for key in _keys(space):
            try:
                found += _leaves(space[key], how, f"{name}.{key}" if name else str(key))
            except ValueError as error:
                way = "; the wrapper FilterObservation leaves parts out" if isinstance(key, str) else ""
                raise ValueError(f"{error} at {key!r}{way}") from None
        if not found:
            raise ValueError(f"unsupported observation space: {space}, which has no parts")
        return found
    if 0 in (space.shape or ()):
        raise ValueError(f"unsupported observation space: {space}, which has no entries")
    if isinstance(space, spaces.Box):
        image = _image(space, how) if how.images == "all" else None
        if image is not None:
            shape, order = image
            make, size = _turned(space, shape, order), int(np.prod(shape))
            low, factor = _pixels(space, how)
            return [
                (
                    ObservationPart(name, "image", shape),
                    lambda x: _scaled(make(x).reshape(-1, size).astype(np.float32), low, factor),
                )
            ]
        return [(ObservationPart(name, "numbers", tuple(space.shape) or (1,)), _box(space, how))]
    if isinstance(space, spaces.Discrete):
        return [_discrete(name, [int(space.n)], np.array([int(space.start)]), (), how)]
    if isinstance(space, spaces.MultiDiscrete):
        counts = [int(n) for n in np.ravel(space.nvec)]
        return [_discrete(name, counts, np.ravel(space.start).astype(int), tuple(space.shape), how)]
    if isinstance(space, spaces.MultiBinary):
        size, shape = int(np.prod(space.shape)), tuple(space.shape)
        return [
            (
                ObservationPart(name, "numbers", shape),
                lambda x: _fitting(np.asarray(x, np.float32), shape, size),
            )
        ]
    raise ValueError(f"unsupported observation space: {space}")


# Boxes --------------------------------------------------------------------------------------------


def _fitting(array: Array, shape: tuple[int, ...], size: int) -> Array:
    """A batch flat; what has another shape than the space is no observation, even if its size would do."""
    if array.shape[1:] != shape:
        raise ValueError(f"expected shape (N, {', '.join(map(str, shape))}). Received: {array.shape}")
    return array.reshape(-1, size)


def _box(space: spaces.Box, how: Encoding) -> Callable[[Any], Array]:
    """Encodes boxes flat, float32."""
    shape, size = tuple(space.shape), int(np.prod(space.shape))
    flat = len(shape) == 1

    def plain(x: Any) -> Array:
        array = np.asarray(x, np.float32)
        if flat and array.shape[1:] == shape:  # nothing to do, and every step of a rollout comes here
            return array
        return _fitting(array, shape, size)

    if space.dtype.kind not in "iu":
        return plain
    if not how.own_bounds:
        return (lambda x: plain(x) * np.float32(1 / 255)) if space.dtype == np.uint8 else plain
    low, factor = _scaling(space)
    if not low.any():
        if (factor == 1.0).all():
            return plain
        single = factor.flat[0] if (factor == factor.flat[0]).all() else factor.reshape(-1)
        scale = np.asarray(single, np.float32)
        return lambda x: plain(x) * scale
    low, factor = low.reshape(-1), factor.reshape(-1)
    # In float64, where whole numbers far from 0 keep their differences.
    return lambda x: ((_fitting(np.asarray(x, np.float64), shape, size) - low) * factor).astype(np.float32)


def _scaling(space: spaces.Box) -> tuple[Array, Array]:
    """What is taken from the values of an integer box, and what the rest is multiplied by; float64."""
    low, high = (np.asarray(each, np.float64) for each in (space.low, space.high))
    span = high - low
    usable = (span > 0) & (span <= WIDEST)
    return np.where(usable, low, 0.0), np.where(usable, 1.0 / np.where(usable, span, 1.0), 1.0)


def _scaled(x: Array, low: float, factor: float) -> Array:
    """Float32 values on [0, 1]."""
    shifted = x - np.float32(low) if low else x
    return shifted if factor == 1.0 else shifted * np.float32(factor)


# Images -------------------------------------------------------------------------------------------


def _image(space: spaces.Box, how: Encoding) -> tuple[tuple[int, int, int], tuple[int, ...]] | None:
    """Shape and order of axes of a box that is an image, see `image_axes`; None if it is none.

    Images are boxes of integers, bools, or floats between 0 and 1 or 0 and 255. Without channels they need 16
    x 16 pixels, unless they are bytes or bools: a small table of other numbers is none.
    """
    if how.images == "none" or len(space.shape) not in (2, 3, 4):
        return None
    found = image_axes(space.shape)
    if how.images == "large":
        large = space.dtype == np.uint8 and len(space.shape) < 4 and sorted(space.shape)[-2] >= 36
        return found if large else None
    low, high, kind = float(space.low.min()), float(space.high.max()), space.dtype.kind
    if kind == "f":
        uniform = bool((space.low == low).all() and (space.high == high).all())
        pixels = uniform and low == 0.0 and high in (1.0, 255.0)
    else:
        pixels = kind in "iub" and 0 < high - low <= WIDEST
    small = min(space.shape) < 16 and space.dtype not in (np.uint8, np.bool_)
    return found if pixels and not (len(space.shape) == 2 and small) else None


def _pixels(space: spaces.Box, how: Encoding) -> tuple[float, float]:
    """Lowest value of an image, and the factor that scales the rest to [0, 1]."""
    if not how.own_bounds:
        return 0.0, 1.0 / 255.0
    low, high = float(space.low.min()), float(space.high.max())
    return low, 1.0 / (high - low) if high > low else 1.0


def _turned(space: spaces.Box, shape: tuple[int, ...], order: tuple[int, ...]) -> Callable[[Any], Array]:
    """Turns batches of images to [N, H, W, C]."""
    given = tuple(space.shape)
    axes = (0, *(axis + 1 for axis in order))
    straight = order == tuple(range(len(order)))

    def turned(x: Any) -> Array:
        array = np.asarray(x)
        if array.shape[1:] != given:
            raise ValueError(f"expected shape (N, {', '.join(map(str, given))}). Received: {array.shape}")
        return (array if straight else np.transpose(array, axes)).reshape(-1, *shape)

    return turned


def _image_encoder(
    space: spaces.Box, how: Encoding, shape: tuple[int, int, int], order: tuple[int, ...]
) -> ObservationEncoder:
    """The encoder of observations that are one image: bytes stay bytes, a quarter of the memory."""
    turned, (low, factor) = _turned(space, shape, order), _pixels(space, how)
    parts = (ObservationPart("", "image", shape),)
    if space.dtype == np.uint8:
        return ObservationEncoder(shape, "uint8", turned, space, parts, (low, factor))
    return ObservationEncoder(
        shape,
        "float32",
        lambda x: _scaled(turned(x).astype(np.float32, copy=False), low, factor),
        space,
        parts,
    )


# Whole numbers ------------------------------------------------------------------------------------


def _discrete(name: str, counts: list[int], starts: Array, shape: tuple[int, ...], how: Encoding) -> Leaf:
    """Whole numbers as one-hot vectors beside each other, or as indices [N, K] float32."""
    limit, columns = np.array(counts), len(counts)

    def places(x: Any) -> Array:
        found = _places(x, starts, columns, shape)
        if (found >= limit).any():
            raise IndexError(f"{np.max(x)} is above the space's end")
        return found

    if how.most_one_hot is not None and max(counts) > how.most_one_hot:
        return ObservationPart(name, "index", (columns,), counts=tuple(counts)), lambda x: places(x).astype(
            np.float32
        )
    total = sum(counts)
    part = ObservationPart(name, "numbers", (total,))
    if columns == 1 and total <= MOST_ONE_HOT:
        rows = np.eye(total, dtype=np.float32)
        return part, lambda x: rows[_places(x, starts, 1, shape)[:, 0]]
    firsts = np.cumsum([0, *counts[:-1]])

    def one_hot(x: Any) -> Array:
        found = places(x) + firsts
        encoded = np.zeros((len(found), total), np.float32)
        np.put_along_axis(encoded, found, 1.0, axis=1)
        return encoded

    return part, one_hot


def _places(x: Any, starts: Array, columns: int, shape: tuple[int, ...]) -> Array:
    """Whole numbers as indices [N, columns]; an index below 0 would silently count from the end."""
    array = np.asarray(x)
    if array.dtype.kind not in "iu":
        raise TypeError(f"whole numbers were promised. Received: {array.dtype}")
    places = _fitting(array.astype(np.int64, copy=False), shape, columns) - starts
    if places.size and places.min() < 0:
        raise IndexError(f"{array.min()} is below the space's start")
    return places


# Actions ------------------------------------------------------------------------------------------


def action_decoder(space: spaces.Space, rescale: bool = False) -> Callable[[Array], Array]:
    """Returns the function from a batch of sampled actions to what the environment takes.

    Discrete actions are counted from the space's `start`. Continuous actions are clipped to the space's
    bounds on their way into the environment only: learning sees what was sampled.

    Args:
        space: The space of one action.
        rescale: Whether the policy works in half ranges around the middle, see `half_ranges`.

    Raises:
        ValueError: For a space without a distribution; the message shows it.
    """
    if isinstance(space, spaces.Discrete):
        start, dtype = int(space.start), space.dtype
        return lambda a: a.astype(dtype, copy=False) + dtype.type(start)
    if isinstance(space, spaces.MultiDiscrete):
        starts = np.asarray(space.start).ravel()
        shape, dtype = space.shape, space.dtype
        return lambda a: (a + starts).astype(dtype).reshape(-1, *shape)
    if isinstance(space, spaces.MultiBinary):
        shape, dtype = space.shape, space.dtype
        return lambda a: a.astype(dtype).reshape(-1, *shape)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high, shape, dtype = space.low, space.high, space.shape, space.dtype
        units = half_ranges(space) if rescale else None
        if units is None:
            return lambda a: np.clip(a.reshape(-1, *shape), low, high).astype(dtype, copy=False)
        middle, half = units
        return lambda a: np.clip(a.reshape(-1, *shape) * half + middle, low, high).astype(dtype, copy=False)
    raise ValueError(f"unsupported action space: {space}")


def half_ranges(space: spaces.Space) -> tuple[Array, Array] | None:
    """Returns middle and half range of each dimension of a box of actions.

    An action of the policy, of mean 0 and deviation 1 at first, is `action * half + middle` to the
    environment. Dimensions without two finite bounds stay as they are, with middle 0 and half range 1; bounds
    of UNBOUNDED and more are none.

    Returns:
        (middle, half), of the space's shape and float dtype; None if nothing changes: no box of floats,
        bounds of [-1, 1], or no bounds.
    """
    if not (isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)):
        return None
    low, high = (np.asarray(each, np.float64) for each in (space.low, space.high))
    bounded = (np.abs(low) < UNBOUNDED) & (np.abs(high) < UNBOUNDED)
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    middle, half = (high + low) / 2, (high - low) / 2
    if not middle.any() and (half == 1.0).all():
        return None
    dtype = np.promote_types(space.dtype, np.float32)
    # Adding -0 keeps every bit, where +0 would turn -0 into it.
    return np.where(middle == 0.0, -0.0, middle).astype(dtype), half.astype(dtype)


class Translation(NamedTuple):
    """Between the spaces of an environment and arrays."""

    encoder: ObservationEncoder
    decode: Callable[[Array], Array]
    """From sampled actions [N, ...] to what the environment takes, see `action_decoder`."""


def one_batch(observation: Any) -> Any:
    """Adds the batch dimension to one observation of any space."""
    if isinstance(observation, dict):
        return {key: one_batch(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(one_batch(value) for value in observation)
    return np.asarray(observation)[None]
