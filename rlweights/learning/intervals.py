"""How sure a number from a few runs is: interquartile means and bootstrap intervals.

Reference: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", 2021,
https://arxiv.org/abs/2108.13264; results agree with the authors' library, rliable.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rlweights.weights.arrays import Array

_ELEMENTS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A point estimate with the bounds of its confidence interval: numbers, or arrays of one shape."""

    estimate: Any
    low: Any
    high: Any


def interquartile_mean(scores: ArrayLike, axis: int | None = None) -> Any:
    """Returns the mean of the middle half: the lowest and the highest quarter of the scores are left out.

    Of n scores ⌊n / 4⌋ go at each end, so up to three scores give their plain mean.

    Args:
        scores: Array of any shape.
        axis: The axis to reduce; None: all.
    """
    if axis is None:
        scores, axis = np.ravel(scores), 0
    return stats.trim_mean(scores, 0.25, axis=axis)


def bootstrap_interval(
    scores: ArrayLike,
    statistic: Callable[..., Any] = interquartile_mean,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 10_000,
) -> Interval:
    """Estimates a statistic of independent scores, with its percentile bootstrap interval.

    Args:
        scores: [seeds] or [seeds, ...]: each of the trailing entries, for example the points of a learning
            curve, has an interval of its own.
        statistic: Takes an array and an `axis`, like `numpy.mean` or `interquartile_mean`.
        confidence: Probability in (0, 1) that the interval is meant to have.
        seed: Seed of the resampling.
        resamples: Number of resamples; rliable's papers use 50,000 for final figures.

    Returns:
        Estimate and bounds: floats, or arrays of the trailing shape. A single seed gives an interval without
        width, since it says nothing about the spread.

    Raises:
        ValueError: If there are no scores, if one is not finite, or if `confidence` is not a probability.
    """
    scores = np.asarray(scores, np.float64)
    return stratified_bootstrap_interval(scores[:, None], statistic, confidence, seed, resamples)


def stratified_bootstrap_interval(
    scores: ArrayLike,
    statistic: Callable[..., Any] = interquartile_mean,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 10_000,
) -> Interval:
    """Estimates a statistic over seeds and tasks, with its stratified percentile bootstrap interval.

    Seeds are resampled with replacement within each task, independently of the other tasks; tasks are not
    resampled. The statistic pools what it gets: all seeds of all tasks.

    Args:
        scores: [seeds, tasks] or [seeds, tasks, ...], of tasks that are measured on one scale. Trailing
            entries are as for `bootstrap_interval`; its other arguments, too.
        statistic: See `bootstrap_interval`.
        confidence: See `bootstrap_interval`.
        seed: See `bootstrap_interval`.
        resamples: See `bootstrap_interval`.

    Returns:
        See `bootstrap_interval`.

    Raises:
        ValueError: See `bootstrap_interval`.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim < 2 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"Scores must be finite numbers, [seeds, tasks, ...]. Received: {scores}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"`confidence` must lie in (0, 1). Received: {confidence}")
    tasks = tuple(np.moveaxis(scores, 1, 0))

    def pooled(*tasks: Array, axis: int) -> Any:
        return statistic(np.concatenate(tasks, axis=axis), axis=axis)

    estimate = pooled(*tasks, axis=0)
    if len(scores) == 1:
        return Interval(estimate, estimate, estimate)
    low, high = stats.bootstrap(
        tasks,
        pooled,
        axis=0,
        n_resamples=resamples,
        batch=max(1, _ELEMENTS_AT_ONCE // scores.size),
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(estimate, low, high)


def probability_of_improvement(x: ArrayLike, y: ArrayLike, axis: int = -1) -> Any:
    """Returns the probability that a run of X scores higher than a run of Y; ties count as half.

    Args:
        x: Scores of X: its runs lie along `axis`.
        y: Scores of Y; the number of its runs may differ.
        axis: The axis of the runs, which is reduced.

    Reference: Agarwal et al. 2021, section 4.3: the Mann-Whitney U statistic, divided by the number of pairs.
    """
    x, y = (np.moveaxis(np.asarray(each), axis, -1) for each in (x, y))
    x, y = x[..., :, None], y[..., None, :]
    return np.mean((x > y) + 0.5 * (x == y), axis=(-2, -1))


def comparison_interval(
    x: ArrayLike,
    y: ArrayLike,
    statistic: Callable[..., Any] = probability_of_improvement,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 10_000,
) -> Interval:
    """Estimates a statistic that compares two groups of runs, with its percentile bootstrap interval.

    The runs of each group are resampled with replacement, independently of the other group.

    Args:
        x: Scores of one group [runs].
        y: Scores of the other [runs].
        statistic: Takes two arrays and an `axis`: `probability_of_improvement`, `difference`.
        confidence: See `bootstrap_interval`.
        seed: See `bootstrap_interval`.
        resamples: See `bootstrap_interval`.

    Raises:
        ValueError: If there are no scores, or if one is not finite.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    for scores in (x, y):
        if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
            raise ValueError(f"Scores must be finite numbers, [runs]. Received: {scores}")
    rng = np.random.default_rng(seed)
    estimates = [
        statistic(
            *(each[rng.integers(each.size, size=(count, each.size))] for each in (x, y)),
            axis=-1,
        )
        for count in _batches(resamples, x.size * y.size)
    ]
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(np.concatenate(estimates), [tail, 100 - tail])
    return Interval(float(statistic(x, y, axis=-1)), float(low), float(high))


def difference(
    x: ArrayLike, y: ArrayLike, axis: int = -1, statistic: Callable[..., Any] = interquartile_mean
) -> Any:
    """Returns a statistic of X minus that of Y (other arguments as `probability_of_improvement`)."""
    return statistic(x, axis=axis) - statistic(y, axis=axis)


def _batches(total: int, elements: int) -> list[int]:
    """Cuts `total` resamples into parts that fit into memory."""
    most = max(1, _ELEMENTS_AT_ONCE // elements)
    return [most] * (total // most) + [total % most] * (total % most > 0)


def trend(values: ArrayLike, confidence: float = 0.99) -> float:
    """Returns the direction of a series by the Mann-Kendall test: 1.0, -1.0, or 0.0 where it is not sure.

    Args:
        values: The series [rows], at equal distances.
        confidence: Of the two-sided test.
    """
    values = np.asarray(values, float)
    result = stats.kendalltau(np.arange(len(values)), values)
    sure = result.pvalue < 1.0 - confidence
    return float(np.sign(result.statistic)) if sure else 0.0
