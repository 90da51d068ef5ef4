"""Studies: what is missing is trained, what is finished counts, and the same rows give the same bytes."""

import contextlib
import random
import subprocess
import sys
import time

import pytest

from rlweights.errors import ConfigError
from rlweights.experiments.study import Study
from support.simulated import assert_same_result, result
from support.studies import Killed, Pretended, files_of, finished, study_file


@pytest.fixture
def path(tmp_path):
    return study_file(tmp_path)


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


def test_a_trial_that_fails_is_told_and_the_others_go_on(path, tmp_path):
    with Pretended(fails=("small, seed 4",)).instead() as trials:
        study = Study(path, folder=tmp_path / "runs")
        assert study.run(quiet=True) == 3
    assert len(trials.trained) == 8
    assert study.failed == {"small, seed 4": "not finite at step 12"}
    assert study.missing() == [("small", 4)]


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
