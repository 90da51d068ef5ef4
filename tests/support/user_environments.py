"""Environments as users bring them, after public questions to other trainers: spaces, rewards, ends, infos.

Each class shows one kind of trouble; the first sentence of its docstring is what it brings, and where it
counts, the rest says what an agent can reach. `benchmarks/user_environments.py` trains in each by the command
line and prints docs/user-environments.md; tests/docs/test_user_environments_page.py plays in each.
`user_simulators.py` has those that fail on their way, want something of their maker, or can be learned.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import (
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    OneOf,
    Sequence,
    Space,
    Text,
    Tuple,
)

BYTE, FLOAT = np.uint8, np.float32
FOUR = Box(-1, 1, (4,), FLOAT)


PROCESSES = ["environment.vectorization_mode=async", "environment.num_envs=2"]

SETTINGS: dict[str, list[list[str]]] = {
    "InPlace": [[], PROCESSES],
    "InPlaceDict": [[], PROCESSES],
    "RewardNaN": [[], ["guard.on_nonfinite=stop"]],
}
"""What is trained instead of the defaults, or besides them, []."""


class Brought(gym.Env):
    """Twenty steps of random observations; an action whose sum is above zero pays 1."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observed: Space = FOUR
    acted: Space = Discrete(2)
    length = 20

    def __init__(self, render_mode: str | None = None):
        self.observation_space, self.action_space = self.observed, self.acted
        self.render_mode = render_mode
        self.t = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self.seen(), {}

    def seen(self) -> Any:
        """An observation."""
        return self.observation_space.sample()

    def pays(self, action: Any) -> Any:
        """The reward of an action."""
        return float(np.sum(action) > 0)

    def terminated(self) -> Any:
        """Whether the episode has ended for good."""
        return False

    def truncated(self) -> Any:
        """Whether the episode is cut off."""
        return self.t >= self.length

    def says(self) -> Any:
        """The info of a step."""
        return {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.seen(), self.pays(action), self.terminated(), self.truncated(), self.says()


def _brings(name: str, what: str, **attributes: Any) -> None:
    """Makes an environment that differs from `Brought` by attributes and methods."""
    globals()[name] = type(name, (Brought,), {"__doc__": what, "__module__": __name__, **attributes})


def _at(step: int, value: Any, otherwise: Any = 1.0) -> Callable[..., Any]:
    """A method that returns a value in one step of an episode, and another one in all others."""
    return lambda self, *_: value if self.t == step else otherwise


# Observations -------------------------------------------------------------------------------------

_brings("Float64", "unbounded float64", observed=Box(-np.inf, np.inf, (5,), np.float64))
_brings("Float16", "float16", observed=Box(-1, 1, (5,), np.float16))
_brings("Int64Huge", "int64 of any size", observed=Box(-(2**62), 2**62, (3,), np.int64))
_brings("ZeroD", "a box of shape ()", observed=Box(-1, 1, (), FLOAT))
_brings("ThreeDFloat", "a block of floats that is no image", observed=Box(-1, 1, (7, 3, 5), FLOAT))
_brings("CHW", "an image, channels first", observed=Box(0, 255, (3, 40, 50), BYTE))
_brings("Img7", "an image of 7 x 7", observed=Box(0, 255, (7, 7, 3), BYTE))
_brings("Img36", "an image of 36 x 36", observed=Box(0, 255, (36, 36, 1), BYTE))
_brings("Img40", "an image without channels", observed=Box(0, 255, (40, 40), BYTE))
_brings("Min10", "an image of bools, 10 x 10 x 4", observed=Box(0, 1, (10, 10, 4), np.bool_))  # pyright: ignore[reportCallIssue]
_brings("Img15Low3", "an image of the numbers 0..3", observed=Box(0, 3, (15, 15, 1), BYTE))
_brings("Stack4D", "a stack of two images", observed=Box(0, 255, (2, 64, 64, 3), BYTE))
_brings("FloatImg", "an image of floats in [0, 1]", observed=Box(0, 1, (64, 64, 3), FLOAT))
_brings(
    "DictImg",
    "an image and a vector in a Dict",
    observed=Dict(camera=Box(0, 255, (64, 64, 3), BYTE), state=Box(-1, 1, (3,), FLOAT)),
)
_brings("TupleImg", "two images in a Tuple", observed=Tuple((Box(0, 255, (36, 36, 3), BYTE),) * 2))
_brings(
    "Nested",
    "a Dict with a Dict with a Tuple in it",
    observed=Dict(
        a=Dict(b=Tuple((Discrete(3, start=2), Box(-1, 1, (2,), np.float64)))),
        c=MultiBinary((2, 2)),
    ),
)
_brings("DiscStart", "Discrete that starts at 2", observed=Discrete(19, start=2))
_brings("MD2", "MultiDiscrete in two dimensions", observed=MultiDiscrete(np.array([[2, 3], [4, 5]])))
_brings("Seq", "a Sequence", observed=Sequence(Discrete(3)))
_brings("Txt", "a Text in a Dict", observed=Dict(x=Box(-1, 1, (2,)), mission=Text(10)))
_brings("One", "a OneOf", observed=OneOf((Discrete(3), Box(-1, 1, (2,)))))
_brings("Disc100k", "Discrete(100,000)", observed=Discrete(100_000))
_brings("Disc300k", "Discrete(300,000)", observed=Discrete(300_000))
_brings("DictDisc100k", "Discrete(100,000) in a Dict", observed=Dict(cell=Discrete(100_000), x=FOUR))

# Actions ------------------------------------------------------------------------------------------

_brings(
    "ActBounds",
    "actions in [0, 100] x [-5, 5]",
    acted=Box(np.array([0, -5], FLOAT), np.array([100, 5], FLOAT)),
)
_brings(
    "ActInf",
    "actions with one bound each",
    acted=Box(np.array([0, -np.inf], FLOAT), np.array([np.inf, 1], FLOAT)),
)
_brings("Act64", "actions of float64", acted=Box(-1, 1, (2,), np.float64))
_brings("Act0D", "actions of shape ()", acted=Box(-1, 1, (), FLOAT))
_brings("Act2x3", "actions of shape (2, 3)", acted=Box(-1, 1, (2, 3), FLOAT))
_brings("ActInt", "a box of integers as actions", acted=Box(0, 10, (2,), np.int32))
_brings("ActMB", "MultiBinary actions in two dimensions", acted=MultiBinary((2, 3)))
_brings("ActMD2", "MultiDiscrete actions in two dimensions", acted=MultiDiscrete(np.array([[2, 3], [4, 5]])))
_brings("ActStart", "Discrete actions that start at -1", acted=Discrete(3, start=-1))
_brings("ActTuple", "a Tuple of actions", acted=Tuple((Discrete(2), Discrete(3))), pays=lambda self, a: 1.0)
_brings(
    "ActDict",
    "a Dict of actions",
    acted=Dict(gear=Discrete(2), force=Box(-1, 1, (1,))),
    pays=lambda self, a: 1.0,
)

# Rewards and ends ---------------------------------------------------------------------------------

_brings("RewInt", "rewards that are ints", pays=lambda self, a: 1)
_brings("RewArr", "rewards of shape (1,)", pays=lambda self, a: np.ones(1))
_brings("RewNone", "the reward None, in some steps", pays=lambda self, a: None if self.t % 7 == 3 else 1.0)
_brings("RewNegInf", "the reward -inf, once an episode", pays=_at(13, -np.inf))
_brings("RewHuge", "the reward 1e30, once an episode", pays=_at(13, 1e30))
_brings("RewardNaN", "the reward NaN, once an episode", pays=_at(13, np.nan))
_brings("TermNp", "ends of np.bool_", terminated=lambda self: np.bool_(self.t > 5))
_brings("TermInt", "ends of 0 and 1", terminated=lambda self: int(self.t > 5), truncated=lambda self: 0)
_brings("BothEnds", "both ends at once", length=10, terminated=lambda self: self.t >= 10)
_brings("OneStep", "episodes of one step", terminated=lambda self: True)
_brings("Never", "episodes that never end", truncated=lambda self: False)

# Infos --------------------------------------------------------------------------------------------

_brings("InfoRagged", "arrays in infos that grow", says=lambda self: {"history": np.arange(self.t)})
_brings(
    "InfoRagged2",
    "arrays in infos of any length",
    says=lambda self: {"visible": np.arange(self.np_random.integers(1, 6))},
)
_brings(
    "InfoMask",
    "a mask and a text in infos",
    says=lambda self: {"action_mask": np.array([1, self.t % 2], np.int8), "tag": "x" if self.t % 2 else None},
)
_brings(
    "InfoTypes",
    "infos that change their type, and odd keys",
    says=lambda self: {"value": 1 if self.t < 5 else "done", "inner": {"k": [1, 2]}, 3: 4},
)
_brings(
    "InfoStrLong",
    "dicts of arrays of any length in infos",
    says=lambda self: {"v": {"a": np.zeros(self.np_random.integers(1, 4))}},
)
_brings(
    "InfoMaskMD", "lists of arrays in infos", says=lambda self: {"mask": [np.ones(2), np.ones(3)], "df": None}
)
_brings(
    "InfoReserved",
    "infos with the keys that Gymnasium's vectors use",
    says=lambda self: {
        "final_obs": 1,
        "final_info": "x",
        "episode": {"r": None},
        "_phase": 0,
        "phase": "late",
    },
)
_brings(
    "InfoSuccess",
    "is_success and a profit at the end",
    says=lambda self: (
        {"is_success": bool(self.np_random.random() < 0.7), "profit": float(self.t)} if self.t >= 20 else {}
    ),
)
_brings("InfoNone", "None as info", says=lambda self: None)

# What misfits later on ----------------------------------------------------------------------------

_brings(
    "WrongShapeLater",
    "another shape in step 11",
    seen=lambda self: np.zeros(5, FLOAT) if self.t == 11 else self.observation_space.sample(),
)
_brings(
    "KeyMissesLater",
    "a Dict without one of its keys in step 11",
    observed=Dict(a=FOUR, b=FOUR),
    seen=lambda self: {key: np.zeros(4, FLOAT) for key in ("a" if self.t == 11 else "ab")},
)
_brings(
    "PartMisfitsLater",
    "another shape within a Dict in step 11",
    observed=Dict(a=FOUR, b=Tuple((FOUR, FOUR))),
    seen=lambda self: {"a": np.zeros(4), "b": (np.zeros(4), np.zeros(5 if self.t == 11 else 4))},
)
_brings("WrongDtype", "a list for an array", seen=lambda self: [0.1, 0.2, 0.3, 0.4])
_brings("OutOfSpace", "values outside of the space", seen=lambda self: np.full(4, 37.0, FLOAT))
_brings(
    "NaNOnReset",
    "NaN in the first observation, in some resets",
    seen=lambda self: np.full(4, np.nan if self.t == 0 and self.np_random.random() < 0.02 else 0.5, FLOAT),
)


class Printing(Brought):
    """prints in each step"""

    def says(self) -> Any:
        """Nothing, aloud."""
        print("step", self.t)
        return {}


class OldApi(gym.Env):
    """Gym's interface of before 2022"""

    observation_space = FOUR
    action_space = Discrete(2)

    def reset(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.observation_space.sample()

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 1.0, False, {}


class OldStep(Brought):
    """four values from step()"""

    def step(self, action: Any) -> Any:
        return self.seen(), 1.0, False, {}


class OldReset(Brought):
    """an observation alone from reset()"""

    def reset(self, **arguments: Any) -> Any:
        return super().reset(**arguments)[0]


# Arrays that are changed in place -----------------------------------------------------------------


class InPlace(Brought):
    """the same array each time, changed in place"""

    length = 5

    def __init__(self, render_mode: str | None = None):
        super().__init__(render_mode)
        self.state = np.zeros(4, FLOAT)

    def reset(self, **arguments: Any) -> Any:
        self.state[:] = 0
        return super().reset(**arguments)

    def seen(self) -> Any:
        """The array itself."""
        return self.state

    def step(self, action: Any) -> Any:
        self.state += 0.1
        return super().step(action)


class InPlaceDict(InPlace):
    """the same arrays each time, in a Dict with a Tuple in it"""

    observed = Dict(a=FOUR, b=Tuple((FOUR, FOUR)))

    def seen(self) -> Any:
        """The array itself, three times."""
        return {"a": self.state, "b": (self.state, self.state)}


class InPlaceReward(Brought):
    """the same array as reward each time"""

    def __init__(self, render_mode: str | None = None):
        super().__init__(render_mode)
        self.paid = np.zeros((), FLOAT)

    def pays(self, action: Any) -> Any:
        """1, as the array that held the last reward, too."""
        self.paid[...] = 1.0
        return self.paid
