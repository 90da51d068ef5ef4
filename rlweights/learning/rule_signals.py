"""The feedback that rules ask the learner for, written in the graph."""

from collections.abc import Mapping

import tensorflow as tf

from rlweights.learning.distributions import Distribution
from rlweights.learning.networks import ActorCritic
from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.diagnostics import dormant_scores
from rlweights.weights.optimizer import InterventionOptimizer

_SCORE = "dormant_score/"


class RuleSignals:
    """Writes to the feedback board of an optimizer, and only what is on it.

    Args:
        optimizer: The agent's optimizer, built.
        networks: Policy and value network.
        distribution: Of the actions, over the policy's output.
    """

    def __init__(self, optimizer: InterventionOptimizer, networks: ActorCritic, distribution: Distribution):
        self._optimizer = optimizer
        self._board = optimizer.feedback
        self._networks = networks
        self._distribution = distribution

    def acted(self, observations: Tensor, parameters: Tensor, valid: Tensor) -> None:
        """Writes how far the policy that has acted is from the clean one.

        Args:
            observations: [B, ...], those of the rollout.
            parameters: [B, P], the outputs of the acting policy for them.
            valid: [B], 0 where a sample does not count.
        """
        if "policy_distance" not in self._board:
            return
        self._optimizer.restore_clean()
        clean = self._networks.policy(observations)
        self._optimizer.put_back()
        distance = self._distribution.distance(clean, parameters, valid)
        _assign_finite(self._board["policy_distance"], distance)

    def updated(self, metrics: Mapping[str, Scalar], observations: Tensor, progress: Scalar) -> None:
        """Writes scalars of the update by their names, dormant scores, and the progress.

        Args:
            metrics: Scalars by tag; "train/approx_kl" goes by "approx_kl".
            observations: [B, ...], those of the rollout.
            progress: Scalar in [0, 1], that of the next iteration, whose rules will read it.
        """
        if any(name.startswith(_SCORE) for name in self._board):
            for layer, activations in self._networks.activations(observations).items():
                if _SCORE + layer in self._board:
                    _assign_finite(self._board[_SCORE + layer], dormant_scores(activations))
        for tag, value in metrics.items():
            name = tag.rpartition("/")[2]
            if name in self._board:
                self._board[name].assign(value)
        if "progress" in self._board:
            self._board["progress"].assign(progress)


def _assign_finite(variable: Variable, value: Tensor) -> None:
    """Assigns what is finite and keeps the rest: nothing else may get into a checkpoint."""
    variable.assign(tf.where(tf.math.is_finite(value), value, variable.value))
