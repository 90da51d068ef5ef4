"""Results of a study: rows that count as finished, rows that do not mix, and what a row is made of."""

import shutil

import numpy as np
import pytest

from rlweights.errors import ConfigError
from rlweights.experiments import study as studies
from rlweights.experiments.results import POINTS, measured, read_trial
from rlweights.experiments.study import Study
from rlweights.experiments.study_file import Measure, Plan
from support.studies import files_of, finished, study_file


@pytest.fixture
def path(tmp_path):
    return study_file(tmp_path)


def test_committed_rows_count_as_finished_on_another_machine(path, tmp_path, monkeypatch):
    finished(path, tmp_path / "here")
    monkeypatch.setattr(studies, "RESULTS", tmp_path / "committed")
    (tmp_path / "committed" / "discount").mkdir(parents=True)
    for name in ("results.csv", "curves.csv"):
        shutil.copy(tmp_path / "here" / name, tmp_path / "committed" / "discount")
    assert finished(path, tmp_path / "there") == (0, [])
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")
    (tmp_path / "committed" / "discount" / "curves.csv").unlink()
    assert len(finished(path, tmp_path / "elsewhere")[1]) == 9  # a row without its curve does not count


def test_a_changed_study_refuses_to_mix(path, tmp_path):
    finished(path, tmp_path / "runs")
    before = files_of(tmp_path / "runs")
    study_file(tmp_path, ('"algorithm.gamma" = 0.9', '"algorithm.gamma" = 0.8'))
    with pytest.raises(
        ConfigError, match=r"results\.csv: small, seed 3 was trained as \w+, and by .* it is \w+"
    ):
        Study(path, folder=tmp_path / "runs")
    study_file(tmp_path, ("seeds = [3, 4, 5]", "seeds = [3, 4]"))
    with pytest.raises(ConfigError, match=r"holds plain, seed 5, which .* does not have any more"):
        Study(path, folder=tmp_path / "runs")
    assert files_of(tmp_path / "runs") == before


def test_what_is_measured():
    steps, values = np.arange(100, 1100, 100.0), np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 0])

    def take(take, after=0.0, threshold=None):
        return measured(
            Measure(title="t", tag="t", take=take, after=after, threshold=threshold), steps, values, 1000
        )

    assert take("mean") == 4.5
    assert take("mean", 0.5) == 6.0  # of what lies beyond step 500
    assert (take("max"), take("last")) == (9.0, 0.0)
    assert take("share_at_least", 0.0, 4.0) == 0.6
    assert take("share_below", 0.5, 7.0) == 0.4
    assert take("first_step_at_least", 0.0, 3.5) == 400.0
    assert take("first_step_at_least", 0.0, 99.0) == 1000.0  # never: the whole run


def test_a_trial_is_read_from_its_records(path, tmp_path):
    finished(path, tmp_path / "runs")
    folder = tmp_path / "runs" / "plain" / "3"
    row = read_trial(Plan(path), folder)
    assert row.env_steps == 4096
    assert len(row.curve) == POINTS
    np.testing.assert_allclose(np.diff(row.curve[10:]), row.curve[11] - row.curve[10], rtol=1e-3)
    (folder / "progress.csv").write_text("env_steps,other\n512,1.0\n")
    with pytest.raises(
        ConfigError, match=r"its records hold no 'rollout/ep_rew_mean', which the study measures"
    ):
        read_trial(Plan(path), folder)
    with pytest.raises(ConfigError, match=r"progress\.csv: No such file"):
        read_trial(Plan(path), tmp_path)
