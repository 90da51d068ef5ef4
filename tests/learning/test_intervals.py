import functools
import itertools

import numpy as np
import pytest
from scipy import stats

from rlweights.learning.intervals import (
    bootstrap_interval,
    comparison_interval,
    difference,
    interquartile_mean,
    probability_of_improvement,
    stratified_bootstrap_interval,
    trend,
)

# Six seeds of four tasks, and what rliable 1.2.0 makes of them with 50,000 resamples.
SCORES = np.array(
    [
        [0.13, 4.74, 2.92, -2.58],
        [-0.54, 5.72, 4.91, 0.79],
        [-0.7, 2.47, -0.87, -2.83],
        [-2.33, 4.56, -2.74, -5.93],
        [-0.54, 4.37, 2.23, 1.17],
        [-0.13, 7.73, -1.0, -1.59],
    ]
)
RLIABLE_IQM = (0.49416667, -0.50252083, 1.47333333)
RLIABLE_MEAN = (0.83166667, 0.04083333, 1.62833333)


def test_interquartile_mean_leaves_out_a_quarter_at_each_end():
    assert interquartile_mean([100, 2, 3, -50]) == 2.5
    assert interquartile_mean([[8, 1], [2, 3], [4, 100], [5, -9]]) == (2 + 3 + 4 + 5) / 4
    # ⌊5 / 4⌋ = 1 at each end, ⌊3 / 4⌋ = 0.
    assert interquartile_mean([9, 1, 2, 3, 100]) == (2 + 3 + 9) / 3
    assert interquartile_mean([1, 2, 6]) == 3


def test_interquartile_mean_along_an_axis():
    scores = np.array([[100.0, 2, 3, -50], [1, 2, 3, 4]])
    np.testing.assert_array_equal(interquartile_mean(scores, axis=1), [2.5, 2.5])


def exact_interval(scores, statistic):
    """The percentile interval over all equally likely resamples: seeds within tasks."""
    seeds, tasks = scores.shape
    draws = list(itertools.product(range(seeds), repeat=seeds))
    values = [
        statistic(np.stack([scores[list(draw), k] for k, draw in enumerate(choice)]).ravel())
        for choice in itertools.product(draws, repeat=tasks)
    ]
    return np.percentile(values, [2.5, 97.5])


@pytest.mark.parametrize("statistic", [np.mean, interquartile_mean])
def test_interval_is_that_of_all_resamples(statistic):
    scores = np.array([0.0, 1.0, 5.0, 12.0])
    interval = bootstrap_interval(scores, statistic, resamples=50_000)
    assert interval.estimate == statistic(scores)
    np.testing.assert_allclose(
        (interval.low, interval.high), exact_interval(scores[:, None], statistic), atol=0.26
    )


def test_stratified_interval_is_that_of_all_resamples_within_tasks():
    scores = np.array([[0.0, 100.0], [1.0, 110.0], [5.0, 160.0]])
    interval = stratified_bootstrap_interval(scores, np.mean, resamples=50_000)
    assert interval.estimate == scores.mean()
    np.testing.assert_allclose((interval.low, interval.high), exact_interval(scores, np.mean), atol=1.0)


@pytest.mark.parametrize(
    ("statistic", "expected"), [(interquartile_mean, RLIABLE_IQM), (np.mean, RLIABLE_MEAN)]
)
def test_stratified_interval_agrees_with_rliable(statistic, expected):
    interval = stratified_bootstrap_interval(SCORES, statistic, resamples=50_000)
    assert interval.estimate == pytest.approx(expected[0])
    # Two sets of 50,000 resamples differ by about a hundredth.
    np.testing.assert_allclose((interval.low, interval.high), expected[1:], atol=0.03)


def test_strata_matter():
    """Pooling the tasks would let the large spread between them into the interval."""
    stratified = stratified_bootstrap_interval(SCORES, np.mean)
    pooled = bootstrap_interval(SCORES.ravel(), np.mean)
    assert pooled.high - pooled.low > 1.3 * (stratified.high - stratified.low)


def test_each_point_of_a_curve_has_its_own_interval():
    curves = stratified_bootstrap_interval(np.stack([SCORES, SCORES + 7.0, 0.0 * SCORES], axis=2))
    assert np.shape(curves.low) == np.shape(curves.high) == np.shape(curves.estimate) == (3,)
    single = stratified_bootstrap_interval(SCORES)
    np.testing.assert_allclose(curves.low, [single.low, single.low + 7.0, 0.0])
    np.testing.assert_allclose(curves.high, [single.high, single.high + 7.0, 0.0])
    points = bootstrap_interval(SCORES, np.median)
    assert np.shape(points.low) == (4,)
    assert points.low[1] == bootstrap_interval(SCORES[:, 1], np.median).low


def test_small_batches_of_resamples_cover_the_same_interval(monkeypatch):
    monkeypatch.setattr("rlweights.learning.intervals._ELEMENTS_AT_ONCE", 100)
    small = stratified_bootstrap_interval(SCORES, np.mean, resamples=2_000)
    np.testing.assert_allclose((small.low, small.high), RLIABLE_MEAN[1:], atol=0.15)


def test_higher_confidence_is_wider_and_covers_the_mean_as_often_as_it_says():
    assert (
        bootstrap_interval(SCORES[:, 0], confidence=0.5).low
        > bootstrap_interval(SCORES[:, 0], confidence=0.99).low
    )
    samples = np.random.default_rng(0).normal(size=(20, 400))
    interval = bootstrap_interval(samples, np.mean, confidence=0.8, resamples=1_000)
    covered = np.mean((interval.low <= 0) & (interval.high >= 0))
    assert 0.72 < covered < 0.86


def test_the_seed_decides():
    first, second, other = (bootstrap_interval(SCORES[:, 0], seed=s, resamples=50) for s in (1, 1, 2))
    assert first == second
    assert first != other


def test_normal_theory_for_many_scores():
    scores = stats.norm.ppf((np.arange(400) + 0.5) / 400)
    interval = bootstrap_interval(scores, np.mean)
    half = 1.96 * scores.std() / 20
    np.testing.assert_allclose((interval.low, interval.high), (-half, half), atol=0.005)


def test_scores_without_spread_have_intervals_without_width():
    for scores in ([3.0] * 5, [3.0]):
        interval = bootstrap_interval(scores)
        assert (interval.estimate, interval.low, interval.high) == (3.0, 3.0, 3.0)


@pytest.mark.parametrize("scores", [[], [1.0, float("nan")], [1.0, float("inf")]])
def test_scores_that_are_no_numbers_are_refused(scores):
    with pytest.raises(ValueError, match="Scores must be finite"):
        bootstrap_interval(scores)


def test_stratified_scores_need_tasks():
    with pytest.raises(ValueError, match="Scores must be finite"):
        stratified_bootstrap_interval([1.0, 2.0])


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_probability(confidence):
    with pytest.raises(ValueError, match=r"`confidence` must lie in"):
        bootstrap_interval([1.0, 2.0], confidence=confidence)


# Seven runs of one arm and six of another, and what rliable 1.2.0 makes of them with 50,000 resamples.
ONE = [1976.0, 1851.0, 1896.0, 2118.0, 2018.0, 1700.0, 1650.5]
OTHER = [-7.0, 1900.0, 320.0, 543.0, 376.0, 1851.0]
RLIABLE_ONE = (1888.2, 1749.6, 2021.2)
RLIABLE_IMPROVEMENT = (0.84523810, 0.57142857, 1.0)
RLIABLE_DIFFERENCE = (1115.7, 280.4, 1713.80375)


def test_the_interval_of_an_arm_agrees_with_rliable():
    interval = bootstrap_interval(ONE, resamples=50_000)
    assert interval.estimate == pytest.approx(RLIABLE_ONE[0])
    np.testing.assert_allclose((interval.low, interval.high), RLIABLE_ONE[1:], rtol=0.01)


@pytest.mark.parametrize(
    ("statistic", "expected", "tolerance"),
    [(probability_of_improvement, RLIABLE_IMPROVEMENT, 0.03), (difference, RLIABLE_DIFFERENCE, 25.0)],
)
def test_comparisons_agree_with_rliable(statistic, expected, tolerance):
    interval = comparison_interval(ONE, OTHER, statistic, resamples=50_000)
    assert interval.estimate == pytest.approx(expected[0])
    np.testing.assert_allclose((interval.low, interval.high), expected[1:], atol=tolerance)


def test_probability_of_improvement_counts_pairs():
    assert probability_of_improvement([1.0, 2.0], [1.0, 0.0, 5.0]) == (0.5 + 1 + 0 + 1 + 1 + 0) / 6
    assert probability_of_improvement(np.ones((4, 3)), np.zeros((4, 2))).tolist() == [1.0] * 4
    mirrored = probability_of_improvement(OTHER, ONE)
    assert mirrored == pytest.approx(1 - RLIABLE_IMPROVEMENT[0])


def test_differences_may_be_of_means():
    interval = comparison_interval([3.0, 5.0], [1.0], functools.partial(difference, statistic=np.mean))
    assert (interval.estimate, interval.low, interval.high) == (3.0, 2.0, 4.0)


def test_comparisons_in_small_batches_are_complete(monkeypatch):
    monkeypatch.setattr("rlweights.learning.intervals._ELEMENTS_AT_ONCE", 42 * 300)
    interval = comparison_interval(ONE, OTHER, resamples=10_001)
    np.testing.assert_allclose((interval.low, interval.high), RLIABLE_IMPROVEMENT[1:], atol=0.05)


@pytest.mark.parametrize("bad", [[], [np.nan], [[1.0]]])
def test_comparisons_need_finite_scores(bad):
    with pytest.raises(ValueError, match=r"finite numbers, \[runs\]"):
        comparison_interval(ONE, bad)


def test_a_trend_is_told_only_where_it_is_sure():
    rng = np.random.default_rng(0)
    assert trend(np.arange(20.0) + rng.normal(size=20)) == 1.0
    assert trend(-np.arange(20.0)) == -1.0
    assert trend(rng.normal(size=20)) == 0.0
    assert trend([1.0, 1.0, 1.0]) == 0.0
