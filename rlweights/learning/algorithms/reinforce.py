"""REINFORCE with a learned baseline."""

from typing import Literal

from pydantic import Field

from rlweights.learning.algorithms.base import Algorithm, Count, Fraction, Linear, Positive
from rlweights.learning.batch import Minibatch
from rlweights.weights.arrays import Scalar, Tensor


class Reinforce(Algorithm):
    """REINFORCE: the gradient of log pi(a|s) weighted by the return that followed, less a baseline.

    Loss: -(G_t - b(s_t)) log pi(a_t | s_t), with the discounted return G_t and a learned baseline b. Where a
    rollout ends before its episode does, b also stands in for the rest of the return.

    Reference: Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
    Learning", 1992, https://doi.org/10.1007/BF00992696.
    """

    name: Literal["reinforce"] = "reinforce"
    n_steps: Count = Field(default=256, description="Steps of each environment in one rollout.")
    gae_lambda: Fraction = Field(default=1.0, description="1 gives the plain returns of REINFORCE.")
    learning_rate: Positive | Linear = Field(default=2e-3, description="Learning rate.")

    def policy_loss(
        self, log_prob: Tensor, batch: Minibatch, progress: Scalar
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns -A log pi(a|s)."""
        return -batch.advantages * log_prob, {}
