"""Every door to code is said before it is opened, and a stranger's stays closed without --trust."""

import sys
from pathlib import Path

import pytest

from rlweights import cli
from rlweights.errors import ConfigError
from rlweights.running import session
from rlweights.running.building import trust
from rlweights.running.building.policy import Policy
from rlweights.running.config import agent_file
from rlweights.running.recipe import Recipe
from rlweights.running.trained import TrainedAgent
from support.agentdata import MINIMAL
from support.commandline import invoke

MARK = "from pathlib import Path\nPath(__file__).with_suffix('.ran').write_text('')\n"

ENVIRONMENT = MARK + (
    "from gymnasium.envs.classic_control import CartPoleEnv\nclass Mine(CartPoleEnv):\n    pass\n"
)

TINY = ["environment.num_envs=2", "algorithm.n_steps=32", "algorithm.batch_size=32", "algorithm.n_epochs=1"]
TINY += ["network.hidden_sizes=[4]", "budget.total_timesteps=128", "evaluation.final_episodes=1"]


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A user who works in a folder of their own, trusts nothing, and has run nothing before."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.delenv(trust.TRUST)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(trust, "_known", set())
    monkeypatch.setattr(trust, "_said", set())
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    return home


def agent(**sections):
    return agent_file.parse(MINIMAL | sections, "theirs.toml")


@pytest.mark.parametrize(
    ("key", "sections"),
    [
        ("environment.id", {"environment": {"id": "theirs.py:Mine"}}),
        ("environment.id", {"environment": {"id": "theirs.py:Mine", "backend": "tensorflow"}}),
        (
            "environment.wrappers.0",
            {"environment": {"id": "CartPole-v1", "wrappers": ["theirs.py:Mine"]}},
        ),
        ("network.model", {"network": {"model": "theirs.py:Mine"}}),
        ("interventions.0.rule", {"interventions": [{"rule": "theirs.py:Mine"}]}),
        ("environment.folder", {"environment": {"id": "theirs:Mine", "folder": "FOLDER"}}),
    ],
)
def test_a_strangers_code_is_not_run_by_any_door(stranger, tmp_path, capsys, key, sections):
    from rlweights.running.building.assembly import Assembly

    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "theirs.py").write_text(ENVIRONMENT)
    if "folder" in sections.get("environment", {}):
        sections = {"environment": sections["environment"] | {"folder": str(theirs)}}
    with pytest.raises(ConfigError, match=rf"theirs.toml: {key} = .* neither installed nor yours.*--trust"):
        Assembly(agent(**sections), "theirs.toml", theirs)
    assert not (theirs / "theirs.ran").exists()
    assert str(theirs) not in sys.path
    assert capsys.readouterr().err == ""


def test_modules_are_said_with_the_place_that_they_come_from(stranger, capsys):
    (stranger / "found_here.py").write_text(ENVIRONMENT)
    section = {"id": "found_here:Mine", "wrappers": ["no_such_package:Wrapper"]}
    with pytest.raises(ConfigError, match="no_such_package"):
        Policy(agent(environment=section), "mine.toml").environments.spaces()
    place = stranger / "found_here.py"
    assert capsys.readouterr().err == (
        f"code         module found_here is imported, from {place}: mine.toml names it as environment.id\n"
    )


def test_a_run_of_ones_own_opens_wherever_it_lies_and_a_shared_one_only_trusted(
    stranger, tmp_path, monkeypatch, capsys
):
    (stranger / "mine.py").write_text(ENVIRONMENT)
    run = Recipe(env="mine.py:Mine", changes=TINY).train(tmp_path / "runs", quiet=True).folder
    said = capsys.readouterr().err
    assert said.startswith(f"code         {stranger / 'mine.py'} is run: --env mine.py:Mine names it as ")
    monkeypatch.setattr(trust, "_known", set())  # another process
    assert TrainedAgent(run).folder == run
    (run / "mine.py").write_text(f"{ENVIRONMENT}# changed by a stranger")
    shared = stranger / "downloaded"
    run.rename(shared)  # what is unpacked in the current folder is still somebody else's
    (shared / "mine.ran").unlink()
    words = ["evaluate", shared, "--episodes", 1], ["play", shared, "--record", "a.gif"]
    for command in (*words, ["export", shared, "a.keras"], ["train", "--resume", shared], ["train", shared]):
        code, output, error = invoke(cli.app, *command)
        assert (code, output, error.count("\n")) == (2, "", 1)
        assert f"would run {shared / 'mine.py'}, which is neither installed nor yours" in error
    assert not (shared / "mine.ran").exists()
    assert not Path(stranger / "a.keras").exists()
    monkeypatch.setenv(trust.TRUST, "0")  # to be undone
    code, output, error = invoke(cli.app, "evaluate", shared, "--episodes", 1, "--trust")
    assert (code, (shared / "mine.ran").exists()) == (0, True)
    assert f"code         {shared / 'mine.py'} is run: {shared / 'agent.toml'} names it as " in error
    monkeypatch.delenv(trust.TRUST)
    assert session.exit_code(session.resume(shared, [], quiet=True)) == 0  # the first time was enough
