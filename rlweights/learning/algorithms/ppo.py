"""Proximal policy optimization."""

from typing import Literal

import tensorflow as tf
from pydantic import Field

from rlweights.learning.algorithms.base import Algorithm, Count, Linear, Positive, at
from rlweights.learning.batch import Minibatch
from rlweights.weights.arrays import Scalar, Tensor


class PPO(Algorithm):
    """PPO with the clipped objective: several epochs of minibatches on each rollout.

    Loss: -min(r A, clip(r, 1 - c, 1 + c) A) with r = pi(a|s) / pi_old(a|s), where pi_old is the policy that
    acted: under parameter noise both are taken at the noisy weights of the iteration.

    Reference: Schulman et al., "Proximal Policy Optimization Algorithms", 2017,
    https://arxiv.org/abs/1707.06347, eq. 7.
    """

    name: Literal["ppo"] = "ppo"
    n_epochs: Count = Field(default=4, description="Passes over a rollout.")
    batch_size: Count | None = Field(
        default=256, description="Size of a minibatch; the whole rollout if unset."
    )
    clip_range: Positive | Linear = Field(default=0.2, description="Clipping of the probability ratio.")
    clip_range_vf: Positive | Linear | None = Field(
        default=None, description="Clipping of the value's change."
    )
    target_kl: Positive | None = Field(
        default=None, description="Skip the rest of an update beyond 1.5 times this."
    )

    @property
    def target_divergence(self) -> float | None:
        """1.5 times `target_kl`, as Stable-Baselines3 has it."""
        return None if self.target_kl is None else 1.5 * self.target_kl

    def policy_loss(
        self, log_prob: Tensor, batch: Minibatch, progress: Scalar
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the clipped objective, and the share of samples whose ratio is outside the range."""
        clip = at(self.clip_range, progress)
        ratio = tf.exp(log_prob - batch.old_log_prob)
        clipped = tf.clip_by_value(ratio, 1.0 - clip, 1.0 + clip)
        loss = -tf.minimum(ratio * batch.advantages, clipped * batch.advantages)
        return loss, {"clip_fraction": tf.cast(tf.abs(ratio - 1.0) > clip, tf.float32)}

    def value_loss(self, values: Tensor, batch: Minibatch, progress: Scalar) -> Tensor:
        """Returns the squared error, of values that moved at most `clip_range_vf` if that is set."""
        if self.clip_range_vf is not None:
            clip = at(self.clip_range_vf, progress)
            values = batch.old_values + tf.clip_by_value(values - batch.old_values, -clip, clip)
        return super().value_loss(values, batch, progress)
