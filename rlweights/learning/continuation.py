"""How vector environments go on where they were, in another process: nothing is cut for a checkpoint.

Shapes: N environments. What a checkpoint needs to hold is a few arrays by name; see `Continuation.state`.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
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

    def warning(self) -> str:
        """Returns what has gone wrong and is worth one line; else nothing."""
        return ""

    @abstractmethod
    def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Sets attributes of the environments, by name; see `Loop.set_parameters`."""

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

    def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Sets attributes that hold from the next episode of each environment on."""
        for name in parameters:
            _refuse(next(filter(None, self.stepper.call("refused_parameter", name)), ""))
        envs: Any = self.stepper.envs
        envs.set_attr("parameters", dict(parameters))

    def state(self) -> dict[str, Array]:
        """Returns seeds and actions of the running episodes, and where they stand."""
        found = [RunningEpisode(*each) for each in self.stepper.call("running_episode")]
        counts = [(e.root, e.number, e.seed, e.checksum, e.steps_before, e.recreated) for e in found]
        numbers = np.array(counts, np.int64)
        totals = as_bits(np.array([e.total_reward for e in found], np.float64))
        held = [dict(e.parameters) for e in found]
        return {
            "episodes": numbers,
            "returns": totals,
            **({"parameters": _json(held)} if any(held) else {}),
            **{f"actions/{i}": e.actions for i, e in enumerate(found)},
        }

    def restore(self, state: Mapping[str, Array]) -> Array:
        """Plays the running episodes again."""
        envs: Any = self.stepper.envs
        episodes = []
        held = _of_json(state["parameters"]) if "parameters" in state else [{}] * envs.num_envs
        for i, numbers in enumerate(state["episodes"].tolist()):
            root, number, seed, checksum, before, again = numbers
            actions, total = state[f"actions/{i}"], float(from_bits(state["returns"])[i])
            episode = RunningEpisode(root, number, seed, actions, total, checksum, before, again, held[i])
            episodes.append(episode)
        envs.set_attr("replayed", episodes)
        space = envs.single_observation_space
        observations = self.stepper.call("replay_episode")
        phases = self.stepper.call("phase")
        if None not in phases:
            self.stepper.phases = np.array(phases, np.int64)
        return self.stepper.restored(
            concatenate(space, observations, create_empty_array(space, envs.num_envs))
        )


class ReadState(Continuation):
    """A vector environment whose attributes are plain data: they are read, and written into another one."""

    def __init__(self, stepper: Stepper):
        super().__init__(stepper)
        self._attributes = _Attributes(stepper, plain=True)

    def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Sets attributes at once: all environments share them."""
        self._attributes.set(parameters)

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
    def holds(stepper: Stepper, draw: Callable[[Array], Array]) -> bool:
        """Whether a vector environment is wholly described by its plain attributes: tried by going back.

        Args:
            stepper: The vector environment; it has to be reset afterwards.
            draw: Returns sampled actions [N, ...] for observations [N, ...].
        """
        tried = ReadState(stepper)
        seen = tried.reset(0)
        for _ in range(5):
            seen = tried.step(draw(seen)).observations
        state, actions, first = tried.state(), [], []
        for _ in range(40):
            actions.append(draw(seen))
            first.append(tried.step(actions[-1]))
            seen = first[-1].observations
        tried.restore(state)
        try:
            second = [tried.step(each) for each in actions]
        except BrokenEnvironment:  # it is elsewhere, where these actions are forbidden
            return False
        return all(
            np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
            for one, other in zip(first, second, strict=True)
            for a, b in zip(one, other, strict=True)
            if isinstance(a, np.ndarray)
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
        self._any_ended = False
        self._warning = ""
        self._attributes = _Attributes(stepper, plain=False)
        self._parameters: dict[str, Any] = {}
        self._changes: list[tuple[int, dict[str, Any]]] = []  # after so many steps; -1: before the reset

    def reset(self, seed: int) -> Array:
        """Begins new episodes everywhere; returns their observations [N, ...]."""
        if self.due() and not self._any_ended:
            self._warning = (
                f"{len(self._actions) * self.stepper.num_envs:,} steps have passed and no episode has ended: "
                f"all {self.stepper.num_envs} were cut, and nothing that comes later in them is ever learnt. "
                f'Single environments are never cut (environment.backend = "gymnasium", '
                f'environment.vectorization_mode = "sync"); fewer environments (environment.num_envs) '
                f"are cut later"
            )
        self._seed, self._checks, self._any_ended = seed, 0.0, False
        self._actions.clear()
        self._changes = [(-1, self._parameters)] if self._parameters else []
        return super().reset(seed)

    def step(self, actions: Array) -> Transition:
        """Steps all environments with sampled actions [N, ...]."""
        self._actions.append(np.array(actions))
        transition = super().step(actions)
        self._checks += float(transition.rewards.sum())
        self._any_ended |= bool(transition.ended.any())
        return transition

    def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Sets attributes at once, and takes note of the step."""
        self._attributes.set(parameters)
        if self._parameters != parameters:
            self._parameters = dict(parameters)
            self._changes.append((len(self._actions), self._parameters))

    def warning(self) -> str:
        """Returns that everything was cut and nothing finished, if it has been so."""
        return self._warning

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
            **({"parameters": _json(self._changes)} if self._changes else {}),
        }

    def restore(self, state: Mapping[str, Array]) -> Array:
        """Plays all steps again."""
        changes = dict(_of_json(state["parameters"]) if "parameters" in state else ())
        self.set_parameters(changes.get(-1, {}))
        observations = self.reset(int(state["seed"]))
        for number, actions in enumerate(state["actions"]):
            if number in changes:
                self.set_parameters(changes[number])
            observations = self.step(actions).observations
        self.set_parameters(changes.get(len(state["actions"]), self._parameters))
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


def _json(value: Any) -> Array:
    """What JSON can hold, as an array of bytes."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8).copy()


def _of_json(array: Array) -> Any:
    return json.loads(array.tobytes().decode())


# Parameters ---------------------------------------------------------------------------------------


_OF_GYMNASIUM = {*dir(gym.vector.VectorEnv), *gym.vector.VectorEnv.__annotations__, "env", "closed"}
"""What every vector environment has, and what is no parameter of it."""


class _Attributes:
    """Attributes of a vector environment, or of what it wraps, that can be set.

    Args:
        stepper: The vector environment.
        plain: Whether only those can be that are plain data, and so are saved with it.
    """

    def __init__(self, stepper: Stepper, plain: bool):
        self._stepper, self._plain = stepper, plain
        self._originals: dict[str, tuple[Any, Any]] = {}

    def set(self, parameters: Mapping[str, Any]) -> None:
        """Sets attributes; those that were set before and are not named now get their own values."""
        for name in parameters:
            if name not in self._originals:
                owner = self._owner(name)
                self._originals[name] = owner, getattr(owner, name)
        for name, (owner, original) in self._originals.items():
            setattr(owner, name, parameters.get(name, original))

    def _owner(self, name: str) -> Any:
        found = next((each for each in _layers(self._stepper.envs) if name in vars(each)), None)
        if found is None:
            _refuse(f"the vector version of {self._stepper.name} has no attribute {name!r}")
        value = vars(found)[name]
        if name in _OF_GYMNASIUM or callable(value):
            _refuse(f"{name!r} of {self._stepper.name} is no parameter")
        if self._plain and (value is None or not isinstance(value, _PLAIN)):
            _refuse(f"{name!r} of {self._stepper.name} is a {type(value).__name__}, and no plain number")
        return found


def _refuse(why: str) -> None:
    if why:
        raise ValueError(why)


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
