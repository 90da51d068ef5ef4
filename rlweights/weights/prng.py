"""Random draws as pure functions of (seed, stream, counter).

Nothing here has hidden state: the same three numbers give the same tensor in eager mode, in a graph and
under XLA, today and after a resume. A counter that the caller already owns (an optimizer step, an
iteration, a vector step) is therefore the whole random state of a run.

The bits come from Philox. Uniform and normal deviates are made from whole bits here, because TensorFlow's
own ``stateless_uniform`` and ``stateless_normal`` give other numbers under XLA than outside of it.
"""

import zlib
from collections.abc import Sequence

import tensorflow as tf

from rlweights.weights.arrays import Scalar, Tensor


def _key(seed: Scalar, stream: str, counter: Scalar) -> Tensor:
    """The int32[2] Philox key of one draw."""
    mixed = tf.bitwise.bitwise_xor(tf.cast(seed, tf.int32), zlib.crc32(stream.encode()) & 0x7FFFFFFF)
    return tf.stack([mixed, tf.cast(counter, tf.int32)])


def _bits(shape: Sequence[int], seed: Scalar, stream: str, counter: Scalar) -> Tensor:
    """uint32 tensor of independent, uniformly distributed bits."""
    key = _key(seed, stream, counter)
    return tf.random.stateless_uniform(shape, key, None, None, dtype=tf.uint32, alg="philox")


def _unit(shape: Sequence[int], seed: Scalar, stream: str, counter: Scalar) -> Tensor:
    """Uniform floats on the 2^24 multiples of 2^-24 in [0, 1), which float32 holds exactly."""
    upper = tf.bitwise.right_shift(_bits(shape, seed, stream, counter), tf.constant(8, tf.uint32))
    return tf.cast(tf.cast(upper, tf.int32), tf.float32) * 2.0**-24


def uniform(
    shape: Sequence[int], seed: Scalar, stream: str, counter: Scalar, low: Scalar = 0.0, high: Scalar = 1.0
) -> Tensor:
    """Draws from the uniform distribution on [low, high).

    Args:
        shape: Static shape of the result.
        seed: Integer, or scalar integer tensor.
        stream: A name; draws of different streams are independent of each other.
        counter: Integer, or scalar integer tensor; another counter gives fresh, independent draws.
        low: Lower bound, included.
        high: Upper bound, excluded.

    Returns:
        float32 tensor of `shape`.
    """
    draws = _unit(shape, seed, stream, counter)
    return draws if (low, high) == (0.0, 1.0) else low + (high - low) * draws


def normal(shape: Sequence[int], seed: Scalar, stream: str, counter: Scalar) -> Tensor:
    """Draws from the standard normal distribution (arguments as for `uniform`).

    Returns:
        float32 tensor of `shape`.
    """
    size = 1
    for dimension in shape:
        size *= int(dimension)
    half = (size + 1) // 2
    draws = _unit([2, half], seed, stream, counter)
    radius = tf.sqrt(-2.0 * tf.math.log1p(-draws[0]))  # 1 - u lies in (0, 1]: the logarithm is finite
    angle = 6.283185307179586 * draws[1]
    pairs = tf.stack([radius * tf.cos(angle), radius * tf.sin(angle)])
    return tf.reshape(tf.reshape(pairs, [-1])[:size], shape)


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
    keys = _bits([6, 2], seed, stream, counter)
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
