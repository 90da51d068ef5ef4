"""Processes of their own: as many as there are cores, and what each says of its end."""

import signal
import subprocess
import sys
import time

from rlweights.experiments import workers


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
    deadline, cores = time.monotonic() + 90, min(3, workers.cores())
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
