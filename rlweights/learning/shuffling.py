"""Random orders as pure functions of (seed, stream, counter), without sorting."""

import tensorflow as tf

from rlweights.weights.arrays import Scalar, Tensor
from rlweights.weights.prng import words


def permutation(size: int, seed: Scalar, stream: str, counter: Scalar) -> Tensor:
    """Shuffles the integers below `size` without sorting.

    Six rounds of an arithmetic bijection on [0, 2^k) (odd multiply, add, xor with the own upper half);
    sizes that are no power of two keep the entries below `size` in their order. Sorting random keys, the
    usual way, costs half of a small PPO update under XLA on a CPU; this costs almost nothing.

    Returns:
        int32 tensor [size]: each integer of [0, size) exactly once.
    """
    bits = max(1, (size - 1).bit_length())
    mask = tf.constant((1 << bits) - 1, tf.uint32)
    keys = tf.bitcast(words([6, 2], seed, stream, counter), tf.uint32)
    x = tf.cast(tf.range(1 << bits, dtype=tf.int32), tf.uint32)
    shift = tf.constant((bits + 1) // 2, tf.uint32)
    for i in range(6):
        odd = tf.bitwise.bitwise_or(keys[i, 0], tf.constant(1, tf.uint32))
        x = tf.bitwise.bitwise_and(x * odd + keys[i, 1], mask)
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, shift))
    x = tf.cast(x, tf.int32)
    if size == 1 << bits:
        return x
    kept = x < size
    places = tf.where(kept, tf.cumsum(tf.cast(kept, tf.int32)) - 1, size)
    return tf.scatter_nd(places[:, None], x, [size + 1])[:size]
