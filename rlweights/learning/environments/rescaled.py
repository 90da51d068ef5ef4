"""A TensorFlow environment whose actions come in half ranges around the middle of its bounds."""

from rlweights.learning.environments.base import Draw, Environment
from rlweights.learning.environments.wrapper import EnvironmentWrapper
from rlweights.weights.arrays import Array, Tensor


class Rescaled(EnvironmentWrapper):
    """Another environment, for a policy that works in half ranges: `environment.rescale_actions`.

    Args:
        environment: The environment.
        middle: Of the bounds of each dimension [A].
        half: Half the range of each dimension [A].
    """

    def __init__(self, environment: Environment, middle: Array, half: Array):
        super().__init__(environment)
        self._middle, self._half = middle, half

    def step(self, state: Tensor, action: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """Advances every environment by a step with actions [N, A] in half ranges around the middle."""
        return self.environment.step(state, action * self._half + self._middle, draw)
