"""Studies: what is missing is trained, what is finished counts, and the same rows give the same bytes."""

import contextlib
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from rlweights import study as door
from rlweights.errors import ConfigError
from rlweights.experiments import study as studies
from rlweights.experiments import tables
from rlweights.experiments.results import POINTS, Results, measured, read_trial
from rlweights.experiments.study import Study
from rlweights.experiments.study_file import Measure, Plan
from support.commandline import invoke
from support.simulated import assert_same_result, result
from support.studies import Killed, Pretended, files_of, study_file


@pytest.fixture
def path(tmp_path):
    return study_file(tmp_path)


def finished(path, folder, **pretended):
    with Pretended(**pretended).instead() as trials:
        code = Study(path, folder=folder).run(quiet=True)
    return code, trials.trained


def test_everything_is_trained_once_the_first_seed_of_all_arms_first(path, tmp_path):
    code, trained = finished(path, tmp_path / "runs")
    assert code == 0
    assert trained[:4] == ["plain, seed 3", "small, seed 3", "clipped, seed 3", "plain, seed 4"]
    assert len(trained) == 9
    before = files_of(tmp_path / "runs")
    assert finished(path, tmp_path / "runs") == (0, [])
    assert files_of(tmp_path / "runs") == before
    assert (tmp_path / "runs" / "curves.png").stat().st_size > 10_000
    assert "All 9 trials are finished." in before["table.md"].decode()


def test_killed_ten_times_it_ends_with_the_same_table(path, tmp_path):
    finished(path, tmp_path / "whole")
    rng, trained = random.Random(0), []
    for _ in range(10):
        pretended = Pretended(dies_after=rng.randrange(3))
        with pretended.instead(), contextlib.suppress(Killed):
            Study(path, folder=tmp_path / "killed").run(quiet=True)
        trained += pretended.trained
    code, rest = finished(path, tmp_path / "killed")
    assert code == 0
    assert len(trained + rest) > 9  # a trial whose row was not written yet is looked at again
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_arms_and_seeds_can_be_chosen_and_the_rest_stays_missing(path, tmp_path):
    study = Study(path, folder=tmp_path / "runs")
    assert study.missing(["small", "plain"], 1) == [("plain", 3), ("small", 3)]
    with Pretended().instead() as trials:
        study.run(["plain"], 2, quiet=True)
    assert trials.trained == ["plain, seed 3", "plain, seed 4"]
    table = (tmp_path / "runs" / "table.md").read_text()
    assert "**Partial: 2 of 9 trials are finished.** Nothing is claimed of the others." in table
    assert "No trial yet of: small, clipped." in table
    assert "| plain | 2 of 3 |" in table
    with pytest.raises(ConfigError, match=r"--arms = 'smal': is no arm\. Did you mean 'small'"):
        study.missing(["smal"])
    with pytest.raises(ConfigError, match="--seeds 4: the study has 3 seeds"):
        study.missing(seeds=4)


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


def test_a_trial_that_fails_is_told_and_the_others_go_on(path, tmp_path):
    with Pretended(fails=("small, seed 4",)).instead() as trials:
        study = Study(path, folder=tmp_path / "runs")
        assert study.run(quiet=True) == 3
    assert len(trials.trained) == 8
    assert study.failed == {"small, seed 4": "not finite at step 12"}
    assert study.missing() == [("small", 4)]


def test_the_table_says_better_only_where_the_interval_excludes_zero(path, tmp_path):
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


def test_a_rerun_takes_other_seeds_and_has_results_of_its_own(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Pretended().instead() as trials:
        study = Study(path, first_seed=100)
        study.run(["plain"], quiet=True)
    assert trials.trained == ["plain, seed 100", "plain, seed 101", "plain, seed 102"]
    table = (tmp_path / "runs" / "studies" / "discount-from-100" / "table.md").read_text()
    assert "python -m rlweights.study discount --first-seed 100" in table
    with pytest.raises(ConfigError, match="--first-seed -1: must be 0 at least"):
        Study(path, first_seed=-1)


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


def test_the_command(path, tmp_path):
    with Pretended().instead():
        code, output, errors = invoke(
            door.app, path, "--runs", tmp_path / "runs", "--seeds", 1, "--workers", 1
        )
    assert (code, errors) == (0, "")
    assert "3 to train, 0 finished, 1 at once" in output
    assert "plain, seed 3" in output
    assert str(tmp_path / "runs" / "table.md") in output.replace("\n", "")
    (tmp_path / "runs" / "table.md").unlink()
    code, output, errors = invoke(door.app, path, "--runs", tmp_path / "runs", "--show")
    assert (code, errors) == (0, "")
    assert (tmp_path / "runs" / "table.md").exists()
    assert len(Results(Plan(path), tmp_path / "runs").rows) == 3
    code, output, errors = invoke(door.app, "turning_cheetah")
    assert (code, output) == (2, "")
    assert "Did you mean 'turning_half_cheetah'" in errors
    code, output, _ = invoke(door.app)
    assert code == 0
    assert "far_end_of_the_chain" in output


KILLED_STUDY = """\
question = "Is a small discount better?"
agent = "cartpole_xla"
seeds = [3, 4]
baseline = "plain"
rules = []

[set]
"budget.total_timesteps" = 200_000
"checkpoint.every" = 20_480
"evaluation.every" = 51_200
"evaluation.film_frames" = 0

[[measures]]
title = "return"
tag = "rollout/ep_rew_mean"

[arms.plain]

[arms.small]
set = { "algorithm.gamma" = 0.9 }
"""


@pytest.mark.slow
def test_processes_killed_ten_times_at_random_end_with_the_same_table(tmp_path):
    """SIGKILL to the study's own process: its trials end with it, and go on from their checkpoints."""
    path = tmp_path / "discount.toml"
    path.write_text(KILLED_STUDY)

    def command(folder):
        return [sys.executable, "-m", "rlweights.study", str(path), "--workers", "2", "--runs", str(folder)]

    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    rng = random.Random(0)
    for _ in range(10):
        process = subprocess.Popen(command(tmp_path / "killed"), stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(5.0, 30.0))
        process.kill()
        process.wait()
    subprocess.run(command(tmp_path / "killed"), check=True, capture_output=True)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    for run in ("plain/3", "plain/4", "small/3", "small/4"):
        assert_same_result(result(tmp_path / "killed" / run), result(tmp_path / "whole" / run))
