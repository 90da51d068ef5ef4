"""The table of a study: statistics, comparisons with the baseline, and what is said of them."""

import numpy as np
import pytest

from rlweights.experiments import tables
from rlweights.experiments.results import Results
from rlweights.experiments.study_file import Plan
from support.studies import finished, study_file


@pytest.fixture
def path(tmp_path):
    return study_file(tmp_path)


def test_few_seeds_decide_nothing(path, tmp_path):
    finished(path, tmp_path / "runs")
    assert {each.verdict for each in tables.compare(Results(Plan(path), tmp_path / "runs"))} == {""}


def test_the_table_says_better_only_where_the_interval_excludes_zero(path, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "FEWEST", 3)
    finished(path, tmp_path / "runs")
    plan = Plan(path)
    results = Results(plan, tmp_path / "runs")

    def put(arm, values):
        for seed, value in zip(plan.file.seeds, values, strict=True):
            row = results.rows[arm, seed]
            results.rows[arm, seed] = type(row)(row.env_steps, (value, value), row.curve)

    put("plain", [10.0, 11.0, 12.0])
    put("small", [20.0, 21.0, 25.0])
    put("clipped", [9.0, 10.0, 30.0])
    plain, small, clipped = tables.compare(results)
    assert (plain.verdict, small.verdict, clipped.verdict) == ("", "better", "")
    assert small.difference.estimate == pytest.approx(11.0)
    assert small.improvement.estimate == 1.0
    assert plain.difference is None
    # Of the second measure the smaller number wins.
    assert tables.compare(results, 1)[1].verdict == "worse"
    assert tables.compare(results, 1)[1].improvement.estimate == 0.0
    text = tables.markdown(results, "the command")
    interval = f"11.0 [{small.difference.low:.3f}, {small.difference.high:.1f}]"
    assert f"| small | 3 | 22.0 [20.0, 25.0] | {interval} | 1.00 [1.00, 1.00] | better |" in text
    assert "20.0, 21.0, 25.0 |" in text
    assert "    the command\n" in text


def test_deviations_over_seeds_are_compared_as_well(tmp_path):
    path = study_file(tmp_path, ("after = 0.5", 'after = 0.5\nover_seeds = "standard_deviation"'))
    finished(path, tmp_path / "runs")
    results = Results(Plan(path), tmp_path / "runs")
    for each in tables.compare(results):
        values = [*each.scores.values()]
        assert each.mean is not None
        assert each.mean.estimate == pytest.approx(np.std(values, ddof=1))
        assert each.improvement is None
    assert "| standard deviation |" in tables.markdown(results, "")


def test_an_arm_may_have_a_baseline_of_its_own(tmp_path):
    path = study_file(tmp_path, ("bound = 3.0 }]", 'bound = 3.0 }]\nbaseline = "small"'))
    finished(path, tmp_path / "runs")
    results = Results(Plan(path), tmp_path / "runs")
    plain, small, clipped = tables.compare(results)
    assert (plain.baseline, small.baseline, clipped.baseline) == (None, None, "small")
    assert small.difference is None
    assert clipped.difference.estimate == pytest.approx(clipped.mean.estimate - small.mean.estimate)
    text = tables.markdown(results, "")
    assert "| compared with | difference |" in text
    assert "| small | " in text
