"""Policy-gradient algorithms: hyper-parameters and a loss each."""

from rlweights.learning.algorithms.a2c import A2C
from rlweights.learning.algorithms.base import Algorithm, Linear, at
from rlweights.learning.algorithms.ppo import PPO
from rlweights.learning.algorithms.reinforce import Reinforce

ALGORITHMS: dict[str, type[Algorithm]] = {"ppo": PPO, "a2c": A2C, "reinforce": Reinforce}
"""The algorithms by the name that agent files use."""

__all__ = ["A2C", "ALGORITHMS", "PPO", "Algorithm", "Linear", "Reinforce", "at"]
