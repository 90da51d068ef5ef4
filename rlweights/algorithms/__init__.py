"""Policy-gradient algorithms: hyper-parameters and a loss each."""

from rlweights.algorithms.a2c import A2C
from rlweights.algorithms.base import Algorithm, Linear, Minibatch, at
from rlweights.algorithms.ppo import PPO
from rlweights.algorithms.reinforce import Reinforce

ALGORITHMS: dict[str, type[Algorithm]] = {"ppo": PPO, "a2c": A2C, "reinforce": Reinforce}
"""The algorithms by the name that agent files use."""

__all__ = ["A2C", "ALGORITHMS", "PPO", "Algorithm", "Linear", "Minibatch", "Reinforce", "at"]
