"""What fits an observation space: one observation or a batch; the rest is refused with both shapes."""

import re

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from rlweights.learning.fitting import batched

BOX = spaces.Box(-1, 1, (4,), np.float32)
NESTED = spaces.Dict(a=spaces.Tuple((spaces.Discrete(3), BOX)), b=spaces.Box(0, 255, (2, 2), np.uint8))


@pytest.mark.parametrize(
    "space", [BOX, NESTED, spaces.Discrete(3), spaces.Box(-1, 1, ()), spaces.MultiBinary(3)]
)
def test_one_observation_and_a_batch_are_told_apart(space):
    several = batch_space(space, 5)
    space.seed(0)
    several.seed(0)
    one, single = batched(space, space.sample())
    assert single
    assert batch_space(space, 1).contains(one)
    batch, single = batched(space, several.sample())
    assert not single
    assert several.contains(batch)


@pytest.mark.parametrize(
    ("space", "given", "message"),
    [
        (BOX, np.zeros(8), "shape (8,): takes one of shape (4,), or a batch of shape (N, 4)"),
        (BOX, np.zeros((3, 8)), "shape (3, 8): takes one of shape (4,), or a batch of shape (N, 4)"),
        (BOX, np.zeros((1, 16)), "shape (1, 16): takes one of shape (4,)"),
        (BOX, np.zeros((1, 1, 4)), "shape (1, 1, 4): takes one of shape (4,)"),
        (BOX, [0, np.nan, np.inf, 0], "2 of 4 numbers are not finite, the first, nan, at [1]"),
        (BOX, ["a"] * 4, "numbers are needed. Received: <U1"),
        (BOX, [[1, 2, 3, 4], [1]], "a list of unequal parts"),
        (
            spaces.Discrete(3),
            np.zeros((2, 1), int),
            "shape (2, 1): takes one of shape (), or a batch of shape (N,)",
        ),
        (NESTED, {"a": (1, np.zeros(4))}, "a dict with the key 'b' is needed. Received: 'a'"),
        (NESTED, np.zeros(4), "a dict with the key 'a' is needed. Received: ndarray"),
        (NESTED, {"a": (1,), "b": 0}, "'a': a tuple of 2 is needed. Received: 1"),
        (
            NESTED,
            {"a": (np.zeros(2, int), np.zeros((3, 4))), "b": np.zeros((2, 2, 2), np.uint8)},
            "different numbers do not make one batch: a/0: 2, a/1: 3, b: 2",
        ),
        (NESTED, {"a": (1, np.zeros(4)), "b": np.zeros((2, 2))}, "'b': uint8 is needed. Received: float64"),
        (NESTED, {"a": (1, np.zeros(4)), "b": np.full((2, 2), 256)}, "'b': uint8 is needed. Received: int64"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused(space, given, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        batched(space, given)
    assert len(str(caught.value).splitlines()) == 1
