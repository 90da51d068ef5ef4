"""Processes of their own: as many as there are cores, and what each says of its end."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from rlweights import backend
from rlweights.experiments import workers
from rlweights.experiments.workers import Trial


def test_a_process_says_in_one_line_what_went_wrong(tmp_path, capsys):
    trial = workers.Trial("one", "cartpole_plain", None, ("network.activation=tanhh",), tmp_path / "runs")
    assert workers.Trial.from_json(trial.to_json()) == trial
    assert workers._process(trial.to_json()) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith("error: ")
    assert error.endswith("Did you mean 'tanh'?\n")


def test_a_signal_stops_every_seed_and_their_weights_are_saved(tmp_path):
    options = f"cartpole_plain --seeds 3 --runs {tmp_path} -n 100_000_000"
    options += " --set evaluation.every=0 --set network.hidden_sizes=[4]"
    command = [sys.executable, "-m", "rlweights.train", *options.split()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline, cores = time.monotonic() + 90, min(3, backend.cores())
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


def test_a_trial_is_a_line_and_back():
    trial = Trial("a, seed 1", "cartpole", None, ("seed=1", 'x="é"'), Path("runs"), Path("here/1"), 1)
    assert Trial.from_json(trial.to_json()) == trial
    assert "\n" not in trial.to_json()
    without = Trial("a", "cartpole")
    assert Trial.from_json(without.to_json()) == without


def test_threads_are_told_by_variables():
    assert workers._environment(0) is None
    environment = workers._environment(1)
    assert environment is not None
    assert environment["TF_NUM_INTRAOP_THREADS"] == environment["TF_NUM_INTEROP_THREADS"] == "1"


def test_a_process_ends_when_its_parent_is_gone(tmp_path):
    trial = Trial(
        "t", "cartpole_plain", None, ("budget.total_timesteps=100_000_000",), folder=tmp_path / "run"
    )
    command = [sys.executable, "-m", "rlweights.experiments.workers", trial.to_json()]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()  # what the operating system does when a parent dies
    assert process.wait(timeout=120) == 3
    process.stdout.close()
    process.stderr.close()


def test_how_far_a_trial_is_is_told_line_by_line(monkeypatch):
    lines, told = (
        ['{"env_steps": 5, "return": null, "rate": 2.0}', "[a library] says", '{"code": 0, "run": "r"}'],
        [],
    )

    class Process:
        returncode, stdout = 0, lines

        def __init__(self, command, **options):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(workers.subprocess, "Popen", Process)
    trial = Trial("a", "cartpole")
    (ended,) = workers.Processes(1, lambda *each: told.append(each)).train([trial])
    assert told == [(trial, 5, None, 2.0)]
    assert (ended.code, ended.facts) == (0, {"run": "r"})


def test_a_trial_does_not_tell_too_often(monkeypatch):
    now, file = [100.0], io.StringIO()
    monkeypatch.setattr(workers.time, "monotonic", lambda: now[0])
    tell = workers._teller(file)
    for seconds, steps in ((0.0, 1), (0.1, 2), (0.2, 3)):
        now[0] += seconds
        tell(steps, 1.5, None)
    assert [json.loads(line)["env_steps"] for line in file.getvalue().splitlines()] == [1, 3]
