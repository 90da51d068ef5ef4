"""docs/gymnasium.md: its agent files are valid, its model fits, and what it says of `--env` is so."""

import re
import tomllib
from pathlib import Path

import pytest

from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file

TEXT = (Path(__file__).parents[2] / "docs" / "gymnasium.md").read_text(encoding="utf-8")
MODEL = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[0]


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL))
def test_agent_files(block, tmp_path):
    (tmp_path / "my_model.py").write_text(MODEL)
    agent = agent_file.parse(tomllib.loads(block), "page")
    for module in re.findall(r"ALE|MiniGrid|BabyAI|Lunar", agent.environment.id):
        pytest.importorskip({"ALE": "ale_py", "Lunar": "Box2D"}.get(module, "minigrid"))
    assembly = Assembly(agent, "page", tmp_path)
    paths = [v.path for v in assembly.networks.trainable_variables]
    assert ("policy/wide/kernel" in paths) == (agent.network.model is not None)
    assert assembly.encoder.is_image == agent.environment.id.startswith("ALE/")


@pytest.mark.parametrize(
    "env",
    [
        *("Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1", "CartPole-v1"),
        *("LunarLander-v3", "BipedalWalker-v3", "HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"),
        *("FrozenLake-v1", "MiniGrid-DoorKey-5x5-v0", "ALE/Pong-v5"),
    ],
)
def test_these_environments_have_an_agent_that_claims_something(env):
    assert agent_file.for_environment(env).agent.expect is not None
