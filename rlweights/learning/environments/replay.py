"""Episodes that are functions of a seed and of actions: a running one can be played again elsewhere."""

import contextlib
import math
import re
import traceback
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from rlweights.errors import BrokenEnvironment
from rlweights.learning.environments.conformity import Conformity, Misfit
from rlweights.weights.arrays import Array

_LIBRARIES = re.compile(r"[/\\](site-packages|dist-packages|lib[/\\]python3\.\d+)[/\\]|^<frozen")
_PACKAGE = __file__.rpartition("learning")[0]

_NOTHING: dict[str, Any] = {}

FAILURES = (Exception, SystemExit, GeneratorExit)
"""What a user's environment raises when it fails; libraries of simulators call `sys.exit`."""

REPORTED, FAILURE, RECREATED = "rlweights.reported", "rlweights.failure", "rlweights.recreated"
"""Keys of infos, which no environment uses by chance."""


class RunningEpisode(NamedTuple):
    """An episode that has begun and not ended."""

    root: int
    """Seed of the environment, from which every episode has its own."""
    number: int
    """How many episodes the environment had begun before it."""
    seed: int
    actions: Array  # [steps, ...], as the environment took them
    total_reward: float
    checksum: int
    """Of the observation that it stands at."""
    steps_before: int = 0
    """Steps that the environment had made before it, where that counts (an attribute `steps_made`)."""
    recreated: int = 0
    """How often the environment was made anew before."""
    parameters: Mapping[str, Any] = {}
    """Attributes of the environment that were set for it, by name."""


class SeededEpisodes(gym.Wrapper):
    """One environment whose every episode has a seed of its own, and whose running episode can be replayed.

    Gymnasium seeds an environment once: its second episode depends on all that happened in the first. Here
    `reset` without a seed takes one that is a function of (seed, number of the episode), and the actions of
    the running episode are kept. Infos stay here, but for scalars in the last one of an episode: what nobody
    reads can break nothing.

    Args:
        env: The environment.
        index: Its place among its like, for errors.
        names: Scalars of the infos to report as means over an episode.
        role: What its like are called, for errors.
        again: Makes the environment anew after a `step` or `reset` that raised; None: the error ends the run.
        most: How often `again` may be called.
    """

    def __init__(
        self,
        env: gym.Env,
        index: int,
        names: Sequence[str] = (),
        role: str = "environment",
        again: Callable[[], gym.Env] | None = None,
        most: int = 0,
    ):
        super().__init__(env)
        self.parameters: Mapping[str, Any] = {}
        """Attributes of the environment to set when the next episode begins, by name; set from outside."""
        self._held: Mapping[str, Any] = {}  # the parameters of the running episode
        self._originals: dict[str, Any] = {}
        self.replayed: RunningEpisode | None = None
        """What `replay_episode` plays; set from outside, which reaches into processes."""
        self.phase: int | None = None
        """The phase of the running episode, where the info of `reset` tells one: its task may change."""
        self._counts_steps = False
        self._index = index
        self._names = tuple(names)
        self._role = role
        self._again, self._most = again, most
        self._recreated = 0
        self._conformity = Conformity(env.observation_space)
        self._root, self._number, self._seed = 0, -1, 0
        self._actions: Any = None
        self._length = 0
        self._steps_before = 0
        self._total = 0.0
        self._observation: Any = None
        self._sums: dict[str, float] = {}
        self._counts_steps = self._steps_made() >= 0

    def _steps_made(self) -> int:
        """What the environment counts in `steps_made`, if that is a number; -1: nothing."""
        with contextlib.suppress(Exception):  # a property of a user's environment
            count = self.env.get_wrapper_attr("steps_made")
            if isinstance(count, int | np.integer) and not isinstance(count, bool):
                return int(count)
        return -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Begins an episode: the first one of a seed, or the next one.

        Where the environment was made anew because this raised, the info says so at once: what waited for the
        episode's end would be lost with a process that is killed before.
        """
        if seed is None:
            self._number += 1
        else:
            self._root, self._number = seed, 0
        told: dict[str, Any] = {}
        while True:
            try:
                observation, info = self._begin(episode_seed(self._root, self._number), options)
                return observation, {**info, **told} if told else info
            except BrokenEnvironment as error:
                told = self._recreate(error)
                self._number += 1  # what this seed has led to is not tried again

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps the environment; the info says what is reported, in the step that ends the episode."""
        length, actions = self._length, self._actions
        if actions is None or length == len(actions):
            actions = self._make_room(action)
        actions[length] = action
        self._length = length + 1
        try:
            outcome = self.env.step(action)
        except Misfit as misfit:  # of a mask
            raise self._returned("step", str(misfit)) from None
        except FAILURES as error:
            told = self._recreate(self._raised("step", error))
            return copied(self._observation), 0.0, False, True, told
        try:
            observation, reward, terminated, truncated, info = outcome
        except (TypeError, ValueError):
            raise self._returned("step", _parts(outcome)) from None
        try:
            self._observation = self._conformity.observation(observation)
            if self._again is not None:  # a step that fails may have begun to write into the same array
                self._observation = copied(self._observation)
            if type(reward) is not float:
                reward = self._conformity.reward(reward)
            if type(terminated) is not bool or type(truncated) is not bool:
                terminated = self._conformity.end("terminated", terminated)
                truncated = self._conformity.end("truncated", truncated)
        except Misfit as misfit:
            raise self._returned("step", str(misfit)) from None
        self._total += reward
        if self._names and isinstance(info, Mapping):
            for name in self._names:
                self._sums[name] = self._sums.get(name, 0.0) + _number(info.get(name))
        if not (terminated or truncated):
            return self._observation, reward, terminated, truncated, _NOTHING
        # A copy: an environment may give the same array again, changed by the reset that follows.
        self._observation = copied(self._observation)
        reported = self._reported(info if isinstance(info, Mapping) else {})
        return self._observation, reward, terminated, truncated, {REPORTED: reported}

    def close(self) -> None:
        """Closes the environment; what it raises then can no longer harm anything."""
        with contextlib.suppress(Exception):
            super().close()

    def running_episode(self) -> RunningEpisode:
        """Returns all that it takes to play the running episode again."""
        actions = np.zeros((0,), np.int64) if self._actions is None else self._actions[: self._length].copy()
        checksum = _checksum(self._observation)
        return RunningEpisode(
            self._root,
            self._number,
            self._seed,
            actions,
            self._total,
            checksum,
            self._steps_before,
            self._recreated,
            dict(self._held),
        )

    def refused_parameter(self, name: str) -> str:
        """Returns why an attribute of the environment cannot be set; nothing if it can."""
        if not self.env.has_wrapper_attr(name):
            return f"{self._name} has no attribute {name!r}"
        fixed = (
            hasattr(gym.Env, name)
            or name in gym.Env.__annotations__
            or callable(self.env.get_wrapper_attr(name))
        )
        return f"{name!r} of {self._name} is no parameter" if fixed else ""

    def replay_episode(self) -> Any:
        """Plays the episode `replayed` again and returns the observation that it then stands at.

        An environment that raises then is made anew as often as one that is trained in, and is played in from
        the seed again; that counts for nothing later on, since it concerns the process and not the run.

        Raises:
            BrokenEnvironment: If the environment does not come out where it was.
        """
        episode, self.replayed = self.replayed, None
        assert episode is not None
        self._root, self._number, self._recreated = episode.root, episode.number, 0
        while True:
            try:
                observation = self._played_again(episode)
                self._recreated = episode.recreated
                return observation
            except BrokenEnvironment as error:
                self._recreate(error)

    def _played_again(self, episode: RunningEpisode) -> Any:
        if self._counts_steps:
            self.env.set_wrapper_attr("steps_made", episode.steps_before)
        wanted, self.parameters = self.parameters, episode.parameters
        observation, _ = self._begin(episode.seed)
        self.parameters = wanted
        for step, action in enumerate(episode.actions):
            observation, _, terminated, truncated, told = self.step(action)
            if FAILURE in told:
                return self._played_again(episode)
            if terminated or truncated:
                raise self._elsewhere(episode, f"it ended at step {step + 1}")
        if not np.array_equal(self._total, episode.total_reward, equal_nan=True):
            raise self._elsewhere(episode, f"its return is {self._total:g}, and was {episode.total_reward:g}")
        if _checksum(observation) != episode.checksum:
            raise self._elsewhere(episode, "its observation is another one")
        return observation

    def _begin(self, seed: int, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        self._seed, self._length, self._total, self._sums = seed, 0, 0.0, {}
        try:
            self._steps_before = self._steps_made() if self._counts_steps else 0
            self._hold_parameters()
            outcome = self.env.reset(seed=seed, options=options)
        except Misfit as misfit:  # of a mask
            raise self._returned("reset", str(misfit)) from None
        except FAILURES as error:
            raise self._raised("reset", error) from error
        if not (isinstance(outcome, tuple) and len(outcome) == 2 and isinstance(outcome[1], dict)):
            came = _parts(outcome)
            if isinstance(outcome, tuple) and len(outcome) == 2:
                came = f"an observation and a {type(outcome[1]).__name__}"
            raise self._returned("reset", f"{came}: expected an observation and a dict")
        try:
            self._observation = self._conformity.observation(outcome[0])
        except Misfit as misfit:
            raise self._returned("reset", str(misfit)) from None
        phase = outcome[1].get("phase")
        if not isinstance(phase, int | np.integer) or isinstance(phase, bool):
            return self._observation, _NOTHING
        self.phase = int(phase)
        return self._observation, {"phase": self.phase}

    def _hold_parameters(self) -> None:
        """Sets the parameters of the episode that begins; those wanted no more get their own values."""
        for name in self._held.keys() - self.parameters.keys():
            self.env.set_wrapper_attr(name, self._originals[name])
        for name, value in self.parameters.items():
            if name not in self._originals:
                self._originals[name] = self.env.get_wrapper_attr(name)
            self.env.set_wrapper_attr(name, value)
        self._held = self.parameters

    def _recreate(self, error: BrokenEnvironment) -> dict[str, Any]:
        """Makes the environment anew after it raised, if that is wanted and has not been done too often.

        Returns:
            What is told of it.
        """
        if self._again is None or error.__cause__ is None:  # what it returned would not change
            raise error
        if self._recreated >= self._most:
            text = f"{error}; it was made anew {self._most} times before (environment.max_recreations)"
            raise BrokenEnvironment(text, error.details) from error
        self._recreated += 1
        with contextlib.suppress(Exception):
            self.env.close()
        try:
            self.env = self._again()
            if self._counts_steps:
                self.env.set_wrapper_attr("steps_made", self._steps_before + self._length)
        except FAILURES as second:
            raise self._raised("making it anew after an error", second) from second
        return {FAILURE: str(error), RECREATED: self._recreated}

    def _make_room(self, action: Any) -> Any:
        if self._actions is None:
            array = np.asarray(action)
            self._actions = np.empty((256, *array.shape), array.dtype)
        else:
            self._actions = np.concatenate([self._actions, np.empty_like(self._actions)])
        return self._actions

    def _reported(self, info: Mapping[Any, Any]) -> dict[str, float]:
        """The scalars of the last info of an episode, and the means of those that are asked for by name."""
        found = {str(key): _number(value) for key, value in info.items() if _is_scalar(value)}
        found |= {name: total / self._length for name, total in self._sums.items()}
        named = {k: value for k, value in found.items() if k.strip() and k.isprintable()}
        return {k: value for k, value in named.items() if not k.startswith("_") and math.isfinite(value)}

    @property
    def _name(self) -> str:
        return getattr(self.spec, "id", None) or type(self.unwrapped).__name__

    def _raised(self, method: str, error: BaseException) -> BrokenEnvironment:
        details = "".join(traceback.format_exception(error))
        called = f"{method}()" if method.isidentifier() else method
        text = f"{self._name}: {called} of {self._role} {self._index} raised {described(error)}"
        failure = BrokenEnvironment(text, details)
        failure.__cause__ = error
        return failure

    def _returned(self, method: str, what: str) -> BrokenEnvironment:
        return BrokenEnvironment(f"{self._name}: {method}() of {self._role} {self._index} returned {what}")

    def _elsewhere(self, episode: RunningEpisode, how: str) -> BrokenEnvironment:
        return BrokenEnvironment(
            f"{self._name}: {self._role} {self._index} cannot be resumed: an episode was played again, "
            f"{len(episode.actions)} steps from its seed, and {how}. What it does must follow from its seed "
            f"and the actions alone"
        )


def episode_seed(root: int, number: int) -> int:
    """Returns the seed of an episode: the environment's own for the first one, then independent ones."""
    if number == 0:
        return root
    return int(np.random.SeedSequence([root, number]).generate_state(1, np.uint32)[0] >> 1)


def described(error: BaseException) -> str:
    """Returns an error in one line: its type, its message, and the deepest line that is the user's own."""
    try:
        said = str(error)
    except Exception:  # an error of a user's own may have no words
        said = ""
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if not _LIBRARIES.search(frame.filename) and not frame.filename.startswith(_PACKAGE):
            file = frame.filename.replace("\\", "/").rpartition("/")[2]
            place = f" ({file}, line {frame.lineno}, in {frame.name}: {frame.line})"
    return " ".join(f"{text}{place}".split())


def copied(observation: Any) -> Any:
    """Returns an observation that does not change any more."""
    if isinstance(observation, dict):
        return {key: copied(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(map(copied, observation))
    return observation.copy() if isinstance(observation, np.ndarray) else observation


def _checksum(observation: Any) -> int:
    """A number that two observations of any space share only by chance."""
    if isinstance(observation, dict):
        parts = [(str(key), observation[key]) for key in sorted(observation, key=str)]
    elif isinstance(observation, tuple):
        parts = [(str(i), value) for i, value in enumerate(observation)]
    else:
        return zlib.crc32(np.ascontiguousarray(observation).tobytes())
    return zlib.crc32("".join(f"{key}:{_checksum(value)};" for key, value in parts).encode())


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float | np.bool_ | np.number) or (
        isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "biuf"
    )


def _number(value: Any) -> float:
    """A scalar as a float; 0 for what is none: it is nowhere promised that an info is a number."""
    try:
        return float(value) if _is_scalar(value) else 0.0
    except OverflowError:  # an int may have any number of digits
        return math.inf


def _parts(outcome: Any) -> str:
    """What `step` or `reset` gave, in words."""
    if isinstance(outcome, tuple):
        expected = ": expected observation, reward, terminated, truncated, info" if len(outcome) != 2 else ""
        return f"{len(outcome)} values{expected}"
    return f"a {type(outcome).__name__}"
