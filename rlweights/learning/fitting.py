"""Whether what a user hands in fits an observation space: one observation, or a batch of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from rlweights.learning.environments.action_masks import KEY, NAMES, MaskReader
from rlweights.weights.arrays import Array


def batched(space: spaces.Space, observations: Any) -> tuple[Any, bool]:
    """Returns observations as a batch, and whether it was a single one.

    Args:
        space: The space of one observation.
        observations: One observation, or a batch [N, ...] as Gymnasium's vector environments give it.

    Raises:
        ValueError: If it is neither, or holds what is not finite; one line with what came and what fits.
    """
    arrays: dict[str, tuple[Array, tuple[int, ...]]] = {}
    collected = _collected(space, observations, "", arrays)
    single = all(array.shape == shape for array, shape in arrays.values())
    for name, (array, shape) in arrays.items():
        if not single and (array.shape[1:] != shape or array.ndim != len(shape) + 1):
            many = ", ".join(["N", *map(str, shape)])
            raise ValueError(
                f"{_called(name)} of shape {array.shape}: takes one of shape {shape}, or a batch of shape "
                f"({many}{',' if not shape else ''})"
            )
    if not single:
        sizes = {name: len(array) for name, (array, _) in arrays.items()}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{name}: {size}" for name, size in sizes.items())
            raise ValueError(f"observations of different numbers do not make one batch: {told}")
        return collected, False
    return _lifted(collected), True


def with_masks(observations: Any, masks: Any, source: str, action_space: spaces.Space) -> dict[str, Any]:
    """Returns observations, one or a batch, in the form that agents with masks take.

    Args:
        observations: As the environment gives them.
        masks: [P], or an array [N, P]; None: they are in the observations.
        source: Where the environment tells its masks.
        action_space: What they are masks of.

    Raises:
        ValueError: If there are none, or they allow nothing; one line.
    """
    if source == "observation":
        if masks is not None:
            raise ValueError(f"action_masks: the masks are in the observations, by the key {KEY!r}")
        if not isinstance(observations, Mapping) or KEY not in observations:
            raise ValueError(f"observations: a dict with the key {KEY!r} is needed")
        masks = observations[KEY]
        observations = {key: value for key, value in observations.items() if key != KEY}
    elif masks is None:
        raise ValueError(f"action_masks are needed: this agent was trained with {NAMES[source]}")
    reader = MaskReader(action_space, "a mask in action_masks")
    many = isinstance(masks, np.ndarray) and masks.ndim == 2 and masks.shape[1] == reader.size
    found = reader.read_all(masks, np.ones(len(masks), bool)) if many else reader.read(masks)
    return {"observation": observations, KEY: found}


def _called(name: str) -> str:
    return f"observations {name!r}" if name else "observations"


def _collected(
    space: spaces.Space, value: Any, name: str, arrays: dict[str, tuple[Array, tuple[int, ...]]]
) -> Any:
    """The observations with arrays at the leaves, which are noted by their names."""
    if isinstance(space, spaces.Dict):
        missing = [key for key in space.spaces if not isinstance(value, Mapping) or key not in value]
        if missing:
            came = ", ".join(map(repr, value)) if isinstance(value, Mapping) else type(value).__name__
            raise ValueError(
                f"{_called(name)}: a dict with the key {missing[0]!r} is needed. Received: {came}"
            )
        return {
            key: _collected(inner, value[key], _under(name, key), arrays)
            for key, inner in space.spaces.items()
        }
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space.spaces):
            came = f"{len(value)}" if isinstance(value, tuple | list) else type(value).__name__
            raise ValueError(f"{_called(name)}: a tuple of {len(space.spaces)} is needed. Received: {came}")
        parts = zip(space.spaces, value, strict=True)
        return tuple(
            _collected(inner, each, _under(name, i), arrays) for i, (inner, each) in enumerate(parts)
        )
    try:
        array = np.asarray(value)
    except ValueError:  # a ragged list
        raise ValueError(f"{_called(name)}: a {type(value).__name__} of unequal parts") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{_called(name)}: numbers are needed. Received: {array.dtype}")
    bytes_promised = isinstance(space, spaces.Box) and space.dtype == np.uint8
    if bytes_promised and array.dtype != np.uint8:
        if array.dtype.kind not in "iu" or (array.size and not 0 <= array.min() <= array.max() <= 255):
            raise ValueError(f"{_called(name)}: {space.dtype} is needed. Received: {array.dtype}")
        array = array.astype(np.uint8)
    if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        place = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(
            f"{_called(name)}: {int((~finite).sum())} of {array.size} numbers are not finite, the first, "
            f"{array[place]}, at {list(place)}"
        )
    arrays[name] = (array, tuple(space.shape or ()))
    return array


def _under(name: str, key: Any) -> str:
    return f"{name}/{key}" if name else str(key)


def _lifted(collected: Any) -> Any:
    """Adds the batch dimension to every array."""
    if isinstance(collected, dict):
        return {key: _lifted(value) for key, value in collected.items()}
    if isinstance(collected, tuple):
        return tuple(_lifted(value) for value in collected)
    return collected[None]
