"""Environments that say which actions are allowed: their masks become a part of their observations.

Shapes: N environments; P actions, of a multi-discrete space those of all its parts, concatenated.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from rlweights.learning.environments.conformity import Misfit
from rlweights.weights.arrays import Array

KEY, METHOD = "action_mask", "action_masks"
"""Key of infos and of observations, and name of a method, by which environments tell masks."""

Source = Literal["info", "method", "observation"]
"""Where a mask comes from: `info["action_mask"]`, `action_masks()`, or the observation's "action_mask"."""

NAMES: dict[str, str] = {
    "info": f'info["{KEY}"]',
    "method": f"{METHOD}()",
    "observation": f'observation["{KEY}"]',
}
"""What messages call the sources."""


def action_counts(space: gym.Space) -> tuple[int, ...]:
    """Returns how many actions each part of an action space has; () where actions cannot be masked."""
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(int(n) for n in np.ravel(space.nvec))
    return ()


def masked_space(observation: gym.Space, action: gym.Space, source: Source) -> spaces.Dict:
    """Returns the space of {"observation": ..., "action_mask": ...}, of an environment's own spaces."""
    return space_with_masks(unmasked_space(observation, source), sum(action_counts(action)))


def space_with_masks(observation: gym.Space, size: int) -> spaces.Dict:
    """Returns the space of {"observation": ..., "action_mask": ...}, of what networks see and P entries."""
    return spaces.Dict({"observation": observation, KEY: spaces.Box(0, 1, (size,), np.int8)})


def unmasked_space(observation: gym.Space, source: str) -> gym.Space:
    """Returns what networks see of an observation space: all of it, but for a mask that is in it."""
    if source != "observation" or not isinstance(observation, spaces.Dict):
        return observation
    return spaces.Dict({key: space for key, space in observation.spaces.items() if key != KEY})


def offered(env: Any) -> Source | None:
    """Returns where an environment, single or vector, offers masks; None if nowhere.

    A mask in the observation is taken before one in the info, and that before a method. To see its info the
    environment is reset; what it raises then is left to those who begin to train in it.
    """
    at_once = offered_at_once(env)
    if at_once == "observation":
        return at_once
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, info = env.reset(seed=0)
        return "info" if KEY in info else at_once
    except Exception:
        return at_once


def offered_at_once(env: Any) -> Source | None:
    """Returns where an environment offers masks, as far as it can be known without a reset."""
    observed = env.observation_space if isinstance(env, gym.Env) else env.single_observation_space
    if isinstance(observed, spaces.Dict) and KEY in observed.spaces:
        return "observation"
    return "method" if callable(_method(env)) else None


def _method(env: Any) -> Any:
    if not isinstance(env, gym.Env):
        return getattr(env.unwrapped, METHOD, None)
    return env.get_wrapper_attr(METHOD) if env.has_wrapper_attr(METHOD) else None


def random_action(space: Any, mask: Array) -> Any:
    """Returns an action that a mask [P] allows, drawn uniformly by the space's own generator."""
    parts = np.split(mask, np.cumsum(action_counts(space))[:-1])
    drawn = [int(space.np_random.choice(np.flatnonzero(part))) for part in parts]
    if isinstance(space, spaces.Discrete):
        return space.dtype.type(drawn[0] + space.start)
    return np.reshape(drawn, space.shape).astype(space.dtype) + space.start


class MaskReader:
    """Reads masks, in every form in which environments tell them.

    Args:
        space: Of the actions.
        name: What errors call where they come from.
    """

    def __init__(self, space: gym.Space, name: str):
        self.counts = action_counts(space)
        self.size = sum(self.counts)
        self._name = name
        self._starts = np.cumsum([0, *self.counts[:-1]])

    def read(self, value: Any) -> Array:
        """Returns one mask [P], int8.

        Args:
            value: An array [P], or a sequence of one array for each part, as Gymnasium's own masks are.

        Raises:
            Misfit: If it has another shape, entries other than 0 and 1, or allows no action.
        """
        if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype != object:
            found = value
        else:
            found = self._joined(value)
        if found.shape != (self.size,):
            raise Misfit(
                f"{self._name} of shape {found.shape}: expected {self.size} entries, "
                f"{' + '.join(map(str, self.counts))}, one for each action"
            )
        return self._checked(found[None])[0]

    def read_all(self, values: Any, present: Array) -> Array:
        """Returns masks [N, P], int8; ones where none is `present` [N]. Arguments and errors as of `read`."""
        if isinstance(values, np.ndarray) and values.shape == (len(present), self.size):
            masks = self._checked(np.where(present[:, None], values, 1)) if values.dtype != object else None
            if masks is not None:
                return masks
        masks = np.ones((len(present), self.size), np.int8)
        for n in np.flatnonzero(present):
            masks[n] = self.read(values[n])
        return masks

    def _joined(self, value: Any) -> Array:
        """A mask that comes in parts: a tuple, a list or rows, of parts of parts where the space has rows."""
        leaves: list[Array] = []

        def walk(each: Any) -> None:
            nested = isinstance(each, Sequence) and not isinstance(each, str)
            deep = isinstance(each, np.ndarray) and (each.dtype == object or each.ndim > 1)
            if (nested and any(isinstance(x, Sequence | np.ndarray) for x in each)) or deep:
                for x in each:
                    walk(x)
            else:
                leaves.append(np.asarray(each))

        walk(value)
        if len(leaves) == 1:
            return leaves[0]
        shapes = [leaf.shape for leaf in leaves]
        if shapes != [(n,) for n in self.counts]:
            raise Misfit(
                f"{self._name} of parts of the shapes {', '.join(map(str, shapes)) or 'none'}: "
                f"expected {', '.join(f'({n},)' for n in self.counts)}"
            )
        return np.concatenate(leaves)

    def _checked(self, masks: Array) -> Array:
        if masks.dtype.kind not in "biuf":
            raise Misfit(f"{self._name} of {masks.dtype}, and no numbers")
        if not ((masks == 0) | (masks == 1)).all():
            raise Misfit(f"{self._name} with entries other than 0 and 1: {_shown(masks)}")
        found = masks.astype(np.int8)
        if not np.add.reduceat(found, self._starts, axis=1).all():
            raise Misfit(f"{self._name} that allows no action: {_shown(found)}")
        return found


class MaskedObservations(gym.Wrapper):
    """One environment whose observations are {"observation": ..., "action_mask": ...}.

    The mask of the last observation of an episode is all ones: nothing is chosen there, and many environments
    then allow nothing.

    Args:
        env: The environment.
        source: Where it tells its masks.
    """

    def __init__(self, env: gym.Env, source: Source):
        super().__init__(env)
        self.observation_space = masked_space(env.observation_space, env.action_space, source)
        self.source = source
        self._reader = MaskReader(env.action_space, NAMES[source])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode; what is no observation and info goes on as it came, for others to refuse."""
        outcome = self.env.reset(seed=seed, options=options)
        if not (isinstance(outcome, tuple) and len(outcome) == 2):
            return outcome
        observation, info = outcome
        return self._masked(observation, info), info

    def step(self, action: Any) -> Any:
        """Steps the environment; what are no five values go on as they came."""
        outcome: Any = self.env.step(action)
        if not (isinstance(outcome, tuple) and len(outcome) == 5):
            return outcome
        observation, reward, terminated, truncated, info = outcome
        ended = bool(terminated) or bool(truncated)
        return self._masked(observation, info, ended), reward, terminated, truncated, info

    def _masked(self, observation: Any, info: Any, ended: bool = False) -> dict[str, Any]:
        ones = np.ones(self._reader.size, np.int8)
        mask = ones if ended else self._reader.read(self._told(observation, info))
        return {"observation": _without_mask(observation, self.source), KEY: mask}

    def _told(self, observation: Any, info: Any) -> Any:
        if self.source == "method":
            if not self.env.has_wrapper_attr(METHOD):
                raise Misfit(f"no mask: it has no method {NAMES['method']}")
            return self.env.get_wrapper_attr(METHOD)()
        return _entry(observation if self.source == "observation" else info, self.source)


class MaskedVector(gym.vector.VectorWrapper):
    """A vector environment whose observations are {"observation": ..., "action_mask": ...}.

    Args:
        envs: The environments; their infos tell masks [N, P], and `_action_mask` [N] which of them.
        source: Where they tell their masks.
    """

    def __init__(self, envs: Any, source: Source):
        super().__init__(envs)
        observed, acted = envs.single_observation_space, envs.single_action_space
        self.single_observation_space = masked_space(observed, acted, source)
        self.observation_space = batch_space(self.single_observation_space, envs.num_envs)
        self._source = source
        self._reader = MaskReader(acted, NAMES[source])
        mode = envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)  # Gymnasium's own default
        self._same_step = AutoresetMode(mode) is AutoresetMode.SAME_STEP
        self._masks = np.ones((envs.num_envs, self._reader.size), np.int8)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Begins episodes: all, or those of `options["reset_mask"]`, where the others keep their masks."""
        observations, info = self.env.reset(seed=seed, options=options)
        begun = np.ones(len(self._masks), bool)
        if options and "reset_mask" in options:
            begun = np.asarray(options["reset_mask"], bool)
        return self._masked(observations, info, begun), info

    def step(self, actions: Any) -> Any:
        """Steps all environments; where an episode has ended and not begun anew, the mask is all ones."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        ended = np.asarray(terminated, bool) | np.asarray(truncated, bool)
        if self._same_step and ended.any() and info.get("final_obs") is not None:
            finals = np.empty(len(ended), object)
            for n in np.flatnonzero(ended):
                final = _without_mask(info["final_obs"][n], self._source)
                finals[n] = {"observation": final, KEY: np.ones(self._reader.size, np.int8)}
            info = info | {"final_obs": finals}
        self._masks[ended] = 1
        acts = np.ones(len(ended), bool) if self._same_step else ~ended
        return self._masked(observations, info, acts), rewards, terminated, truncated, info

    def _masked(self, observations: Any, info: Any, wanted: Array) -> dict[str, Any]:
        if self._source == "method":
            values = _method(self.env)()
        else:
            values = _entry(observations if self._source == "observation" else info, self._source)
        if self._source == "info":
            missing = wanted & ~np.asarray(info.get(f"_{KEY}", wanted), bool)
            if missing.any():
                raise Misfit(f"no {NAMES['info']} of environment {int(np.flatnonzero(missing)[0])}")
        self._masks = np.where(wanted[:, None], self._reader.read_all(values, wanted), self._masks)
        return {"observation": _without_mask(observations, self._source), KEY: self._masks}


def _entry(holder: Any, source: str) -> Any:
    if not isinstance(holder, Mapping) or KEY not in holder:
        raise Misfit(f"no {NAMES[source]}")
    return holder[KEY]


def _without_mask(observation: Any, source: str) -> Any:
    if source != "observation":
        return observation
    return {key: value for key, value in observation.items() if key != KEY}


def _shown(masks: Array) -> str:
    return " ".join(np.array2string(np.squeeze(masks), threshold=16).split())
