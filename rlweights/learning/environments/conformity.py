"""What one environment returns, held against what its spaces promise: the first misfit is told in words."""

import contextlib
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Misfit(ValueError):
    """What came and what was expected, to be told of a named environment."""


class Conformity:
    """Checks what one environment returns, in a fraction of a microsecond where nothing is wrong.

    Args:
        space: Of its observations.
    """

    def __init__(self, space: gym.Space):
        self._space = space
        single = isinstance(space, spaces.Box | spaces.MultiBinary)
        self._shape, self._dtype = (space.shape, space.dtype) if single else (None, None)

    def observation(self, value: Any) -> Any:
        """Returns an observation in the form of its space.

        Raises:
            Misfit: If it has another shape, or values that the space's dtype cannot hold.
        """
        if type(value) is np.ndarray and value.shape == self._shape and value.dtype == self._dtype:
            return value
        return _fitted(self._space, value, "an observation")

    def reward(self, value: Any) -> float:
        """Returns a reward as a float.

        Raises:
            Misfit: If it is no single number.
        """
        real = isinstance(value, int | float | np.integer | np.floating | np.bool_)
        if real or (isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "biuf"):
            with contextlib.suppress(OverflowError):  # an int may have any number of digits
                return float(value)
        raise Misfit(f"the reward {_shown(value)}: expected one number")

    def end(self, name: str, value: Any) -> bool:
        """Returns `terminated` or `truncated` as a bool; 0 and 1 count as such.

        Raises:
            Misfit: If it is neither true nor false.
        """
        if isinstance(value, bool | np.bool_):
            return bool(value)
        number = isinstance(value, int | np.integer) or (isinstance(value, np.ndarray) and value.ndim == 0)
        if number and value in (0, 1):
            return bool(value)
        raise Misfit(f"{name} = {_shown(value)}: expected True or False")


def _fitted(space: gym.Space, value: Any, what: str) -> Any:
    if isinstance(space, spaces.Dict):
        if not isinstance(value, dict) or value.keys() != space.spaces.keys():
            came = f"with the keys {sorted(map(str, value))}" if isinstance(value, dict) else _shown(value)
            raise Misfit(f"{what} {came}: expected a dict with {sorted(map(str, space.spaces))}")
        return {key: _fitted(each, value[key], f"{what}[{key!r}]") for key, each in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space.spaces):
            raise Misfit(f"{what} {_shown(value)}: expected a tuple of {len(space.spaces)}")
        return tuple(_fitted(s, v, f"{what}[{i}]") for i, (s, v) in enumerate(zip(space, value, strict=True)))
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return value  # refused elsewhere, by its space
    shape, dtype = space.shape, space.dtype
    assert dtype is not None
    counted = isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
    if not counted and type(value) is np.ndarray and value.shape == shape and value.dtype == dtype:
        return value
    expected = f"expected shape {shape}, {dtype}, {f'of {space}, ' if counted else ''}as its space says"
    array = _array(value, what, expected)
    if array.shape != shape or array.dtype.kind not in "biuf":
        raise Misfit(f"{what} of shape {array.shape}, {array.dtype}: {expected}")
    with np.errstate(invalid="ignore", over="ignore"):
        converted = array.astype(dtype)
    kept = "same_kind" if dtype.kind == "f" else "safe"  # whole numbers that do not fit would wrap around
    if not np.can_cast(array.dtype, dtype, kept) and not np.array_equal(converted, array):
        raise Misfit(f"{what} of {array.dtype}, {_shown(value)}, that {dtype} cannot hold: {expected}")
    if counted and not space.contains(converted if shape else dtype.type(converted)):  # not to be looked up
        raise Misfit(f"{what} {_shown(value)}: {expected}")
    return converted


def _array(value: Any, what: str, expected: str) -> Any:
    try:
        return np.asarray(value)
    except ValueError:
        raise Misfit(f"{what} of unequal parts: {expected}") from None
    except Exception as error:  # whatever an `__array__` raises: that of a tensor on a GPU, ...
        name, why = type(value).__name__, type(error).__name__
        raise Misfit(f"{what} of type {name}, which makes no array ({why}: {error}): {expected}") from None


def _shown(value: Any) -> str:
    """What came, in a few words."""
    text = (
        " ".join(np.array2string(value, threshold=4).split())
        if isinstance(value, np.ndarray)
        else repr(value)
    )
    shape = f" of shape {value.shape}" if isinstance(value, np.ndarray) else ""
    return f"{text if len(text) <= 60 else text[:57] + '...'}{shape}"
