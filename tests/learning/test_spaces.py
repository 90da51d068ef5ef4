"""Encodings of observations and decodings of actions, by hand; what is not supported is refused."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from hypothesis import given, settings
from hypothesis import strategies as st

from rlweights.learning.distributions import for_space
from rlweights.learning.spaces import VERSION_1, action_decoder, half_ranges, observation_encoder

OBSERVATIONS = {
    "vector": (spaces.Box(-1, 1, (2,), np.float32), [[0.5, -1.0]], [[0.5, -1.0]]),
    "float64": (spaces.Box(-np.inf, np.inf, (1,), np.float64), [[1e-3]], [[1e-3]]),
    "integers": (spaces.Box(0, 10, (2,), np.int64), [[3, 7]], [[0.3, 0.7]]),
    "few bytes": (spaces.Box(0, 3, (2,), np.uint8), [[0, 2]], [[0.0, 2 / 3]]),
    "signed": (spaces.Box(-2, 2, (3,), np.int8), [[-2, 0, 2]], [[0.0, 0.5, 1.0]]),
    "far from 0": (spaces.Box(2**40, 2**40 + 4, (2,), np.int64), [[2**40, 2**40 + 1]], [[0.0, 0.25]]),
    "bounds of their own": (
        spaces.Box(np.array([0, 5, 7]), np.array([10, 9, 7]), dtype=np.int64),
        [[5, 5, 7]],
        [[0.5, 0.0, 7.0]],  # what has one value only stays as it is
    ),
    "wide integers": (spaces.Box(-(2**62), 2**62, (1,), np.int64), [[5]], [[5.0]]),
    "16 bits": (spaces.Box(0, 65_535, (1,), np.uint16), [[65_535]], [[1.0]]),
    "bounded floats": (spaces.Box(0, 8, (2,), np.float32), [[3.0, 7.0]], [[3.0, 7.0]]),
    "matrix": (spaces.Box(-1, 1, (2, 2), np.float32), [[[1, 2], [3, 4]]], [[1, 2, 3, 4]]),
    "scalar": (spaces.Box(-1, 1, (), np.float32), [0.25, 0.5], [[0.25], [0.5]]),
    "bytes": (spaces.Box(0, 255, (2,), np.uint8), [[0, 255]], [[0.0, 1.0]]),
    "too small an image": (spaces.Box(0, 255, (1, 1, 3), np.uint8), [[[[0, 51, 255]]]], [[0.0, 0.2, 1.0]]),
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


@pytest.mark.parametrize(
    ("space", "shape"),
    [
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), (7, 7, 3)),
        (spaces.Box(0, 1, (10, 10, 4), np.bool_), (10, 10, 4)),  # pyright: ignore[reportCallIssue]
        (spaces.Box(0, 3, (15, 15, 1), np.uint8), (15, 15, 1)),
        (spaces.Box(0, 9, (9, 9, 2), np.int64), (9, 9, 2)),
        (spaces.Box(0, 1, (64, 64, 3), np.float32), (64, 64, 3)),
        (spaces.Box(0, 255, (3, 40, 50), np.float64), (40, 50, 3)),
        (spaces.Box(0, 255, (2, 64, 64, 3), np.uint8), (64, 64, 6)),
        (spaces.Box(0, 255, (4, 3, 40, 44), np.uint8), (40, 44, 12)),
        (spaces.Box(0, 255, (40, 44, 3, 4), np.uint8), (40, 44, 12)),
        # no images:
        (spaces.Box(0, 255, (6, 7, 3), np.uint8), (126,)),
        (spaces.Box(-1, 1, (7, 8, 9), np.float32), (504,)),
        (spaces.Box(0, 1, (8, 9), np.float32), (72,)),
        (spaces.Box(0, 255, (40, 3, 50), np.uint8), (6000,)),
        (spaces.Box(-(2**62), 2**62, (8, 8, 3), np.int64), (192,)),
    ],
    ids=str,
)
def test_which_boxes_are_images(space, shape):
    encoder = observation_encoder(space)
    assert encoder.shape == shape
    assert encoder.is_image == encoder.has_images == (len(shape) == 3)
    assert encoder.dtype == ("uint8" if encoder.is_image and space.dtype == np.uint8 else "float32")


def test_stacks_fold_into_channels_pixel_by_pixel():
    space = spaces.Box(0, 255, (2, 3, 8, 9), np.uint8)
    space.seed(0)
    found = observation_encoder(space).encode((stack := space.sample())[None])[0]
    for frame in range(2):
        for channel in range(3):
            np.testing.assert_array_equal(found[:, :, frame * 3 + channel], stack[frame, channel])


def test_images_of_other_numbers_than_bytes_arrive_on_the_unit_interval():
    space = spaces.Box(-1, 3, (8, 8, 2), np.int32)
    encoded = observation_encoder(space).encode(np.full((1, 8, 8, 2), 2, np.int32))
    np.testing.assert_allclose(encoded, 0.75)
    floats = spaces.Box(0, 1, (8, 8, 2), np.float32)
    image = np.random.default_rng(0).random((1, 8, 8, 2), np.float32)
    np.testing.assert_array_equal(observation_encoder(floats).encode(image), image)


PARTS = spaces.Dict(
    arm=spaces.Tuple((spaces.Box(0, 3, (3, 8, 9), np.uint8), spaces.Discrete(2))),
    place=spaces.Discrete(5_000, start=10),
    state=spaces.Box(-1, 1, (2,), np.float32),
)


def test_parts_say_what_lies_where():
    encoder = observation_encoder(PARTS)
    batched = batch_space(PARTS, 3)
    batched.seed(1)
    batch = batched.sample()
    encoded = encoder.encode(batch)
    assert [(p.name, p.kind, p.shape) for p in encoder.parts] == [
        ("arm.0", "image", (8, 9, 3)),
        ("arm.1", "numbers", (2,)),
        ("place", "index", (1,)),
        ("state", "numbers", (2,)),
    ]
    pieces = {p.name: encoded[:, p.start : p.end].reshape(-1, *p.shape) for p in encoder.parts}
    assert encoder.parts[-1].end == encoder.shape[0]
    np.testing.assert_allclose(pieces["arm.0"], np.moveaxis(batch["arm"][0], 1, -1) / 3, rtol=1e-6)
    np.testing.assert_array_equal(pieces["arm.1"], np.eye(2)[batch["arm"][1]])
    np.testing.assert_array_equal(pieces["place"][:, 0], batch["place"] - 10)
    np.testing.assert_array_equal(pieces["state"], batch["state"])


@pytest.mark.parametrize("n", [100_000, 300_000])
def test_long_discrete_spaces_are_indices(n):
    encoder = observation_encoder(spaces.Discrete(n, start=-1))
    np.testing.assert_array_equal(encoder.encode(np.array([-1, n - 2])), [[0], [n - 1]])
    for outside in (-2, n - 1):
        with pytest.raises(IndexError):
            encoder.encode(np.array([outside]))
    (part,) = observation_encoder(spaces.MultiDiscrete([n, 3])).parts
    assert (part.kind, part.shape, part.counts) == ("index", (2,), (n, 3))


def test_version_1_encodes_as_it_did():
    for space, value, encoded in [
        (spaces.Box(0, 3, (4,), np.uint8), [0, 1, 2, 3], np.array([0, 1, 2, 3]) / 255),
        (spaces.Box(0, 3, (4,), np.int8), [0, 1, 2, 3], [0, 1, 2, 3]),
        (spaces.Box(0, 255, (7, 7, 1), np.uint8), np.full((7, 7, 1), 51), [0.2] * 49),
        (spaces.Discrete(2_000), 1_999, np.eye(2_000)[1_999]),
    ]:
        found = observation_encoder(space, VERSION_1).encode(np.array([value], space.dtype))
        np.testing.assert_allclose(found, [encoded], rtol=1e-6)
    nested = spaces.Dict(camera=spaces.Box(0, 255, (40, 40, 3), np.uint8))
    assert observation_encoder(nested, VERSION_1).shape == (4_800,)
    image = observation_encoder(spaces.Box(0, 3, (40, 40, 3), np.uint8), VERSION_1)
    assert (image.is_image, image.pixels) == (True, (0.0, 1 / 255))


@pytest.mark.parametrize("batch", [np.zeros((2, 8)), np.zeros((2, 2, 2)), np.zeros(8)])
def test_another_shape_of_the_right_size_is_refused_with_both(batch):
    with pytest.raises(ValueError, match=r"expected shape \(N, 4\)\. Received: \("):
        observation_encoder(spaces.Box(-1, 1, (4,), np.float32)).encode(batch)


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


RESCALED = {
    "[5, 35]": (spaces.Box(5, 35, (1,)), [[-1], [0], [0.5], [1], [9]], [[5], [20], [27.5], [35], [35]]),
    "units": (spaces.Box(np.float32([-0.01, 0]), np.float32([0.01, 1000])), [[0.5, -0.5]], [[0.005, 250]]),
    "matrix": (spaces.Box(0, 4, (2, 1)), [[0, 1]], [[[2], [4]]]),
    "scalar": (spaces.Box(0, 4, ()), [[0.5]], [3]),
    "float64": (spaces.Box(0, 1e6, (1,), np.float64), [[0.5]], [[750_000]]),
    "partly bounded": (
        spaces.Box(np.float32([0, 0, -2]), np.float32([4, np.inf, 2])),
        [[1, 3, 1]],
        [[4, 3, 2]],
    ),
    "nominally": (spaces.Box(-3e38, 3e38, (1,)), [[7]], [[7]]),
    "one value": (spaces.Box(2, 2, (1,)), [[0.3]], [[2]]),
}


@pytest.mark.parametrize("name", RESCALED)
def test_rescaled_actions_by_hand(name):
    space, sampled, expected = RESCALED[name]
    decoded = action_decoder(space, rescale=True)(np.array(sampled, np.float32).reshape(len(sampled), -1))
    np.testing.assert_allclose(decoded, expected, rtol=1e-6)
    assert decoded.dtype == space.dtype
    assert all(space.contains(np.asarray(each)) for each in decoded)


@pytest.mark.parametrize("high", [np.ones(3), np.array([1, np.inf, 5])])
def test_unit_bounds_and_none_keep_their_bits(high):
    space = spaces.Box(-np.float32(high), np.float32(high))
    actions = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    actions[0], actions[1] = -0.0, 1e-42
    before, after = (action_decoder(space, rescale)(actions) for rescale in (False, True))
    for i in np.flatnonzero((high == 1) | np.isinf(high)):
        assert before[:, i].tobytes() == after[:, i].tobytes()


def test_a_box_of_unit_bounds_is_decoded_by_what_it_was():
    assert half_ranges(spaces.Box(-1, 1, (6,))) is None
    assert half_ranges(spaces.Box(-np.inf, 1, (6,))) is None
    assert half_ranges(spaces.Discrete(3)) is None


@st.composite
def supported(draw, depth=2):
    """Any observation space that is supported."""
    kinds = ["box", "discrete", "multi_discrete", "multi_binary", *(["dict", "tuple"] if depth else [])]
    kind = draw(st.sampled_from(kinds))
    if kind == "box":
        sizes = st.sampled_from([1, 2, 3, 7, 8])
        shape = tuple(draw(st.lists(sizes, max_size=3)))
        dtype = draw(st.sampled_from([np.float32, np.float64, np.uint8, np.int32]))
        return spaces.Box(0, 100, shape, dtype)
    if kind == "discrete":
        return spaces.Discrete(draw(st.sampled_from([1, 2, 4, 2_000])), start=draw(st.integers(-3, 3)))
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
