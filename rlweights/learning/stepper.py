"""A Gymnasium vector environment as arrays: every autoreset mode alike, and errors that name it."""

import traceback
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from rlweights.errors import BrokenEnvironment
from rlweights.learning.environments.conformity import Misfit
from rlweights.learning.environments.replay import FAILURE, FAILURES, RECREATED, REPORTED, described
from rlweights.learning.spaces import Translation, one_batch
from rlweights.weights.arrays import Array


class Transition(NamedTuple):
    """One step of N environments."""

    observations: Array  # [N, ...], to act on next
    rewards: Array  # [N]
    terminated: Array  # [N] bool, the step ended its episode for good
    truncated: Array  # [N] bool, the step's episode was cut off
    ended: Array  # [N] bool, either of both
    valid: Array  # [N] bool, False where the step was a reset that ignored its action
    finals: dict[int, Array]  # where an episode was cut and `observations` shows the next one already
    told: dict[int, dict[str, Any]]  # what single environments tell of the episodes that ended


class Stepper:
    """Steps a vector environment: sampled actions in, encoded and checked arrays out.

    Under NEXT_STEP the step after an end is a reset that ignores its action, and the observation before it
    is the final one. Under SAME_STEP the final observation comes in the info. With autoreset disabled the
    environments that ended are reset here.

    Args:
        envs: The vector environment.
        translation: Between its spaces and arrays.
    """

    def __init__(self, envs: gym.vector.VectorEnv, translation: Translation):
        self.envs = envs
        self.num_envs = envs.num_envs
        self.name = _name(envs)
        self.encoder, self._decode = translation
        mode = envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)  # Gymnasium's own default
        self.mode = AutoresetMode(mode)
        self._all = np.ones(self.num_envs, bool)
        self._valid = self._all  # of the next step
        self.phases: np.ndarray | None = None
        """Phase of each running episode, int64 [N], where infos say one ("phase"): tasks change there."""
        self.remade: dict[int, dict[str, Any]] = {}
        """What is told of environments that the newest call made anew because their reset raised."""

    @property
    def separates(self) -> bool:
        """Whether the observation after an episode's end belongs to the next episode already."""
        return self.mode is not AutoresetMode.NEXT_STEP

    def reset(self, seed: int) -> Array:
        """Resets all environments by one seed and returns their observations [N, ...]."""
        self._valid = self._all
        return self._reset(seed=seed)

    def reset_some(self, which: Array) -> Array:
        """Begins the next episodes where `which` [N] says so; returns the observations [N, ...] of all."""
        self._valid = self._all
        return self._reset(options={"reset_mask": which})

    def restored(self, observations: Any) -> Array:
        """Takes over environments that stand in the middle of episodes.

        Args:
            observations: Theirs, as the vector environment gives them.

        Returns:
            The same, encoded [N, ...].
        """
        self._valid = self._all
        return self._encoded(observations)

    @property
    def valid(self) -> Array:
        """Whether the next step of each environment [N] will be one, and not a reset."""
        return self._valid

    @valid.setter
    def valid(self, value: Array) -> None:
        self._valid = self._all if value.all() else value

    def step(self, actions: Array) -> Transition:
        """Steps all environments with sampled actions [N, ...].

        Raises:
            BrokenEnvironment: If the environment fails, or returns what its spaces do not promise.
        """
        raw, rewards, terminated, truncated, info = self._asked("step", self._decode(actions))
        rewards = self._checked("rewards", rewards, "fiu", "numbers")
        self._note(info)
        terminated = self._checked("terminations", terminated, "b", "booleans")
        truncated = self._checked("truncations", truncated, "b", "booleans")
        ended = terminated | truncated
        observations = self._encoded(raw)
        valid, finals, told = self._valid, {}, {}
        if valid is not self._all:
            rewards = np.where(valid, rewards, 0.0)
        some = ended.any()
        self._valid = ~ended if some and not self.separates else self._all
        if some and self.separates:
            told = _told(info.get("final_info"))
            cut = np.flatnonzero(ended & ~terminated)
            if self.mode is AutoresetMode.SAME_STEP:
                finals = {int(n): self._final(info, int(n)) for n in cut}
            else:
                finals = {int(n): observations[n].copy() for n in cut}
                observations = self._reset(options={"reset_mask": ended})
        return Transition(observations, rewards, terminated, truncated, ended, valid, finals, told)

    def _reset(self, **arguments: Any) -> Array:
        raw, info = self._asked("reset", **arguments)
        self._note(info)
        return self._encoded(raw)

    def _note(self, info: Any) -> None:
        """Takes over what an info of the vector environment tells of episodes that begin."""
        if self.remade:
            self.remade = {}
        if not isinstance(info, dict) or not info:
            return
        if FAILURE in info:
            self.remade = _told(info)
        told = info.get("phase")
        if not isinstance(told, np.ndarray) or told.shape != (self.num_envs,) or told.dtype.kind not in "iu":
            return  # another thing of the same name
        if self.phases is None:
            self.phases = np.zeros(self.num_envs, np.int64)
        self.phases = np.where(info.get("_phase", self._all), told, self.phases)

    def call(self, name: str, *arguments: Any) -> Any:
        """Calls a method of every single environment; returns what each gives."""
        return self._asked("call", name, *arguments)

    def _asked(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Calls a method of the vector environment; whatever a user's environment raises becomes one line."""
        try:
            return getattr(self.envs, method)(*arguments, **named)
        except BrokenEnvironment:
            raise
        except Misfit as misfit:  # of a mask
            raise BrokenEnvironment(f"{self.name}: {method}() returned {misfit}") from None
        except FAILURES as error:
            details = "".join(traceback.format_exception(error))
            raise BrokenEnvironment(f"{self.name}: {method}() raised {described(error)}", details) from error

    def _final(self, info: dict[str, Any], n: int) -> Array:
        final = info.get("final_obs")
        if final is None or final[n] is None:
            raise BrokenEnvironment(f"{self.name}: autoreset in the same step, but no info['final_obs'][{n}]")
        # A copy: it is looked at after the rollout, and a vector may use the same array each time.
        return self._encoded(one_batch(final[n]), 1)[0].copy()

    def _encoded(self, observations: Any, size: int | None = None) -> Array:
        encoder = self.encoder
        try:
            encoded = encoder.encode(observations)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise self._misfit(observations) from error
        if encoded.shape != (size or self.num_envs, *encoder.shape) or encoded.dtype != encoder.dtype:
            raise self._misfit(observations)
        return encoded

    def _misfit(self, observations: Any) -> BrokenEnvironment:
        return BrokenEnvironment(
            f"{self.name}: observations of {self.num_envs} environments do not fit "
            f"{self.envs.single_observation_space}: {_shown(observations)}"
        )

    def _checked(self, what: str, values: Any, kinds: str, expected: str) -> Array:
        array = np.asarray(values)
        if array.shape != (self.num_envs,) or array.dtype.kind not in kinds:
            raise BrokenEnvironment(
                f"{self.name}: {what} must be {expected} of shape ({self.num_envs},): {_shown(values)}"
            )
        return array


_TOLD = {REPORTED: "reported", FAILURE: "failure", RECREATED: "recreated"}


def _told(final: Any) -> dict[int, dict[str, Any]]:
    """What `SeededEpisodes` tells of episodes that ended, by environment, out of Gymnasium's batches."""
    if not isinstance(final, dict):
        return {}
    told: dict[int, dict[str, Any]] = {}
    for key, name in _TOLD.items():
        for n in np.flatnonzero(final.get(f"_{key}", ())):
            value = final[key]
            told.setdefault(int(n), {})[name] = (
                {k: float(v[n]) for k, v in value.items() if f"_{k}" in value and value[f"_{k}"][n]}
                if isinstance(value, dict)
                else value[n]
            )
    return told


def _name(envs: gym.vector.VectorEnv) -> str:
    """The registered id, or the name of the class that was vectorized."""
    registered = getattr(envs.spec, "id", None)
    if registered:
        return registered
    vector: Any = envs.unwrapped
    if called := getattr(vector, "called", ""):
        return called
    single = getattr(vector, "envs", None)
    return type(single[0].unwrapped if single else vector).__name__


def _shown(value: Any) -> str:
    """What came, in a few words."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + ", ".join(_shown(each) for each in value) + ")"
    try:
        array = np.asarray(value)
    except ValueError:  # a ragged list
        return f"a {type(value).__name__} of unequal parts"
    values = np.array2string(array.ravel()[:4], threshold=4, separator=", ", precision=4)
    return f"{array.dtype} of shape {array.shape}, {values[:60]}"
