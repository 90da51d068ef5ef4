"""Agents that come trained: small, of today's files, and taken by name wherever a run is."""

import json

import pytest

from rlweights.errors import ConfigError
from rlweights.running.config import agent_file
from rlweights.running.saving import checkpoint_file, run_folder
from rlweights.running.trained import TrainedAgent
from rlweights.running.warm_start import WarmStart

PRETRAINED = run_folder.pretrained()


def test_each_is_a_small_run_of_the_shipped_agent():
    assert "cartpole" in PRETRAINED
    for name, folder in PRETRAINED.items():
        agent, shipped = run_folder.read(folder), agent_file.load(agent_file.shipped()[name])
        assert agent.network == shipped.network
        assert agent.environment == shipped.environment.model_copy(update={"action_mask": "none"})
        assert agent.interventions == shipped.interventions
        assert agent.algorithm == shipped.algorithm
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        assert set(files) == {"agent.toml", "run.json", "best/weights.safetensors"}
        assert files["best/weights.safetensors"].stat().st_size < 200_000
        _, metadata = checkpoint_file.load(files["best/weights.safetensors"])
        assert shipped.expect is not None
        assert metadata["mean_reward"] >= shipped.expect.mean_reward
        (session,) = json.loads(files["run.json"].read_text())["sessions"]
        assert session["command"][0] == "pretrain.py"
        assert name in session["command"]
        assert {"commit", "versions", "device"} <= session.keys()


def test_they_are_taken_by_name_and_what_is_there_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    agent = TrainedAgent("cartpole")
    assert agent.folder == PRETRAINED["cartpole"]
    assert agent.evaluate(3, seed=5).mean >= 475.0
    assert WarmStart.of(run_folder.find("cartpole")).metadata["which"] == "best"
    (tmp_path / "cartpole").mkdir()
    with pytest.raises(ConfigError, match=r"cartpole: no run folder, it holds no agent\.toml$"):
        TrainedAgent("cartpole")
    with pytest.raises(
        ConfigError, match=r"no run folder.*Pretrained agents: .*cartpole.*Did you mean 'cartpole'"
    ):
        TrainedAgent("cartpol")
