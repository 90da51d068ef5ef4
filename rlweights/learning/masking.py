"""Action masks: which actions a policy may choose, behind the numbers of each encoded observation.

A mask travels as part of the observation that it belongs to, so that whatever holds observations holds masks:
rollouts, checkpoints, probes, evaluations. Networks look at what stands before it, and the policy's output is
masked before it becomes a distribution: log-probabilities, entropies, divergences and samplers stay the same.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from rlweights.learning.environments.action_masks import KEY, space_with_masks
from rlweights.learning.spaces import ObservationEncoder
from rlweights.weights.arrays import Array, Scalar, Tensor
from rlweights.weights.diagnostics import masked_mean

FORBIDDEN = -1e8
"""Logit of an action that is not allowed. With -inf, p log p and its gradient would be 0 * inf = NaN."""


@dataclasses.dataclass(frozen=True)
class Masking:
    """Where the mask lies in encoded observations [..., D + P].

    Attributes:
        shape: Shape of what the networks see; D is its product.
        counts: Actions of each part of the action space; P is their sum.
    """

    shape: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def columns(self) -> int:
        """Numbers D of an observation before its mask."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Entries P of a mask, one for each logit."""
        return sum(self.counts)

    @property
    def whole(self) -> tuple[int]:
        """Shape of an encoded observation with its mask."""
        return (self.columns + self.size,)

    def seen(self, observations: Any) -> Any:
        """Returns what the networks see: [..., D], images [B, *shape]; of arrays or tensors."""
        part = observations[..., : self.columns]
        if len(self.shape) == 1:
            return part
        if isinstance(part, np.ndarray):
            return part.reshape(-1, *self.shape)
        return ops.reshape(part, (-1, *self.shape))

    def allowed(self, observations: Any) -> Any:
        """Returns which actions are allowed [..., P]; of arrays or tensors."""
        return observations[..., self.columns :] > 0

    def applied(self, parameters: Tensor, observations: Tensor) -> Tensor:
        """Returns logits [..., P] with FORBIDDEN in the place of what is not allowed."""
        return tf.where(self.allowed(observations), parameters, tf.cast(FORBIDDEN, parameters.dtype))

    def applied_numpy(self, parameters: Array, observations: Array) -> Array:
        """Returns `applied`, for NumPy arrays."""
        return np.where(self.allowed(observations), parameters, np.float32(FORBIDDEN))

    def choices(self, observations: Tensor) -> list[Tensor]:
        """Returns how many actions are allowed [...], float32, of each part of the action space."""
        allowed = tf.cast(self.allowed(observations), tf.float32)
        return [tf.reduce_sum(part, axis=-1) for part in tf.split(allowed, list(self.counts), axis=-1)]

    def scalars(self, observations: Tensor, valid: Tensor) -> dict[str, Scalar]:
        """Returns scalars of the masks of observations [B, D + P]; those count that are `valid` [B]."""
        counts = tf.add_n(self.choices(observations))
        return {"rollout/allowed_actions": masked_mean(counts, valid)}

    def without_choice(self, observations: Tensor) -> Scalar:
        """Returns how many of the observations [..., D + P] allow no action of some part."""
        fewest = tf.reduce_min(tf.stack(self.choices(observations)), axis=0)
        return tf.reduce_sum(tf.cast(fewest < 1.0, tf.float32))

    def max_entropy(self, observations: Tensor) -> Tensor:
        """Returns the entropies [...] in nats of the policy that is uniform over what is allowed."""
        return tf.add_n([tf.math.log(tf.maximum(count, 1.0)) for count in self.choices(observations)])

    def encoder(self, inner: ObservationEncoder) -> ObservationEncoder:
        """Returns the encoder of {"observation": ..., "action_mask": ...}, of one that knows no masks.

        Bytes stay bytes: a mask behind an image costs P of them.
        """

        def encode(batch: Any) -> Array:
            seen, masks = inner.encode(batch["observation"]), np.asarray(batch[KEY])
            if masks.shape != (len(seen), self.size):
                raise ValueError(f"expected masks of shape (N, {self.size}). Received: {masks.shape}")
            return np.concatenate([seen.reshape(len(seen), -1), masks.astype(inner.dtype)], axis=1)

        space = space_with_masks(inner.space, self.size)
        return dataclasses.replace(inner, shape=self.whole, encode=encode, space=space)
