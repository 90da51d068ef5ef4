"""How vector environments go on where they were, in another process: nothing is cut for a checkpoint.

Shapes: N environments. What a checkpoint needs to hold is a few arrays by name; see `Continuation.state`.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import concatenate, create_empty_array

from rlweights.errors import BrokenEnvironment
from rlweights.learning.environments.replay import RunningEpisode
from rlweights.learning.stepper import Stepper, Transition
from rlweights.weights.arrays import Array

LONGEST_RECORD = 1 << 20
"""Steps of all environments after which a vector that can be seeded only as a whole is reset."""


class Continuation(ABC):
    """Steps a vector environment, and can make another one like it go on from here.

    Args:
        stepper: The vector environment as arrays.
    """

    cuts: str = ""
    """What is cut and how often, in words; nothing at all if empty."""

    def __init__(self, stepper: Stepper):
        self.stepper = stepper

    def reset(self, seed: int) -> Array:
        """Begins new episodes everywhere; returns their observations [N, ...]."""
        return self.stepper.reset(seed)

    def restart(self, broken: Array, seed: int) -> tuple[Array, Array]:
        """Begins new episodes at least where `broken` [N] says so.

        Returns:
            The observations [N, ...], and where new episodes have begun [N].
        """
        return self.reset(seed), np.ones(self.stepper.num_envs, bool)

    def step(self, actions: Array) -> Transition:
        """Steps all environments with sampled actions [N, ...]."""
        return self.stepper.step(actions)

    def due(self) -> bool:
        """Whether the vector has to be reset before it is stepped on."""
        return False

    @abstractmethod
    def state(self) -> dict[str, Array]:
        """Returns what it takes to go on from here, by name."""

    @abstractmethod
    def restore(self, state: Mapping[str, Array]) -> Array:
        """Goes on from a state; returns the observations [N, ...] to act on.

        Raises:
            BrokenEnvironment: If the environments do not come out where they were.
        """


class ReplayedEpisodes(Continuation):
    """Single environments, each in `SeededEpisodes`: running episodes are played again, nothing is cut."""

    def restart(self, broken: Array, seed: int) -> tuple[Array, Array]:
        """Begins the next episodes where `broken` [N] says so, and nowhere else."""
        return self.stepper.reset_some(broken), broken

    def state(self) -> dict[str, Array]:
        """Returns seeds and actions of the running episodes, and where they stand."""
        found = [RunningEpisode(*each) for each in self.stepper.call("running_episode")]
        numbers = np.array([(e.root, e.number, e.seed, e.checksum, e.recreated) for e in found], np.int64)
        totals = as_bits(np.array([e.total_reward for e in found], np.float64))
        return {
            "episodes": numbers,
            "returns": totals,
            **{f"actions/{i}": e.actions for i, e in enumerate(found)},
        }

    def restore(self, state: Mapping[str, Array]) -> Array:
        """Plays the running episodes again."""
        envs: Any = self.stepper.envs
        episodes = []
        for i, (root, number, seed, checksum, *more) in enumerate(state["episodes"].tolist()):
            actions, total = state[f"actions/{i}"], float(from_bits(state["returns"])[i])
            episodes.append(RunningEpisode(root, number, seed, actions, total, checksum, *more))
        envs.set_attr("replayed", episodes)
        space = envs.single_observation_space
        observations = self.stepper.call("replay_episode")
        return self.stepper.restored(
            concatenate(space, observations, create_empty_array(space, envs.num_envs))
        )


class ReadState(Continuation):
    """A vector environment whose attributes are plain data: they are read, and written into another one."""

    def state(self) -> dict[str, Array]:
        """Returns every attribute that is plain data, those that are not arrays as JSON."""
        return {
            **_read(self.stepper.envs),
            "valid": self.stepper.valid.copy(),
            **_named("observations", self._seen),
        }

    def reset(self, seed: int) -> Array:
        """Begins new episodes everywhere; returns their observations [N, ...]."""
        self._seen = super().reset(seed)
        return self._seen

    def step(self, actions: Array) -> Transition:
        """Steps all environments with sampled actions [N, ...]."""
        transition = super().step(actions)
        self._seen = transition.observations
        return transition

    def restore(self, state: Mapping[str, Array]) -> Array:
        """Writes the attributes."""
        _write(self.stepper.envs, state)
        self.stepper.valid = state["valid"].copy()
        self._seen = _of(state, "observations")
        return self._seen

    @staticmethod
    def holds(stepper: Stepper, draw: Any) -> bool:
        """Whether a vector environment is wholly described by its plain attributes: tried by going back.

        Args:
            stepper: The vector environment; it has to be reset afterwards.
            draw: Returns sampled actions [N, ...].
        """
        tried = ReadState(stepper)
        tried.reset(0)
        for _ in range(5):
            tried.step(draw())
        state, actions = tried.state(), [draw() for _ in range(40)]
        first = [tried.step(each) for each in actions]
        tried.restore(state)
        second = [tried.step(each) for each in actions]
        return all(
            np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
            for one, other in zip(first, second, strict=True)
            for a, b in zip(one[:6], other[:6], strict=True)  # all that are arrays
        )


class ReplayedVector(Continuation):
    """A vector that can only be seeded as a whole: everything since its last reset is played again.

    So that this does not take for ever, the vector is reset after LONGEST_RECORD steps of all environments.
    """

    def __init__(self, stepper: Stepper):
        super().__init__(stepper)
        steps = max(1, LONGEST_RECORD // stepper.num_envs)
        self.cuts = (
            f"episodes are cut every {steps * stepper.num_envs:,} steps: these environments can be seeded "
            f"only all at once, and a resumed run plays everything since then again"
        )
        self._longest = steps
        self._seed = 0
        self._actions: list[Array] = []
        self._checks = 0.0

    def reset(self, seed: int) -> Array:
        """Begins new episodes everywhere; returns their observations [N, ...]."""
        self._seed, self._checks = seed, 0.0
        self._actions.clear()
        return super().reset(seed)

    def step(self, actions: Array) -> Transition:
        """Steps all environments with sampled actions [N, ...]."""
        self._actions.append(np.array(actions))
        transition = super().step(actions)
        self._checks += float(transition.rewards.sum())
        return transition

    def due(self) -> bool:
        """Whether the record has become as long as it may."""
        return len(self._actions) >= self._longest

    def state(self) -> dict[str, Array]:
        """Returns the seed of the last reset and all actions since then."""
        actions = np.stack(self._actions) if self._actions else np.zeros((0,), np.int64)
        return {
            "seed": np.array(self._seed, np.int64),
            "returns": as_bits(np.array(self._checks)),
            "actions": actions,
        }

    def restore(self, state: Mapping[str, Array]) -> Array:
        """Plays all steps again."""
        observations = self.reset(int(state["seed"]))
        for actions in state["actions"]:
            observations = self.step(actions).observations
        if as_bits(np.array(self._checks)) != state["returns"]:
            raise BrokenEnvironment(
                f"{self.stepper.name}: cannot be resumed: {len(state['actions'])} steps were played again "
                f"from the seed, and their rewards are others. What it does must follow from seed and actions"
            )
        return observations


# Numbers as they are ------------------------------------------------------------------------------


def as_bits(values: Array) -> Array:
    """Returns float64 as the int64 of the same bits: a checkpoint holds finite numbers only."""
    return np.asarray(values, np.float64).view(np.int64)


def from_bits(bits: Array) -> Array:
    """Returns the float64 of which `as_bits` made int64."""
    return np.asarray(bits).view(np.float64)


def _named(name: str, array: Array) -> dict[str, Array]:
    """An array by its name and dtype, floats as integers of the same bits."""
    kept = np.ascontiguousarray(array)
    return {
        f"{name}:{array.dtype.name}": kept.view(f"i{kept.itemsize}")
        if kept.dtype.kind == "f"
        else kept.copy()
    }


def _of(state: Mapping[str, Array], name: str) -> Array:
    """The array of which `_named` made an entry of a state."""
    key = next(each for each in state if each.rpartition(":")[0] == name)
    return state[key].view(key.rpartition(":")[2]).copy()


# Plain attributes ---------------------------------------------------------------------------------

_PLAIN = (bool, int, float, str, type(None))


def _layers(envs: Any) -> list[Any]:
    """A vector environment and what it wraps, outermost first."""
    found = [envs]
    while isinstance(found[-1], gym.vector.VectorWrapper):
        found.append(found[-1].env)
    return found


def _read(envs: Any) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    plain: dict[str, Any] = {}
    for depth, layer in enumerate(_layers(envs)):
        for name, value in vars(layer).items():
            key = f"{depth}/{name}"
            if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
                arrays |= _named(f"array/{key}", value)
            elif isinstance(value, np.random.Generator):
                plain[key] = {"generator": value.bit_generator.state}
            elif isinstance(value, _PLAIN):
                plain[key] = value
    return {**arrays, "plain": np.frombuffer(json.dumps(plain).encode(), np.uint8).copy()}


def _write(envs: Any, state: Mapping[str, Array]) -> None:
    layers = _layers(envs)
    for name in [each.rpartition(":")[0] for each in state if each.startswith("array/")]:
        _, depth, attribute = name.split("/", 2)
        setattr(layers[int(depth)], attribute, _of(state, name))
    for key, value in json.loads(state["plain"].tobytes().decode()).items():
        depth, attribute = key.split("/", 1)
        if isinstance(value, dict):
            generator = np.random.Generator(getattr(np.random, value["generator"]["bit_generator"])())
            generator.bit_generator.state = value["generator"]
            value = generator
        setattr(layers[int(depth)], attribute, value)
