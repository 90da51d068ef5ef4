"""The table of a study: each arm with its interval, against the baseline, in Markdown."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlweights.experiments.results import Results
from rlweights.experiments.study_file import Measure
from rlweights.learning.intervals import (
    Interval,
    bootstrap_interval,
    comparison_interval,
    difference,
    interquartile_mean,
    probability_of_improvement,
)

FEWEST = 5
"""Runs of an arm, and of the baseline, that a verdict takes: the bootstrap of fewer is too sure of itself."""


@dataclass(frozen=True)
class Comparison:
    """An arm by one measure.

    Attributes:
        arm: Its name.
        baseline: The arm that it is compared with; None if others are compared with this one.
        scores: What was measured, by seed.
        mean: Interquartile mean, or the mean if the measure says so; None without scores.
        difference: Of these means, the arm's minus the baseline's; None for the baseline.
        improvement: Probability that a run of the arm is better than one of the baseline; None likewise.
        verdict: "better", "worse" or "" where the interval of the difference holds zero.
    """

    arm: str
    baseline: str | None
    scores: dict[int, float]
    mean: Interval | None = None
    difference: Interval | None = None
    improvement: Interval | None = None
    verdict: str = ""


def compare(results: Results, measure: int = 0) -> list[Comparison]:
    """Compares every arm that has scores with the baseline, by one of the study's measures."""
    file = results.plan.file
    lower, statistic = file.measures[measure].lower_is_better, _statistic(file.measures[measure])
    gap_of = functools.partial(difference, statistic=statistic)
    found = []
    for arm in file.arms:
        scores, baseline = results.scores(arm, measure), file.compared_with(arm)
        if not scores:
            found.append(Comparison(arm, baseline, scores))
            continue
        values = np.array([*scores.values()])
        mean = bootstrap_interval(values, statistic)
        base = np.array([*results.scores(baseline, measure).values()] if baseline else [])
        if not base.size:
            found.append(Comparison(arm, baseline, scores, mean))
            continue
        gap = comparison_interval(values, base, gap_of)
        pairs = (-values, -base) if lower else (values, base)
        improvement = None  # of deviations there is one for each arm, and nothing to pair
        if statistic is not _deviation:
            improvement = comparison_interval(*pairs, probability_of_improvement)
        verdict = ""
        if min(values.size, base.size) >= FEWEST:
            above, below = gap.low > 0.0, gap.high < 0.0
            verdict = {(True, False): "better", (False, True): "worse"}.get(
                (below, above) if lower else (above, below), ""
            )
        found.append(Comparison(arm, baseline, scores, mean, gap, improvement, verdict))
    return found


def _statistic(measure: Measure) -> Any:
    statistics = {"mean": np.mean, "standard_deviation": _deviation}
    return statistics.get(measure.over_seeds, interquartile_mean)


def _deviation(scores: Any, axis: int | None = None) -> Any:
    """The standard deviation of a sample; 0 of a single score."""
    return np.std(scores, axis=axis, ddof=1 if np.shape(scores)[-1 if axis is None else axis] > 1 else 0)


def markdown(results: Results, command: str) -> str:
    """Returns the table of a study: a function of its rows alone, so the same rows give the same bytes.

    Args:
        results: The finished trials.
        command: What trains and writes it.
    """
    plan = results.plan
    file = plan.file
    total, done = len(file.arms) * len(file.seeds), len(results.rows)
    state = f"All {total} trials are finished."
    if done < total:
        begun = {arm for arm, _ in results.rows}
        absent = ", ".join(arm for arm in file.arms if arm not in begun)
        state = f"**Partial: {done} of {total} trials are finished.** Nothing is claimed of the others."
        state += f" No trial yet of: {absent}." if absent else ""
    lines = [f"# {plan.name}", "", file.question, "", state, "", f"    {command}", ""]
    several = any(each.baseline for each in file.arms.values())
    base = "the arm that it is compared with" if several else f"`{file.baseline}`"
    lines += [
        f"Mean over seeds and its 95 % bootstrap interval; the difference to {base} and the "
        f"probability that a run is better than one of {'its' if several else base}, with theirs. An arm is "
        f"better or worse where the interval of the difference excludes zero, of {FEWEST} seeds or more.",
        "",
    ]
    for number, measure in enumerate(file.measures):
        lower = ", lower is better" if measure.lower_is_better else ""
        lines += [f"## {measure.title}", "", f"`{measure.tag}`, {_taken(measure)}{lower}.", ""]
        columns = ["compared with", "difference"] if several else [f"difference to {file.baseline}"]
        columns = [
            "arm",
            "seeds",
            measure.over_seeds.replace("_", " "),
            *columns,
            "P(better)",
            "",
            "each seed",
        ]
        lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        found = [each for each in compare(results, number) if each.scores]
        lines += [_row(each, len(file.seeds), several) for each in found]
        lines.append("")
    return "\n".join(lines)


def _row(each: Comparison, wanted: int, several: bool) -> str:
    count = f"{len(each.scores)}" if len(each.scores) == wanted else f"{len(each.scores)} of {wanted}"
    cells = [each.arm, count, _shown(each.mean), *([each.baseline or ""] if several else [])]
    cells += [_shown(each.difference), _shown(each.improvement, "{:.2f}"), each.verdict]
    cells.append(", ".join(_number(value) for value in each.scores.values()))
    return f"| {' | '.join(cells)} |"


def _shown(interval: Interval | None, form: str = "") -> str:
    if interval is None:
        return ""
    estimate, low, high = (
        form.format(each) if form else _number(each)
        for each in (interval.estimate, interval.low, interval.high)
    )
    return f"{estimate} [{low}, {high}]"


def _number(value: float) -> str:
    """Four digits at least where there is a fraction, thousands set apart."""
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 10 else 3
    return f"{value:,.{digits}f}"


def _taken(measure: Measure) -> str:
    what = measure.take.replace("_", " ")
    if measure.threshold is not None:
        what += f" {measure.threshold:g}"
    if measure.after:
        what += f", of the last {1 - measure.after:.0%} of the run".replace("%", " %")
    return what
