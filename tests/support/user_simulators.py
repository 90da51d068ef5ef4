"""Simulators as users bring them: what they want of their maker, how they fail, and what can be learned.

See `user_environments.py`, beside.
"""

import multiprocessing
import os
import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

from support.user_environments import FLOAT, PROCESSES, Brought

LONG = ["budget.total_timesteps=100_000", "evaluation.final_episodes=100"]

SETTINGS: dict[str, list[list[str]]] = {
    "Season": [["budget.total_timesteps=100_000"]],
    "Valve": [["budget.total_timesteps=20_480"]],
    "Bandit": [LONG],
    "BanditFloat": [LONG],
    "BanditInt8": [LONG],
    "BanditSigned": [LONG],
    "Single": [[], ["environment.num_envs=1", "evaluation.episodes=0", "evaluation.final_episodes=0"]],
    "Dies": [[], PROCESSES],
    "DiesInReset": [[], PROCESSES],
    "Hangs": [
        [],
        [*PROCESSES, "environment.timeout=2"],
    ],
    "RaisesLater": [[], ["environment.on_error=recreate"]],
    "FlakyReset": [[], ["environment.on_error=recreate"]],
    "Masked": [[], ["environment.on_error=recreate", "environment.max_recreations=100_000"]],
    "SeedInit": [[], ["environment.kwargs.seed=3"]],
    "Sized": [[], ["environment.kwargs.size=[5, 6]"]],
}
"""What is trained instead of the defaults, or besides them, []."""


# Arguments ----------------------------------------------------------------------------------------


class SeedInit(Brought):
    """an argument without a default"""

    def __init__(self, seed: int, render_mode: str | None = None):
        super().__init__(render_mode)
        self.rng = np.random.default_rng(seed)


class Trading(Brought):
    """a table as argument, which no file can hold"""

    def __init__(self, table: Any, render_mode: str | None = None):
        super().__init__(render_mode)
        self.table = table


class Sized(Brought):
    """an argument that must be a tuple"""

    def __init__(self, size: tuple[int, int] = (3, 4), render_mode: str | None = None):
        super().__init__(render_mode)
        if not isinstance(size, tuple):
            raise TypeError(f"size must be a tuple, not {type(size).__name__}")


# What raises, dies and hangs ----------------------------------------------------------------------


class RaisesLater(Brought):
    """an error in step 3,000 of all"""

    made = 0

    def step(self, action: Any) -> Any:
        RaisesLater.made += 1
        if RaisesLater.made == 3_000:
            raise ConnectionError("the simulator is gone")
        return super().step(action)


class FlakyReset(Brought):
    """an error in reset 60 of all"""

    made = 0

    def reset(self, **arguments: Any) -> Any:
        FlakyReset.made += 1
        if FlakyReset.made == 60:
            raise TimeoutError("the simulator does not answer")
        return super().reset(**arguments)


class Bug(Brought):
    """a bare assert that fails, two calls deep"""

    def _slower(self, table: dict[str, int]) -> None:
        assert table["speed"] < 5

    def step(self, action: Any) -> Any:
        self._slower({"speed": self.t})
        return super().step(action)


class Bug2(Bug):
    """a key that is misspelt"""

    def _slower(self, table: dict[str, int]) -> None:
        table["sped"]


class BugInInit(Brought):
    """an error while it is made"""

    def __init__(self, render_mode: str | None = None):
        super().__init__(render_mode)
        self.level = {"easy": 1}["hard"]


class CloseRaises(Brought):
    """an error when it is closed"""

    def close(self) -> None:
        raise OSError("was closed before")


def _in_a_process() -> bool:
    return multiprocessing.parent_process() is not None


class Dies(Brought):
    """a process that dies in step 150"""

    made = 0

    def step(self, action: Any) -> Any:
        Dies.made += 1
        if Dies.made >= 150 and _in_a_process():
            os._exit(11)
        return super().step(action)


class DiesInReset(Brought):
    """a process that dies in reset 9"""

    made = 0

    def reset(self, **arguments: Any) -> Any:
        DiesInReset.made += 1
        if DiesInReset.made >= 9 and _in_a_process():
            os._exit(11)
        return super().reset(**arguments)


class Hangs(Brought):
    """a process that hangs in step 150"""

    made = 0

    def step(self, action: Any) -> Any:
        Hangs.made += 1
        if Hangs.made >= 150 and _in_a_process():
            time.sleep(3_600)
        return super().step(action)


# How many there are -------------------------------------------------------------------------------


class Single(Brought):
    """one at a time, like a simulator at a fixed port"""

    alive = 0
    mine = False

    def __init__(self, render_mode: str | None = None):
        super().__init__(render_mode)
        if Single.alive:
            raise RuntimeError("port 11345 is in use: another simulator is running")
        Single.alive, self.mine = 1, True

    def close(self) -> None:
        if self.mine:
            Single.alive, self.mine = 0, False


class Counted(Brought):
    """no more than 20 at once"""

    alive = 0
    mine = False

    def __init__(self, render_mode: str | None = None):
        super().__init__(render_mode)
        if Counted.alive == 20:
            raise RuntimeError("20 simulators are running")
        Counted.alive, self.mine = Counted.alive + 1, True

    def close(self) -> None:
        if self.mine:
            Counted.alive, self.mine = Counted.alive - 1, False


# What can be learned ------------------------------------------------------------------------------


class Bandit(Brought):
    """four bytes of 0..3. Ten steps; the right action is the first number: 10 at best, 2.5 by chance."""

    acted = Discrete(4)
    kind, low, length = np.uint8, 0, 10

    def __init__(self, render_mode: str | None = None):
        super().__init__(render_mode)
        self.observation_space = Box(self.low, self.low + 3, (4,), self.kind)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        gym.Env.reset(self, seed=seed)
        self.t = 0
        return self.seen(), {}

    def seen(self) -> Any:
        """Four new numbers."""
        self.numbers = self.np_random.integers(0, 4, 4)
        return (self.numbers + self.low).astype(self.kind)

    def step(self, action: Any) -> Any:
        reward = float(action == self.numbers[0])
        self.t += 1
        return self.seen(), reward, self.t >= self.length, False, {}


class BanditFloat(Bandit):
    """the same as float32. 10 at best."""

    kind = np.float32


class BanditInt8(Bandit):
    """the same as int8. 10 at best."""

    kind = np.int8


class BanditSigned(Bandit):
    """the same as -100..-97. 10 at best."""

    kind, low = np.int8, -100


class LongTask(Brought):
    """3,000 steps, and all of the reward at the end"""

    length = 3_000

    def seen(self) -> Any:
        """How much of the time has passed."""
        return np.full(4, self.t / self.length, FLOAT)

    def pays(self, action: Any) -> Any:
        """100 in the last step."""
        return 100.0 * (self.t >= self.length)

    def terminated(self) -> Any:
        """Whether the time is over."""
        return self.t >= self.length


class Season(Brought):
    """3,000 steps; in the last 400 the other action pays. 3,000 at best, 2,601 for who never saw the end."""

    observed = Box(0, 1, (2,), FLOAT)
    length = 3_000

    def seen(self) -> Any:
        """The time, and whether it is late."""
        return np.array([self.t / self.length, self.t > 2_600], FLOAT)

    def step(self, action: Any) -> Any:
        reward = float(action == int(self.t > 2_600))
        self.t += 1
        return self.seen(), reward, self.t >= self.length, False, {}


class Valve(Brought):
    """actions in [0, 100], of which 60 is right. Ten steps: 10 at best."""

    observed = Box(0, 1, (1,), FLOAT)
    acted = Box(0, 100, (1,), FLOAT)
    length = 10

    def seen(self) -> Any:
        """Always the same."""
        return np.ones(1, FLOAT)

    def pays(self, action: Any) -> Any:
        """1, less the distance."""
        return 1 - abs(float(action[0]) - 60) / 100


class Masked(Brought):
    """actions that are an error in some states"""

    observed = Box(0, 2, (4,), np.int8)
    acted = Discrete(4)

    def reset(self, **arguments: Any) -> Any:
        self.free = np.full(4, 2)
        return super().reset(**arguments)

    def seen(self) -> Any:
        """What is free in each column."""
        return self.free.astype(np.int8)

    def says(self) -> Any:
        """Which columns can be played."""
        return {"action_mask": (self.free > 0).astype(np.int8)}

    def step(self, action: Any) -> Any:
        if not self.free[action]:
            raise ValueError(f"column {action} is full")
        self.free[action] -= 1
        return super().step(action)

    def terminated(self) -> Any:
        """Whether all is full."""
        return not self.free.any()
