"""Between Gymnasium's spaces and arrays: observations become one array, sampled actions the environment's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from rlweights.weights.arrays import Array


@dataclass(frozen=True)
class ObservationEncoder:
    """Turns a batch of observations into one array [N, *shape].

    Attributes:
        shape: Shape of one encoded observation.
        dtype: "uint8" for images, which the network scales itself, else "float32".
        encode: The function from a batch as Gymnasium's vector environments give it.
    """

    shape: tuple[int, ...]
    dtype: str
    encode: Callable[[Any], Array]

    @property
    def is_image(self) -> bool:
        """Whether observations are images [H, W, C]."""
        return self.dtype == "uint8"


def observation_encoder(space: spaces.Space) -> ObservationEncoder:
    """Returns the encoder of an observation space.

    Boxes stay as they are, but flat, and uint8 is scaled to [0, 1]. A uint8 box of at least 36 x 36 pixels,
    with or without channels, is an image (channels first is turned into channels last). Discrete and
    multi-discrete values become one-hot vectors, multi-binary ones floats. Dicts and tuples of these are
    concatenated in the order of the space, images in them flat.

    Raises:
        ValueError: For any other space; the message shows it.
    """
    if isinstance(space, spaces.Box) and _is_image(space):
        if len(space.shape) == 2:
            return ObservationEncoder((*space.shape, 1), "uint8", lambda x: np.asarray(x)[..., None])
        if space.shape[0] < min(space.shape[1:]):
            channels, height, width = space.shape
            return ObservationEncoder(
                (height, width, channels), "uint8", lambda x: np.transpose(np.asarray(x), (0, 2, 3, 1))
            )
        return ObservationEncoder(tuple(space.shape), "uint8", np.asarray)
    size, encode = _flat(space)
    return ObservationEncoder((size,), "float32", encode)


def _is_image(space: spaces.Box) -> bool:
    """Whether the convolutions of the Nature network fit, which need 36 x 36 pixels."""
    return space.dtype == np.uint8 and len(space.shape) in (2, 3) and sorted(space.shape)[-2] >= 36


def _flat(space: spaces.Space) -> tuple[int, Callable[[Any], Array]]:
    """Size of a flat float32 encoding, and the function that makes it."""
    if isinstance(space, spaces.Box):
        size = int(np.prod(space.shape))
        scale = np.float32(1 / 255) if space.dtype == np.uint8 else None

        def box(x: Any) -> Array:
            flat = np.asarray(x, np.float32).reshape(-1, size)
            return flat if scale is None else flat * scale

        return size, box
    if isinstance(space, spaces.Discrete):
        number, start = int(space.n), int(space.start)
        rows = np.eye(number, dtype=np.float32)
        return number, lambda x: rows[_places(x, start, 1)[:, 0]]
    if isinstance(space, spaces.MultiDiscrete):
        counts = np.asarray(space.nvec).ravel().astype(int)
        starts = np.asarray(space.start).ravel().astype(int)
        tables = [np.eye(n, dtype=np.float32) for n in counts]

        def multi_discrete(x: Any) -> Array:
            columns = _places(x, starts, len(counts))
            return np.concatenate([t[columns[:, i]] for i, t in enumerate(tables)], axis=1)

        return int(counts.sum()), multi_discrete
    if isinstance(space, spaces.MultiBinary):
        size = int(np.prod(space.shape))
        return size, lambda x: np.asarray(x, np.float32).reshape(-1, size)
    if isinstance(space, spaces.Dict | spaces.Tuple):
        keys = list(space.spaces) if isinstance(space, spaces.Dict) else range(len(space.spaces))
        inner: Any = space.spaces
        parts = [(key, *_part(key, inner[key])) for key in keys]
        total = sum(size for _, size, _ in parts)
        return total, lambda x: np.concatenate([encode(x[key]) for key, _, encode in parts], axis=1)
    raise ValueError(f"unsupported observation space: {space}")


def _part(key: Any, space: spaces.Space) -> tuple[int, Callable[[Any], Array]]:
    """As `_flat`, for one part of a dict or a tuple."""
    try:
        return _flat(space)
    except ValueError as error:
        way = "; the wrapper FilterObservation leaves parts out" if isinstance(key, str) else ""
        raise ValueError(f"{error} at {key!r}{way}") from None


def _places(x: Any, start: Any, columns: int) -> Array:
    """Whole numbers as indices [N, columns]; an index below 0 would silently count from the end."""
    array = np.asarray(x)
    if array.dtype.kind not in "iu":
        raise TypeError(f"whole numbers were promised. Received: {array.dtype}")
    places = array.astype(np.int64, copy=False).reshape(-1, columns) - start
    if places.size and places.min() < 0:
        raise IndexError(f"{array.min()} is below the space's start")
    return places


def action_decoder(space: spaces.Space) -> Callable[[Array], Array]:
    """Returns the function from a batch of sampled actions to what the environment takes.

    Discrete actions are counted from the space's `start`. Continuous actions are clipped to the space's
    bounds on their way into the environment only: learning sees what was sampled.

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
        return lambda a: np.clip(a.reshape(-1, *shape), low, high).astype(dtype, copy=False)
    raise ValueError(f"unsupported action space: {space}")


def one_batch(observation: Any) -> Any:
    """Adds the batch dimension to one observation of any space."""
    if isinstance(observation, dict):
        return {key: one_batch(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(one_batch(value) for value in observation)
    return np.asarray(observation)[None]
