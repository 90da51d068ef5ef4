"""Where an agent's masks of allowed actions come from: what its file says, or what the environment offers."""

from typing import Any

import gymnasium as gym

from rlweights.learning.environments.action_masks import (
    KEY,
    METHOD,
    NAMES,
    action_counts,
    offered,
    offered_at_once,
)
from rlweights.learning.environments.base import Draw, Environment
from rlweights.running.config.messages import refusal
from rlweights.running.config.schema import EnvironmentSection

SETTING = "environment.action_mask"


class MaskChoice:
    """Chooses the source of masks, or refuses it.

    Args:
        section: What the agent file says of its environment.
        source: The file or option that it came from, for errors.
    """

    def __init__(self, section: EnvironmentSection, source: str):
        self._section, self._source = section, source

    def of(self, env: Any, action_space: gym.Space) -> str:
        """Returns the source of an environment's masks, single or vector; "none" without them.

        Raises:
            ConfigError: If actions are to be masked that cannot be.
        """
        chosen = self._section.action_mask
        if chosen == "none":
            return "none"
        if not action_counts(action_space):
            found = chosen if chosen != "auto" else offered_at_once(env)
            if found is None:
                return "none"
            offers = "" if chosen != "auto" else f"{self._section.id} offers {NAMES[found]}, and "
            raise self._refused(
                f"{offers}only discrete and multi-discrete actions have masks, not {action_space}; "
                f'"none" ignores it'
            )
        return chosen if chosen != "auto" else offered(env) or "none"

    def of_tensorflow(self, environment: Environment) -> str:
        """Returns "method" if a TensorFlow environment has masks that are wanted, else "none".

        Raises:
            ConfigError: If they are wanted from somewhere else, or do not fit the actions.
        """
        chosen, space = self._section.action_mask, environment.action_space
        if chosen == "none":
            return "none"
        if chosen in ("info", "observation"):
            raise self._refused('a TensorFlow environment has a method action_mask(state): takes "method"')
        mask = environment.action_mask(environment.reset(1, Draw(0, 0)))
        if mask is None:
            if chosen == "method":
                raise self._refused(f"{environment.id} has no method action_mask(state)")
            return "none"
        size = sum(action_counts(space))
        if not size:
            raise self._refused(f'only discrete actions have masks, not {space}; "none" ignores it')
        if tuple(mask.shape) != (1, size) or mask.dtype != "bool":
            raise self._refused(
                f"action_mask(state) of {environment.id} returned {mask.dtype.name} of shape "
                f"{tuple(mask.shape)} for one state: expected bool of shape (1, {size})"
            )
        return "method"

    def of_twin(self, env: gym.Env) -> str:
        """Returns the source of masks in Gymnasium's version of a TensorFlow environment that has them.

        Raises:
            ConfigError: If it offers none.
        """
        found = offered(env)
        if found is None:
            raise self._refused(
                f"agents of {self._section.id} are evaluated in Gymnasium's environment of this name, which "
                f'offers neither info["{KEY}"] nor {METHOD}(); "none" trains without masks'
            )
        return found

    def _refused(self, why: str) -> Exception:
        return refusal(self._source, SETTING, self._section.action_mask, why)
