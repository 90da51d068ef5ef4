"""Random draws as pure functions of (seed, stream, counter).

Nothing here has hidden state: the same three numbers give the same tensor in eager mode, in a graph and
under XLA, today and after a resume. A counter that the caller already owns (an optimizer step, an
iteration, a vector step) is therefore the whole random state of a run.

The bits come from Philox, and are the same on every backend of Keras. Uniform and normal deviates are made
from whole bits here, because TensorFlow's own ``stateless_uniform`` and ``stateless_normal`` give other
numbers under XLA than outside of it.
"""

import zlib
from collections.abc import Sequence

from rlweights.weights.arrays import Scalar, Tensor
from rlweights.weights.backend import ops, random_words


def words(shape: Sequence[int], seed: Scalar, stream: str, counter: Scalar) -> Tensor:
    """Draws int32 words of independent, uniformly distributed bits (arguments as for `uniform`)."""
    mixed = ops.bitwise_xor(ops.cast(seed, "int32"), zlib.crc32(stream.encode()) & 0x7FFFFFFF)
    return random_words(shape, ops.stack([mixed, ops.cast(counter, "int32")]))


def _unit(shape: Sequence[int], seed: Scalar, stream: str, counter: Scalar) -> Tensor:
    """Uniform floats on the 2^24 multiples of 2^-24 in [0, 1), which float32 holds exactly."""
    upper = ops.bitwise_and(ops.right_shift(words(shape, seed, stream, counter), 8), 0xFFFFFF)
    return ops.cast(upper, "float32") * 2.0**-24


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
    radius = ops.sqrt(-2.0 * ops.log1p(-draws[0]))  # 1 - u lies in (0, 1]: the logarithm is finite
    angle = 6.283185307179586 * draws[1]
    pairs = ops.stack([radius * ops.cos(angle), radius * ops.sin(angle)])
    return ops.reshape(ops.reshape(pairs, [-1])[:size], shape)
