"""Philox 4x32-10, a random number generator without state, on every backend of Keras.

Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", 2011,
https://doi.org/10.1145/2063384.2063405. Key and order of the blocks are those of TensorFlow's stateless
operations, so that the words are the same to the last bit. Words are int32 that wrap around: not every
backend computes with unsigned ones.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from rlweights.weights.arrays import Tensor

ops: Any = keras.ops
_FACTORS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_SCRAMBLE = (0x3EC8F720, 0x02461E29)
"""The key with which TensorFlow mixes a seed, so that it need not be a good one."""
_ROUNDS = 10
_LOW = 0xFFFF


def words(shape: Sequence[int], seed: Tensor) -> Tensor:
    """Returns words of independent, uniformly distributed bits.

    Args:
        shape: Static shape of the result.
        seed: int32[2].

    Returns:
        int32 tensor of `shape`.
    """
    size = math.prod(shape)
    blocks = -(-size // 4)
    sign = ops.right_shift(seed, 31)  # a seed is a number of 64 bits
    scramble = [ops.convert_to_tensor(_signed(each)) for each in _SCRAMBLE]
    mixed = _mixed([seed[0], sign[0], seed[1], sign[1]], scramble)
    zero = ops.zeros([blocks], "int32")
    counter = [ops.arange(blocks, dtype="int32"), zero, zero + mixed[2], zero + mixed[3]]
    return ops.reshape(ops.reshape(ops.stack(_mixed(counter, mixed[:2]), axis=-1), [-1])[:size], shape)


def _mixed(counter: Sequence[Tensor], key: Sequence[Tensor]) -> Sequence[Tensor]:
    """The four words of the blocks that a counter of four words counts."""

    def round_(i: Tensor, state: Sequence[Tensor]) -> Sequence[Tensor]:
        a, b, c, d, left, right = state
        (high_a, low_a), (high_c, low_c) = _product(_FACTORS[0], a), _product(_FACTORS[1], c)
        mixed = (
            ops.bitwise_xor(ops.bitwise_xor(high_c, b), left),
            low_c,
            ops.bitwise_xor(ops.bitwise_xor(high_a, d), right),
            low_a,
        )
        return (*mixed, left + _signed(_WEYL[0]), right + _signed(_WEYL[1]))

    # Not unrolled: XLA on a processor would compute the early rounds over and over.
    return ops.fori_loop(0, _ROUNDS, round_, (*counter, *key))[:4]


def _product(factor: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """The upper and the lower word of the product of 64 bits, from halves of 16 bits."""
    high, low = factor >> 16, factor & _LOW
    word_high, word_low = _upper_half(word), ops.bitwise_and(word, _LOW)
    crossed, other = high * word_low, low * word_high
    carried = _upper_half(low * word_low) + ops.bitwise_and(crossed, _LOW) + ops.bitwise_and(other, _LOW)
    upper = high * word_high + _upper_half(crossed) + _upper_half(other) + _upper_half(carried)
    return upper, word * _signed(factor)


def _upper_half(word: Tensor) -> Tensor:
    return ops.bitwise_and(ops.right_shift(word, 16), _LOW)


def _signed(word: int) -> np.int32:
    return np.uint32(word).astype(np.int32)
