"""Which entries are the largest, without sorting, which XLA does slowly on a processor."""

import math
from collections.abc import Sequence

from rlweights.weights.arrays import Scalar, Tensor
from rlweights.weights.backend import ops

_BITS = 31
"""Bits of a float32 that is not negative, which as an integer has the order of the number."""


def largest(scores: Tensor, count: Scalar) -> Tensor:
    """Returns a mask, True at exactly `count` entries that are the largest; of equals the first ones.

    The threshold is built bit by bit, with one pass over the scores for each: exact, and linear.

    Args:
        scores: [...], not negative.
        count: Scalar integer tensor between 0 and the number of entries.

    Returns:
        Bool [...].
    """
    shape = scores.shape
    # Adding 0 turns -0, which is the largest negative integer, into 0.
    bits = ops.view(ops.reshape(ops.cast(scores, "float32"), [-1]) + 0.0, "int32")
    count = ops.cast(count, "int32")

    def with_bit(i: Scalar, threshold: Scalar) -> Scalar:
        candidate = threshold + ops.left_shift(ops.ones([], "int32"), _BITS - 1 - i)
        reached = ops.sum(ops.cast(bits >= candidate, "int32"))
        return ops.where(reached >= count, candidate, threshold)

    threshold = ops.fori_loop(0, _BITS, with_bit, ops.zeros([], "int32"))
    above, equal = bits > threshold, ops.equal(bits, threshold)
    wanted = count - ops.sum(ops.cast(above, "int32"))
    first = ops.cumsum(ops.cast(equal, "int32")) <= wanted
    return ops.reshape(ops.logical_or(above, ops.logical_and(equal, first)), shape)


def largest_of_all(scores: Sequence[Tensor], count: Scalar) -> list[Tensor]:
    """Returns `largest` of several tensors together, as one mask for each.

    Args:
        scores: Tensors [...], not negative.
        count: Scalar integer tensor, of the True entries in all masks together.
    """
    chosen = largest(ops.concatenate([ops.reshape(ops.cast(s, "float32"), [-1]) for s in scores]), count)
    masks, start = [], 0
    for each in scores:
        size = math.prod(each.shape)
        masks.append(ops.reshape(chosen[start : start + size], each.shape))
        start += size
    return masks


def largest_in_groups(scores: Tensor, kept: int, group: int) -> Tensor:
    """Returns a mask that is True at the `kept` largest of every `group` neighbours along the last axis.

    Args:
        scores: [..., K], K a multiple of `group`.
        kept: Entries to keep of each group; of equals the first ones.
        group: Size of a group.

    Returns:
        Bool [..., K].
    """
    grouped = ops.reshape(scores, (*scores.shape[:-1], scores.shape[-1] // group, group))
    own, other = ops.expand_dims(grouped, -1), ops.expand_dims(grouped, -2)
    places = ops.arange(group)
    before = ops.expand_dims(places, -1) > ops.expand_dims(places, -2)
    ahead = ops.logical_or(other > own, ops.logical_and(ops.equal(other, own), before))
    rank = ops.sum(ops.cast(ahead, "int32"), axis=-1)
    return ops.reshape(rank < kept, scores.shape)
