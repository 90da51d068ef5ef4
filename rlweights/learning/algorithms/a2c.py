"""Advantage actor-critic, synchronous."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from rlweights.learning.algorithms.base import Algorithm, Count, Fraction, Linear, Positive
from rlweights.learning.batch import Minibatch
from rlweights.weights.arrays import Scalar, Tensor


class A2C(Algorithm):
    """A2C: one optimizer step per short rollout, on bootstrapped advantages.

    Loss: -A_t log pi(a_t | s_t) + vf_coef (G_t - V(s_t))^2 - ent_coef H(pi).

    Reference: Mnih et al., "Asynchronous Methods for Deep Reinforcement Learning", 2016,
    https://arxiv.org/abs/1602.01783, in its synchronous form.
    """

    default_optimizer: ClassVar[dict[str, Any]] = {"name": "rmsprop", "rho": 0.99, "epsilon": 1e-5}

    name: Literal["a2c"] = "a2c"
    n_steps: Count = Field(default=5, description="Steps of each environment in one rollout.")
    gae_lambda: Fraction = Field(default=1.0, description="1 gives n-step advantages.")
    learning_rate: Positive | Linear = Field(default=7e-4, description="Learning rate.")
    normalize_advantage: bool = Field(default=False, description="Normalize the advantages of each rollout.")

    def policy_loss(
        self, log_prob: Tensor, batch: Minibatch, progress: Scalar
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns -A log pi(a|s)."""
        return -batch.advantages * log_prob, {}
