"""The `rlweights` script: everything under one name, and what all commands say alike."""

import re
import shutil
import subprocess
import sys

import pytest

import rlweights as rlweights_package
from rlweights import compare, evaluate, export, play, train
from support.commandline import refused


@pytest.mark.parametrize("command", ["evaluate", "play", "export", "compare"])
def test_no_run_is_one_line_and_code_2(rlweights, tmp_path, command):
    more = [tmp_path / "policy.keras"] if command == "export" else []
    assert "no run folder" in refused(rlweights(command, tmp_path / "nowhere", *more))


@pytest.mark.parametrize("command", ["evaluate", "play"])
def test_damaged_weights_are_one_line_and_code_3(rlweights, run, tmp_path, command):
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "best" / "weights.safetensors").write_bytes(b"\0" * 100)
    code, output, error = rlweights(command, copied, *(["--record", "x.gif"] if command == "play" else []))
    assert (code, output, error.count("\n")) == (3, "", 1)


def test_the_script_trains(rlweights, tmp_path):
    code, output, error = rlweights(
        "train", "cartpole_plain", "-n", 256, "--runs", tmp_path, "--quiet", "--seed", 7,
        "--set", "evaluation.final_episodes=2", "--set", "network.hidden_sizes=[4]",
    )  # fmt: skip
    assert (code, error) == (0, "")
    (folder,) = tmp_path.glob("cartpole_plain/7-*")
    facts = dict(line.split(None, 1) for line in output.splitlines())
    assert list(facts) == ["reached", "expected", "time", "run", "watch"]
    assert facts["run"] == str(folder)
    assert facts["watch"] == f"tensorboard --logdir {tmp_path}"


def test_the_script_trains_nothing_that_does_not_exist(rlweights, tmp_path):
    error = refused(rlweights("train", "cartpol", "--runs", tmp_path / "runs"))
    assert "Did you mean 'cartpole'?" in error
    assert not (tmp_path / "runs").exists()


def test_wrong_options_are_code_2(rlweights, run):
    for arguments in (["evaluate"], ["evaluate", run, "--episodes", "0"], ["train", "--seeds", "0"], ["fly"]):
        assert rlweights(*arguments)[0] == 2


def test_the_versions_are_told_without_tensorflow():
    script = "import sys; sys.argv[1:] = ['--version']; import runpy\n"
    script += "try: runpy.run_module('rlweights', run_name='__main__')\n"
    script += "except SystemExit as end: assert not end.code\n"
    script += "assert 'tensorflow' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        rf"rlweights {rlweights_package.__version__} \(tensorflow 2\S+, keras 3\S+, .*\)\n", done.stdout
    )


def test_the_script_knows_every_command(rlweights):
    code, output, _ = rlweights("--help")
    assert code == 0
    for command in ("train", "evaluate", "play", "export", "compare", "agents"):
        assert f" {command} " in output


@pytest.mark.parametrize("module", [train, evaluate, play, export, compare])
def test_each_module_has_its_own_main(module):
    assert callable(module.main)
