"""Encodings of observations and decodings of actions, by hand; what is not supported is refused."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from hypothesis import given, settings
from hypothesis import strategies as st

from rlweights.learning.distributions import for_space
from rlweights.learning.spaces import action_decoder, observation_encoder

OBSERVATIONS = {
    "vector": (spaces.Box(-1, 1, (2,), np.float32), [[0.5, -1.0]], [[0.5, -1.0]]),
    "float64": (spaces.Box(-np.inf, np.inf, (1,), np.float64), [[1e-3]], [[1e-3]]),
    "integers": (spaces.Box(0, 10, (2,), np.int64), [[3, 7]], [[3.0, 7.0]]),
    "matrix": (spaces.Box(-1, 1, (2, 2), np.float32), [[[1, 2], [3, 4]]], [[1, 2, 3, 4]]),
    "scalar": (spaces.Box(-1, 1, (), np.float32), [0.25, 0.5], [[0.25], [0.5]]),
    "bytes": (spaces.Box(0, 255, (2,), np.uint8), [[0, 255]], [[0.0, 1.0]]),
    "small image": (spaces.Box(0, 255, (1, 1, 3), np.uint8), [[[[0, 51, 255]]]], [[0.0, 0.2, 1.0]]),
    "discrete": (spaces.Discrete(3), [0, 2], [[1, 0, 0], [0, 0, 1]]),
    "discrete from -1": (spaces.Discrete(3, start=-1), [-1, 1], [[1, 0, 0], [0, 0, 1]]),
    "multi-discrete": (spaces.MultiDiscrete([2, 3]), [[1, 0]], [[0, 1, 1, 0, 0]]),
    "multi-discrete from 5": (spaces.MultiDiscrete([2, 3], start=[5, 5]), [[5, 7]], [[1, 0, 0, 0, 1]]),
    "multi-binary": (spaces.MultiBinary(3), [[1, 0, 1]], [[1, 0, 1]]),
    "multi-binary matrix": (spaces.MultiBinary((2, 2)), [[[1, 0], [1, 1]]], [[1, 0, 1, 1]]),
    "dict": (
        spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Box(-1, 1, (1,), np.float32)}),
        {"a": [[0.5]], "b": [1]},
        [[0.5, 0, 1]],  # the space's own order: Gymnasium sorts the keys
    ),
    "tuple of dict": (
        spaces.Tuple((spaces.Dict({"x": spaces.MultiBinary(1)}), spaces.Discrete(2))),
        ({"x": [[1]]}, [0]),
        [[1, 1, 0]],
    ),
}


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_observations_by_hand(name):
    space, batch, expected = OBSERVATIONS[name]
    encoder = observation_encoder(space)
    encoded = encoder.encode(arrays(batch, space))
    np.testing.assert_allclose(encoded, expected, rtol=1e-6)
    assert encoded.dtype == encoder.dtype == "float32"
    assert encoded.shape[1:] == encoder.shape
    assert not encoder.is_image


def arrays(batch, space):
    if isinstance(space, spaces.Dict):
        return {key: arrays(batch[key], inner) for key, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(arrays(x, inner) for x, inner in zip(batch, space.spaces, strict=True))
    return np.array(batch, space.dtype)


@pytest.mark.parametrize(
    ("shape", "encoded"),
    [
        ((48, 40, 3), (48, 40, 3)),
        ((4, 48, 40), (48, 40, 4)),
        ((48, 40), (48, 40, 1)),
        ((36, 36, 1), (36, 36, 1)),
    ],
)
def test_images_stay_images_with_channels_last(shape, encoded):
    space = spaces.Box(0, 255, shape, np.uint8)
    space.seed(0)
    encoder = observation_encoder(space)
    assert encoder.is_image
    assert encoder.shape == encoded
    image = space.sample()
    found = encoder.encode(image[None])
    assert found.shape == (1, *encoded)
    assert found.dtype == np.uint8
    moved = np.moveaxis(image, 0, -1) if shape[0] == 4 else image.reshape(encoded)
    np.testing.assert_array_equal(found[0], moved)


def test_pictures_too_small_for_the_convolutions_are_flat():
    assert observation_encoder(spaces.Box(0, 255, (35, 35, 3), np.uint8)).shape == (35 * 35 * 3,)


@pytest.mark.parametrize(
    ("space", "value", "error"),
    [
        (spaces.Discrete(3), 3, IndexError),
        (spaces.Discrete(3), -1, IndexError),  # would count from the end
        (spaces.Discrete(3, start=5), 4, IndexError),
        (spaces.Discrete(3), 1.5, TypeError),  # would be cut to 1
        (spaces.MultiDiscrete([2, 3]), [0, 3], IndexError),
        (spaces.MultiDiscrete([2, 3]), [-1, 0], IndexError),
        (spaces.Box(-1, 1, (2,), np.float32), ["a", "b"], ValueError),
    ],
)
def test_values_outside_of_the_space_are_refused(space, value, error):
    with pytest.raises(error):
        observation_encoder(space).encode(np.array([value]))


UNSUPPORTED = [
    spaces.Text(4),
    spaces.Sequence(spaces.Discrete(2)),
    spaces.Graph(spaces.Discrete(2), None),
    spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)]),
]


@pytest.mark.parametrize("space", UNSUPPORTED, ids=lambda space: type(space).__name__)
@pytest.mark.parametrize("nested", [False, True])
def test_other_observations_are_refused_and_shown(space, nested):
    whole = spaces.Dict({"part": space}) if nested else space
    with pytest.raises(ValueError, match="unsupported observation space: ") as raised:
        observation_encoder(whole)
    assert str(space) in str(raised.value)


@pytest.mark.parametrize(
    "space",
    [*UNSUPPORTED, spaces.Box(0, 5, (2,), np.int64), spaces.Dict({"a": spaces.Discrete(2)})],
    ids=lambda space: type(space).__name__,
)
@pytest.mark.parametrize("function", [action_decoder, for_space])
def test_other_actions_are_refused_and_shown(space, function):
    with pytest.raises(ValueError, match="unsupported action space: ") as raised:
        function(space)
    assert str(space) in str(raised.value)


ACTIONS = {
    "discrete": (spaces.Discrete(3), [0, 2], [0, 2]),
    "discrete from -1": (spaces.Discrete(3, start=-1), [0, 2], [-1, 1]),
    "multi-discrete": (spaces.MultiDiscrete([2, 3]), [[1, 2]], [[1, 2]]),
    "multi-discrete from 5": (spaces.MultiDiscrete([2, 3], start=[5, 6]), [[1, 2]], [[6, 8]]),
    "multi-discrete matrix": (spaces.MultiDiscrete([[2, 2], [3, 3]]), [[1, 0, 2, 1]], [[[1, 0], [2, 1]]]),
    "multi-binary": (spaces.MultiBinary((2, 2)), [[1, 0, 0, 1]], [[[1, 0], [0, 1]]]),
    "box": (spaces.Box(-2.0, 1.0, (2,), np.float32), [[-3.0, 0.5], [0.0, 4.0]], [[-2.0, 0.5], [0.0, 1.0]]),
    "half-bounded": (spaces.Box(np.float32([-1, -np.inf]), np.float32([np.inf, 1])), [[-9, -9]], [[-1, -9]]),
    "unbounded": (spaces.Box(-np.inf, np.inf, (1,), np.float64), [[1e6]], [[1e6]]),
    "matrix": (spaces.Box(-1, 1, (2, 1), np.float32), [[0.5, 2.0]], [[[0.5], [1.0]]]),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_by_hand(name):
    space, sampled, expected = ACTIONS[name]
    distribution = for_space(space)
    actions = np.array(sampled, distribution.action_dtype)
    assert actions.shape[1:] == distribution.action_shape
    decoded = action_decoder(space)(actions)
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.dtype == space.dtype
    assert all(space.contains(each) for each in decoded)


@st.composite
def supported(draw, depth=2):
    """Any observation space that is supported."""
    kinds = ["box", "discrete", "multi_discrete", "multi_binary", *(["dict", "tuple"] if depth else [])]
    kind = draw(st.sampled_from(kinds))
    if kind == "box":
        shape = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
        dtype = draw(st.sampled_from([np.float32, np.float64, np.uint8, np.int32]))
        return spaces.Box(0, 100, shape, dtype)
    if kind == "discrete":
        return spaces.Discrete(draw(st.integers(1, 4)), start=draw(st.integers(-3, 3)))
    if kind == "multi_discrete":
        counts = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
        starts = draw(st.lists(st.integers(-2, 2), min_size=len(counts), max_size=len(counts)))
        return spaces.MultiDiscrete(counts, start=starts)
    if kind == "multi_binary":
        return spaces.MultiBinary(draw(st.integers(1, 4)))
    parts = draw(st.lists(supported(depth - 1), min_size=1, max_size=3))
    return (
        spaces.Tuple(parts) if kind == "tuple" else spaces.Dict({f"part{i}": x for i, x in enumerate(parts)})
    )


@given(supported(), st.integers(1, 4), st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_every_batch_of_a_supported_space_is_encoded_row_by_row(space, size, seed):
    encoder = observation_encoder(space)
    batched = batch_space(space, size)
    batched.seed(seed)
    batch = batched.sample()
    encoded = encoder.encode(batch)
    assert encoded.shape == (size, *encoder.shape)
    assert encoded.dtype == encoder.dtype
    for i in range(size):
        np.testing.assert_array_equal(encoder.encode(rows(batch, i))[0], encoded[i])


def rows(batch, i):
    if isinstance(batch, dict):
        return {key: rows(value, i) for key, value in batch.items()}
    if isinstance(batch, tuple):
        return tuple(rows(value, i) for value in batch)
    return batch[i : i + 1]
