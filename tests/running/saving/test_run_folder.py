"""Run folders: complete or not there, with copies of the user's own files."""

import shutil
from pathlib import Path

import pytest

from rlweights.errors import ConfigError
from rlweights.running import announcement
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file
from rlweights.running.saving import run_folder
from support.simulated import (
    Mortal,
    machine,
    merged,
)

RULE = """
import gymnasium
from rlweights import Intervention


class Times(gymnasium.RewardWrapper):
    def __init__(self, env, *, factor):
        super().__init__(env)
        self.factor = factor

    def reward(self, reward):
        return self.factor * reward


class Halving(Intervention):
    def update(self, weight, step):
        return weight * 0.5
"""


def test_files_of_the_users_own_are_run_from_their_copies(tmp_path):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "halving.py").write_text(RULE)
    wrapper = {"name": "rules/halving.py:Times", "factor": 2.0}
    data = merged(
        machine().data,
        {
            "environment": {"id": "CartPole-v1", "backend": "gymnasium", "wrappers": [wrapper]},
            "interventions": [{"rule": "rules/halving.py:Halving"}],
        },
    )
    (tmp_path / "mine.toml").write_text(agent_file.parse(data, "test").to_toml())
    agent = agent_file.load(tmp_path / "mine.toml")
    run = created(Assembly(agent, "mine.toml", tmp_path), tmp_path / "runs", "mine")
    shutil.rmtree(tmp_path / "rules")
    moved = run.rename(tmp_path / "moved")
    assembly = Assembly(run_folder.read(moved), "agent.toml", moved)
    assert assembly.files.loaded == [moved / "halving.py"]
    assert type(assembly.rules[0]).__name__ == "Halving"
    assert assembly.environments.vector(1).get_attr("factor") == (2.0,)
    assert "halving.py was loaded" in "\n".join(announcement.header(assembly, "", "mine", moved))


def created(assembly: Assembly, runs: Path, name: str) -> Path:
    return run_folder.create(runs, name, assembly.agent, assembly.source, assembly.files.loaded)


def test_two_files_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rule.py").write_text(RULE)
    rules = [{"rule": f"{name}/rule.py:Halving", "name": name} for name in "ab"]
    data = merged(machine().data, {"interventions": rules})
    assembly = Assembly(agent_file.parse(data, "test"), "mine.toml", tmp_path)
    with pytest.raises(ConfigError, match="cannot both be kept in the run folder"):
        created(assembly, tmp_path / "runs", "mine")
    assert not (tmp_path / "runs").exists()


def test_a_run_folder_with_an_agent_file_is_complete(tmp_path):
    """Killed while the agent file is written: no file, rather than half of one, which may be valid TOML."""
    assembly = machine().assembly
    with Mortal(machine(), 2).living():
        created(assembly, tmp_path, "tiny")
    (folder,) = tmp_path.glob("tiny/*")
    assert not (folder / "agent.toml").exists()


def test_run_folders_of_one_second_do_not_collide(tmp_path):
    assembly = machine().assembly
    folders = {created(assembly, tmp_path, "tiny") for _ in range(3)}
    assert len(folders) == 3
    assert all(run_folder.read(folder) == assembly.agent for folder in folders)
