"""Several seeds at once: each is the run that its seed gives alone, and the summary is about all of them."""

import io
import json
import re
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from rlweights import train
from rlweights.experiments import seeds, workers
from rlweights.running.recipe import Recipe
from rlweights.running.records.event_file import read_scalars

TINY = ["budget.total_timesteps=256", "evaluation.final_episodes=4", "network.hidden_sizes=[4]"]


def trained(count, runs, *overrides, agent="cartpole_plain", quiet=False):
    """Trains in processes; returns exit code, standard output and standard error."""
    out, error = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(error):
        code = seeds.train_seeds(agent, None, [*TINY, *overrides], runs, quiet, False, count)
    return code, out.getvalue(), error.getvalue()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two seeds, from 3 on."""
    runs = tmp_path_factory.mktemp("runs")
    return runs, trained(2, runs, "seed=3")


def test_each_seed_has_a_run_folder_of_its_own(two):
    runs, (code, _, error) = two
    assert (code, error) == (0, "")
    folders = sorted(runs.glob("cartpole_plain/*"))
    assert [folder.name.partition("-")[0] for folder in folders] == ["3", "4"]
    assert [(folder / "agent.toml").read_text().splitlines()[1] for folder in folders] == [
        "seed = 3",
        "seed = 4",
    ]


def test_a_seed_among_others_is_the_run_that_it_is_alone(two, tmp_path):
    with redirect_stdout(io.StringIO()):
        Recipe("cartpole_plain", [*TINY, "seed=4"]).begin(tmp_path, quiet=True)
    (alone,), (among,) = tmp_path.glob("*/*"), two[0].glob("*/4-*")
    assert (alone / "progress.csv").read_bytes() == (among / "progress.csv").read_bytes()


def test_the_summary_is_the_mean_with_its_interval_below_a_line_for_each_seed(two):
    runs, (_, output, _) = two
    table, _, end = output.rpartition("\n\n")
    summary = dict(re.split(r" {2,}", line, maxsplit=1) for line in end.splitlines())
    assert list(summary) == ["mean", "expected", "compare"]
    means = []
    for seed in (3, 4):
        (folder,) = runs.glob(f"*/{seed}-*")
        means.append(read_scalars(folder)["eval/mean_reward"][-1][1])
        (line,) = [each for each in table.splitlines() if each.startswith(f"seed {seed} ")]
        assert line.split()[2:4] == [f"{means[-1]:.1f}", "+-"]
        assert line.endswith(str(folder))
    low, high = sorted(means)
    assert summary["mean"] == f"{np.mean(means):.1f} [{low:.1f}, {high:.1f}], 95 % interval over 2 seeds"
    assert summary["expected"] == "475.0"
    assert output.count("seed 3") == 1


def test_all_seeds_move_one_bar():
    moved = []
    console = SimpleNamespace(move=lambda *each: moved.append(each))
    together = seeds._Together(console)  # pyright: ignore[reportArgumentType]
    one, two = (workers.Trial(name, "cartpole") for name in ("seed 0", "seed 1"))
    together(one, 100, None, None)
    together(two, 50, 20.0, 1000.0)
    together(one, 200, 40.0, 500.0)
    assert moved == [(100, None, None), (150, 20.0, 1000.0), (250, 30.0, 1500.0)]


@pytest.fixture
def pretend(monkeypatch):
    """Puts something in the place of the processes: (exit code, output, errors) of each."""
    most_at_once = [0]

    def replace(outcome):
        running, lock = [0], threading.Lock()

        class Process:
            returncode, output, errors = outcome

            def __init__(self, command, **options):
                print(self.errors, file=options["stderr"])

            @property
            def stdout(self):
                time.sleep(0.05)
                return self.output.splitlines()

            def __enter__(self):
                with lock:
                    running[0] += 1
                    most_at_once[0] = max(most_at_once[0], running[0])
                return self

            def __exit__(self, *error):
                with lock:
                    running[0] -= 1

        monkeypatch.setattr(workers.subprocess, "Popen", Process)
        return most_at_once

    return replace


def test_no_more_run_at_once_than_there_are_cores(pretend, monkeypatch, tmp_path):
    facts = {"code": 0, "run": "r", "seconds": 1.0, "mean": 1.0, "std": 0.0}
    most_at_once = pretend((0, json.dumps(facts) + "\n", ""))
    monkeypatch.setattr(seeds, "cores", lambda: 3)
    code, output, _ = trained(7, tmp_path)
    assert code == 0
    assert most_at_once == [3]
    assert "seeds 0 to 6, 3 at once" in output
    assert "1.0 [1.0, 1.0], 95 % interval over 7 seeds" in output


@pytest.mark.parametrize(
    ("outcome", "code", "word", "error"),
    [
        ((2, "", "some noise\nerror: it is wrong\n"), 2, "failed", "error: it is wrong\n"),
        ((1, "", ""), 1, "failed", "error: it said nothing\n"),
        ((-9, "", ""), 137, "stopped", ""),
    ],
)
def test_what_went_wrong_in_all_processes_is_said_once(pretend, tmp_path, outcome, code, word, error):
    pretend(outcome)
    found = trained(2, tmp_path, quiet=True)
    assert (found[0], found[2]) == (code, error)
    assert found[1].count(word) == 2, "quiet: a line for each in the summary"
    assert "interval" not in found[1]


def test_what_is_wrong_for_all_is_one_line_and_starts_nothing(tmp_path):
    code, output, error = trained(2, tmp_path / "runs", agent="cartpol")
    assert (code, output, error.count("\n")) == (2, "", 1)
    assert "Did you mean 'cartpole'?" in error
    code, output, error = trained(2, tmp_path / "runs", f"seed={2**31 - 1}")
    assert (code, output, error.count("\n")) == (2, "", 1)
    assert not (tmp_path / "runs").exists()


def test_seeds_do_not_go_with_resume(tmp_path):
    result = CliRunner().invoke(
        train.app, ["--seeds", "2", "--resume", str(tmp_path)], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 2
    assert "it does not go with --resume" in result.stderr
