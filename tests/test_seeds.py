"""Several seeds at once: each is the run that its seed gives alone, and the summary is about all of them."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest

from rlweights import seeds, session
from rlweights.records import read_scalars

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
        assert session.train("cartpole_plain", None, [*TINY, "seed=4"], tmp_path, quiet=True) == 0
    (alone,), (among,) = tmp_path.glob("*/*"), two[0].glob("*/4-*")
    assert (alone / "progress.csv").read_bytes() == (among / "progress.csv").read_bytes()


def test_the_summary_has_every_seed_and_the_mean_with_its_interval(two):
    runs, (_, output, _) = two
    summary = dict(re.split(r" {2,}", line, maxsplit=1) for line in output.rpartition("\n\n")[2].splitlines())
    assert list(summary) == ["seed 3", "seed 4", "mean", "expected", "compare"]
    means = []
    for seed in (3, 4):
        (folder,) = runs.glob(f"*/{seed}-*")
        means.append(read_scalars(folder)["eval/mean_reward"][-1][1])
        assert summary[f"seed {seed}"].startswith(f"{means[-1]:.1f} +- ")
        assert summary[f"seed {seed}"].endswith(str(folder))
    low, high = sorted(f"{mean:.1f}" for mean in means)
    low, high = sorted((low, high), key=float)
    assert summary["mean"] == f"{np.mean(means):.1f} [{low}, {high}], 95 % interval over 2 seeds"
    assert summary["expected"] == "475.0"


def test_no_more_run_at_once_than_there_are_cores(monkeypatch, tmp_path):
    running, most, lock = 0, 0, threading.Lock()

    class Slow:
        returncode = 0

        def __init__(self, command, **options):
            self.seed = command[-1]

        def __enter__(self):
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            return self

        def __exit__(self, *error):
            nonlocal running
            with lock:
                running -= 1

        def communicate(self):
            time.sleep(0.05)
            return '{"code": 0, "run": "r", "seconds": 1.0, "mean": 1.0, "std": 0.0}\n', ""

    monkeypatch.setattr(seeds.subprocess, "Popen", Slow)
    monkeypatch.setattr(seeds, "_cores", lambda: 3)
    code, output, _ = trained(7, tmp_path)
    assert code == 0
    assert most == 3
    assert "seeds 0 to 6, 3 at once" in output
    assert "1.0 [1.0, 1.0], 95 % interval over 7 seeds" in output


def test_what_is_wrong_for_all_is_one_line_and_starts_nothing(tmp_path):
    code, output, error = trained(2, tmp_path / "runs", agent="cartpol")
    assert (code, output, error.count("\n")) == (2, "", 1)
    assert "Did you mean 'cartpole'?" in error
    code, output, error = trained(2, tmp_path / "runs", f"seed={2**31 - 1}")
    assert (code, output, error.count("\n")) == (2, "", 1)
    assert not (tmp_path / "runs").exists()


def test_an_error_of_all_processes_is_said_once(tmp_path):
    code, output, error = trained(2, tmp_path / "runs", "network.activation=tanhh", quiet=True)
    assert code == 2
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    assert "Did you mean 'tanh'?" in error
    assert output.count("failed") == 2
    assert "mean" not in output


def test_seeds_do_not_go_with_resume(tmp_path):
    command = [sys.executable, "-m", "rlweights.train", "--seeds", "2", "--resume", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 2
    assert "it does not go with --resume" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_signal_stops_every_seed_and_their_weights_are_saved(tmp_path):
    command = [
        sys.executable,
        "-m",
        "rlweights.train",
        "cartpole_plain",
        "--seeds",
        "3",
        "--runs",
        str(tmp_path),
    ]
    command += ["-n", "100_000_000", "--set", "evaluation.every=0", "--set", "network.hidden_sizes=[4]"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    deadline, cores = time.monotonic() + 90, min(3, seeds._cores())
    while time.monotonic() < deadline and sum(1 for _ in tmp_path.glob("*/*/progress.csv")) < cores:
        time.sleep(0.2)
    time.sleep(1.0)  # past the first compilation, or not: both must stop
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error == ""
    assert output.count("stopped") >= 3
    folders = list(tmp_path.glob("*/*"))
    assert len(folders) == cores  # none was started after the signal
    assert all((folder / "latest" / "weights.safetensors").is_file() for folder in folders)
