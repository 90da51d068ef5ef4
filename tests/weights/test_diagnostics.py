"""Diagnostics of weights, updates and hidden units: numbers known by hand, and cases without an answer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rlweights.weights import diagnostics
from support.scalars import f32, value

# Weights --------------------------------------------------------------------------------------------


def test_size_of_weights():
    weights = f32([[3.0, -4.0], [0.0, 0.0]])
    assert value(diagnostics.weight_norm(weights)) == 5.0
    assert value(diagnostics.weight_rms(weights)) == 2.5
    assert value(diagnostics.weight_max(weights)) == 4.0


def test_a_nest_of_weights_is_one_long_vector():
    weights = [f32([[1.0, 2.0]]), {"bias": keras.Variable([2.0])}, tf.constant([[-4.0], [0.0]])]
    assert value(diagnostics.weight_norm(weights)) == 5.0
    assert value(diagnostics.weight_rms(weights)) == pytest.approx(5**0.5)
    assert value(diagnostics.weight_max(weights)) == 4.0
    assert value(diagnostics.clipped_share(weights, 1.5)) == pytest.approx(3 / 5)


def test_low_precision_weights_are_measured_in_float32():
    weights = tf.cast(tf.fill([4096], 300.0), tf.float16)
    assert value(diagnostics.weight_norm(weights)) == 300.0 * 64  # In float16 the squares overflow.


def test_distance_from_init():
    initial = [f32([1.0, 2.0]), f32([[0.0, 0.0]])]
    weights = [f32([1.0, 5.0]), f32([[0.0, -4.0]])]
    assert value(diagnostics.distance_from_init(weights, initial)) == 2.5
    assert value(diagnostics.distance_from_init(weights, weights)) == 0.0


def test_clipped_before_and_saturated_after_a_clamp():
    weights = f32([-3.0, -2.0, 0.5, 1.999, 2.0, 2.5, 7.0, 0.0])
    assert value(diagnostics.clipped_share(weights, 2.0)) == 3 / 8
    after = np.clip(weights, -2.0, 2.0)
    assert value(diagnostics.clipped_share(after, 2.0)) == 0.0
    assert value(diagnostics.saturated_share(after, 2.0)) == 5 / 8
    assert value(diagnostics.saturated_share(after, 2.0, tolerance=1e-2)) == 6 / 8


def test_each_weight_may_have_its_own_bound():
    weights, bounds = f32([[1.0, 1.0], [-3.0, 3.0]]), f32([2.0, 1.0])
    assert value(diagnostics.clipped_share(weights, bounds)) == 2 / 4
    assert value(diagnostics.saturated_share(weights, bounds)) == 3 / 4


# Updates --------------------------------------------------------------------------------------------


def test_update_to_weight_ratio():
    before, after = [f32([3.0, 0.0]), f32([4.0])], [f32([3.0, 0.3]), f32([4.4])]
    assert value(diagnostics.update_to_weight_ratio(before, after)) == pytest.approx(0.1)
    assert value(diagnostics.update_to_weight_ratio(np.zeros(2), np.ones(2))) == 0.0


# Hidden units ---------------------------------------------------------------------------------------


# Mean |h| of the units: 2, 0.04, 0, 1.96; of the layer: 1.
ACTIVATIONS = f32([[3.0, 0.0, 0.0, -1.96], [-1.0, 0.08, 0.0, 1.96]])


def test_dormant_scores():
    scores = value(diagnostics.dormant_scores(ACTIVATIONS))
    np.testing.assert_allclose(scores, [2.0, 0.04, 0.0, 1.96], rtol=1e-6)
    # Relative to the layer, so its scale does not matter.
    np.testing.assert_allclose(diagnostics.dormant_scores(100 * ACTIVATIONS), scores, rtol=1e-6)


def test_dormant_share():
    assert value(diagnostics.dormant_share(ACTIVATIONS)) == 1 / 4
    assert value(diagnostics.dormant_share(ACTIVATIONS, tau=0.1)) == 2 / 4
    assert value(diagnostics.dormant_share(ACTIVATIONS, tau=0.0)) == 1 / 4


def test_dormant_share_of_convolutions_is_over_places_too():
    places = np.stack([ACTIVATIONS, ACTIVATIONS[::-1]])[:, :, None, :]
    np.testing.assert_allclose(
        diagnostics.dormant_scores(places), diagnostics.dormant_scores(ACTIVATIONS), rtol=1e-6
    )


def test_dead_units():
    relu = f32([[0.0, 0.0, 1.0], [0.0, 2.0, 1.0]])
    assert value(diagnostics.dead_units(relu)) == pytest.approx(1 / 3)
    # For tanh the unit that never changes is the dead one, whatever its value.
    tanh = f32([[0.0, 0.5, -1.0, 0.5], [0.1, 0.5, -1.0, 0.5019]])
    assert value(diagnostics.dead_units(tanh, "tanh")) == 3 / 4  # Standard deviation 0.00095.
    tanh[1, 3] = 0.5021
    assert value(diagnostics.dead_units(tanh, "tanh")) == 2 / 4  # 0.00105.


def test_saturated_units():
    assert value(diagnostics.saturated_units(f32([[0.995, -0.2], [-1.0, 0.99]]))) == 2 / 4
    assert value(diagnostics.saturated_units(f32([[0.6, 0.4]]), threshold=0.5)) == 1 / 2


# Ranks ----------------------------------------------------------------------------------------------


RANKS = [
    diagnostics.effective_rank,
    diagnostics.srank,
    diagnostics.approximate_rank,
    diagnostics.feature_rank,
    diagnostics.stable_rank_fro,
]


def with_singular_values(*sigma, samples=16):
    """A matrix [samples, U] of these singular values, in a basis that shows none of them."""
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.normal(size=(samples, len(sigma))))
    right, _ = np.linalg.qr(rng.normal(size=(len(sigma), len(sigma))))
    return (left * sigma @ right).astype(np.float32)


def test_singular_values():
    features = with_singular_values(1.0, 4.0, 2.0)
    np.testing.assert_allclose(diagnostics.singular_values(features), [4.0, 2.0, 1.0], rtol=1e-5)
    stacked = features.reshape(4, 4, 3)
    np.testing.assert_allclose(diagnostics.singular_values(stacked), [4.0, 2.0, 1.0], rtol=1e-5)


def test_effective_rank_is_the_exponential_of_the_entropy():
    # Shares 1/2, 1/4, 1/4: entropy 1.5 log 2.
    rank = diagnostics.effective_rank(with_singular_values(2.0, 1.0, 1.0))
    assert value(rank) == pytest.approx(2**1.5, rel=1e-5)


def test_srank_sums_singular_values():
    # 90, 98, 100 % of the sum.
    features = with_singular_values(90.0, 8.0, 2.0)
    assert value(diagnostics.srank(features)) == 3.0
    assert value(diagnostics.srank(features, delta=0.05)) == 2.0
    assert value(diagnostics.srank(features, delta=0.15)) == 1.0
    assert value(diagnostics.srank(features, delta=0.0)) == 3.0


def test_approximate_rank_sums_their_squares():
    # 64 + 36 + 1 = 101; 99.01 % in two, 63.4 % in one.
    features = with_singular_values(8.0, 6.0, 1.0)
    assert value(diagnostics.approximate_rank(features)) == 2.0
    assert value(diagnostics.approximate_rank(features, delta=0.005)) == 3.0
    assert value(diagnostics.srank(features)) == 3.0


def test_feature_rank_counts_singular_values_per_root_of_samples():
    # 16 samples: the threshold is 0.04.
    features = with_singular_values(1.0, 0.05, 0.03)
    assert value(diagnostics.feature_rank(features)) == 2.0
    assert value(diagnostics.feature_rank(features, epsilon=0.1)) == 1.0
    repeated = np.concatenate([features] * 4)
    assert value(diagnostics.feature_rank(repeated)) == 2.0


def test_stable_rank_fro():
    features = with_singular_values(2.0, 1.0, 1.0)
    assert value(diagnostics.stable_rank_fro(features)) == pytest.approx(1.5, rel=1e-5)


@pytest.mark.parametrize("rank", RANKS)
def test_ranks_of_orthogonal_and_of_repeated_features(rank):
    assert value(rank(with_singular_values(*[3.0] * 5))) == pytest.approx(5.0, rel=1e-5)
    repeated = np.tile(f32([[1.0], [2.0], [3.0], [-4.0]]), (1, 3))
    assert value(rank(repeated)) == pytest.approx(1.0, rel=1e-4)


# Cases without an answer ----------------------------------------------------------------------------


NO_ROWS, ZEROS = np.zeros((0, 3), np.float32), np.zeros((8, 3), np.float32)


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (diagnostics.weight_norm, ([],), 0.0),
        (diagnostics.weight_rms, ([],), 0.0),
        (diagnostics.weight_max, ([],), 0.0),
        (diagnostics.weight_max, (NO_ROWS,), 0.0),
        (diagnostics.distance_from_init, (NO_ROWS, NO_ROWS), 0.0),
        (diagnostics.clipped_share, ([], 1.0), 0.0),
        (diagnostics.saturated_share, (NO_ROWS, 1.0), 0.0),
        (diagnostics.update_to_weight_ratio, (ZEROS, ZEROS), 0.0),
        (diagnostics.dormant_share, (ZEROS,), 1.0),
        (diagnostics.dormant_share, (NO_ROWS,), 1.0),
        (diagnostics.dead_units, (ZEROS,), 1.0),
        (diagnostics.dead_units, (NO_ROWS,), 1.0),
        (diagnostics.dead_units, (NO_ROWS, "tanh"), 1.0),
        (diagnostics.saturated_units, (NO_ROWS,), 0.0),
        *[(rank, (matrix,), 0.0) for rank in RANKS for matrix in (ZEROS, NO_ROWS)],
    ],
)
def test_cases_without_an_answer_return_what_they_say(function, arguments, expected):
    assert value(function(*arguments)) == expected


# Compilation ----------------------------------------------------------------------------------------


def everything(h, other):
    return {
        "norm": diagnostics.weight_norm([h, other]),
        "rms": diagnostics.weight_rms(h),
        "max": diagnostics.weight_max(h),
        "distance": diagnostics.distance_from_init(h, other),
        "clipped": diagnostics.clipped_share(h, 0.9),
        "saturated": diagnostics.saturated_share(h, 0.9),
        "ratio": diagnostics.update_to_weight_ratio(h, other),
        "scores": diagnostics.dormant_scores(h),
        "dormant": diagnostics.dormant_share(h, 0.98),
        "dead": diagnostics.dead_units(h, "tanh"),
        "dead relu": diagnostics.dead_units(tf.nn.relu(h)),
        "saturated units": diagnostics.saturated_units(h),
    }


def all_ranks(h, _):
    return {rank.__name__: rank(h) for rank in RANKS}


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("function", [everything, all_ranks])
def test_compiled_functions_agree_with_eager_ones(function, xla):
    rng = np.random.default_rng(0)
    h, other = (np.tanh(3 * rng.normal(size=(2, 64, 6)))).astype(np.float32)
    arguments = [tf.constant(x) for x in (h, other)]
    compiled = tf.function(function, jit_compile=xla, autograph=False)(*arguments)
    for name, expected in function(*arguments).items():
        np.testing.assert_allclose(compiled[name], expected, rtol=1e-4, err_msg=name)
