"""`python -m rlweights.train`: whatever cannot be trained is one line, exit code 2, and no run folder."""

import contextlib
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlweights import train
from rlweights.running import session
from rlweights.running.config import agent_file
from rlweights.running.outcome import Outcome
from rlweights.running.recipe import Recipe
from support.commandline import SMALL, invoke, process


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs the command in an empty folder; returns exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    return functools.partial(invoke, train.app)


@pytest.fixture
def refused(command, tmp_path):
    """Runs a command that must fail; returns the one line that it says."""

    def run(*words):
        before = sorted(tmp_path.rglob("*"))
        code, output, error = command(*words)
        assert (code, output) == (2, "")
        error = re.sub(r"code  .*\n", "", error)  # whose code was run
        assert error.startswith("error: ")
        assert error.endswith("\n")
        assert len(error.splitlines()) == 1
        assert sorted(tmp_path.rglob("*")) == before, "nothing is written"
        return error.removeprefix("error: ").removesuffix("\n")

    return run


@pytest.fixture
def given(command, monkeypatch):
    """Runs a command up to the point where it would train; returns what it would train."""
    made, begun = [], []

    def make(self, agent, changes=(), *, env=None, start=None, start_optimizer=False):
        made.append((agent, env, changes))

    def begin(self, runs, *, quiet, watch):
        begun.append((runs, quiet, watch))
        return Outcome(Path(), None, 0, 0.0)

    monkeypatch.setattr(Recipe, "__init__", make)
    monkeypatch.setattr(Recipe, "begin", begin)

    def run(*words):
        assert command(*words) == (0, "", "")
        return (*made.pop(), *begun.pop())

    return run


CARTPOLE = str(agent_file.shipped()["cartpole"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cartpol"], "'cartpol' is no agent. Did you mean 'cartpole'? Agents: "),
        (
            ["CartPole-v1"],
            "'CartPole-v1' is no agent. An environment is trained with --env CartPole-v1. Agents: ",
        ),
        (["nowhere.toml"], "nowhere.toml: no such file"),
        (
            ["--env", "CartPole-v2"],
            "--env CartPole-v2: environment.id = 'CartPole-v2': Gymnasium knows no such ",
        ),
        (
            ["--env", "CartPole-v1", "--algo", "pp0"],
            "--algo pp0: must be one of ",
        ),
        (
            ["--algo", "a2c"],
            "{cartpole}: algorithm.clip_range = {{ from = 0.2, to = 0.0 }}: there is no such key. ",
        ),
        (["--seed", "-1"], "--seed -1: must be greater than or equal to 0"),
        (
            ["-n", "255"],
            "-n 255: is less than the rollout of n_steps * num_envs ",
        ),
        (["--set", "gamma"], "--set gamma: takes key.subkey=value, such as algorithm.gamma=0.98"),
        (
            ["--set", "algorithm.gama=1"],
            "--set algorithm.gama=1: there is no such key. Did you mean 'gamma'?",
        ),
        (["--set", "algorithm.gamma='1'"], "--set algorithm.gamma='1': must be a number"),
        (["--set", "gamma=0.9"], "--set gamma=0.9: there is no such key. Did you mean 'algorithm.gamma'?"),
        (
            ["--env", "CartPole-v1", "--set", "environment.kwargs={a=1}"],
            "--set environment.kwargs={{a=1}}: environment.kwargs.a = 1: is no argument of ",
        ),
        (["-n", "-5"], "-n -5: must be greater than or equal to 1"),
        (["--set", "algorithm.gamma=2"], "--set algorithm.gamma=2: must be less than or equal to 1"),
        (
            ["--set", "interventions.clip.bound=2"],
            "--set interventions.clip.bound=2: there is no entry 'clip'. Did ",
        ),
        (
            ["--set", "interventions.0.rule=cliping"],
            "--set interventions.0.rule=cliping: there is no such ",
        ),
        (
            ["--set", "interventions.0.bund=1"],
            "--set interventions.0.bund=1: is no argument of Clipping. Did ",
        ),
        (
            ["--set", "interventions.0.on=x"],
            "--set interventions.0.on=x: path('x') selects none of the ",
        ),
        (
            ["--set", "optimizer.name=adm"],
            "--set optimizer.name=adm: Keras has no such optimizer. Did you ",
        ),
        (
            ["--set", "network.activation=tahn"],
            "--set network.activation=tahn: Keras has no such activ",
        ),
        (
            ["cartpole", "--env", "Acrobot-v1"],
            "--env Acrobot-v1: goes without an agent, and cartpole is one; in another environment it is ",
        ),
        (["--resume", "nowhere"], "nowhere: no run folder, it holds no agent.toml"),
        (["--resume", "a" * 300], f"{'a' * 300}: File name too long"),
    ],
)
def test_what_cannot_be_trained_is_one_line(refused, words, message):
    assert refused(*words).startswith(message.format(cartpole=CARTPOLE))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[environment", "not valid TOML: "),
        (
            '[environment]\nid = "CartPole-v1"\n[enviroment]',
            "enviroment = {}: there is no such key. Did you mean ",
        ),
        (
            '[environment]\nid = "mine.py:World"\nbackend = "tensorflow"',
            "environment.id = 'mine.py:World': there is ",
        ),
        (
            '[environment]\nid = "CartPole-v1"\n[[interventions]]\nrule = "x.py:X"',
            "interventions.0.rule = 'x.py:X': ",
        ),
    ],
)
def test_errors_name_the_file(refused, tmp_path, content, message):
    (tmp_path / "mine.toml").write_text(content)
    assert refused("mine.toml").startswith(f"mine.toml: {message}")


def test_files_that_an_agent_names_lie_beside_it(refused, tmp_path):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "mine.toml").write_text(
        '[environment]\nid = "CartPole-v1"\n[[interventions]]\nrule = "x.py:Y"'
    )
    (tmp_path / "agents" / "x.py").write_text("class Z:\n    pass\n")
    assert "x.py has no class 'Y'. It has: Z" in refused("agents/mine.toml")


@pytest.mark.parametrize(
    "missing",
    [("LunarLander-v3", "Box2D", "rlweights[box2d]"), ("HalfCheetah-v5", "mujoco", "rlweights[mujoco]")],
)
def test_a_missing_extra(refused, monkeypatch, missing):
    name, module, extra = missing
    for loaded in [each for each in sys.modules if each.startswith(f"gymnasium.envs.{module.lower()}")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    assert refused("--env", name).endswith(f" is not installed; pip install '{extra}'")


def test_a_run_folder_that_cannot_be_written(refused, tmp_path, monkeypatch):
    # Training itself is not the subject; a path below a file stops even the superuser.
    monkeypatch.setattr(session, "Trainer", lambda *_: contextlib.nullcontext())
    (tmp_path / "file").write_text("")
    message = refused("--runs", "file/runs", *SMALL)
    assert message.startswith("file/runs/cartpole/0-")
    assert message.endswith(": the run folder cannot be written: Not a directory")


def test_words_become_overrides(given):
    agent, env, overrides, runs, quiet, watch = given(
        "pendulum",
        "--algo",
        "a2c",
        "-n",
        "7",
        "--seed",
        "3",
        "--set",
        "a.b=1",
        "--runs",
        "x",
        "-q",
        "--watch",
    )
    assert (agent, env, runs, quiet, watch) == ("pendulum", None, Path("x"), True, True)
    assert [each.typed for each in overrides[1:]] == ["--algo a2c", "-n 7", "--seed 3"]
    assert overrides == ["a.b=1", 'algorithm.name="a2c"', "budget.total_timesteps=7", "seed=3"]
    assert given()[:3] == (None, None, [])
    assert given("--env", "X-v0")[1] == "X-v0"


def test_env_and_algo_find_the_agent_for_both():
    recipe = Recipe(changes=['algorithm.name="a2c"'], env="CartPole-v1")
    assert (recipe.agent.algorithm.name, recipe.name) == ("a2c", "CartPole-v1")
    assert recipe.source == "--env CartPole-v1"
    assert recipe.agent.expect is not None


@pytest.mark.parametrize(("text", "steps"), [("1e5", 100_000), ("2_048", 2048), ("3.0", 3)])
def test_budgets_are_whole_numbers_however_they_are_written(given, text, steps):
    assert given("-n", text)[2] == [f"budget.total_timesteps={steps}"]


@pytest.mark.parametrize("text", ["abc", "1.5", "inf", "nan"])
def test_budgets_that_are_no_whole_numbers(command, text):
    code, _, error = command("-n", text)
    assert code == 2
    assert f"'{text}' is no whole number, such as 100000 or 1e5" in " ".join(error.replace("│", " ").split())


@pytest.mark.parametrize("words", [["--sed", "1"], ["--seed", "x"], ["-n"], ["--seeds", "0"], ["a", "b"]])
def test_typing_errors_of_options_are_code_2(command, words):
    code, output, error = command(*words)
    assert (code, output) == (2, "")
    assert "Traceback" not in error


def test_resuming_several_seeds_makes_no_sense(command):
    code, _, error = command("--resume", "x", "--seeds", "2")
    assert code == 2
    assert "does not go with --resume" in " ".join(error.split())


# Real processes -----------------------------------------------------------------------------------


def test_an_unwritable_run_folder_of_a_real_process(tmp_path):
    (tmp_path / "file").write_text("")
    code, output, error = process("cartpole_plain", "--runs", "file", *SMALL, folder=tmp_path)
    assert (code, output) == (2, "")
    assert error.startswith("error: file/cartpole_plain/0-")
    assert error.endswith(": the run folder cannot be written: Not a directory\n")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_help_is_readable_on_a_narrow_terminal_and_needs_no_tensorflow():
    script = "import sys; sys.argv[1:] = ['--help']; from rlweights import train\n"
    script += "try: train.main()\nexcept SystemExit as end: assert not end.code\n"
    script += "assert 'tensorflow' not in sys.modules"
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    words = done.stdout.split()
    for option in ("env", "algo", "seed", "seeds", "set", "resume", "runs", "quiet", "watch"):
        assert f"--{option}" in words
    assert "PPO with weight clipping and adaptive parameter noise on CartPole-v1" in " ".join(words)
