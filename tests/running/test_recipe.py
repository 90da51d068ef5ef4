"""Agents from Python: the same that the command line trains, and as picky about what they are told."""

import json
import math
import os
import signal

import gymnasium as gym
import numpy as np
import pytest

from rlweights.errors import ConfigError
from rlweights.running.config import agent_file
from rlweights.running.recipe import Recipe
from rlweights.running.records.event_file import read_scalars
from rlweights.running.records.records import Records
from rlweights.running.trained import TrainedAgent
from support.simulated import assert_same_result, result
from support.smallruns import TINY, small_run

CHANGES = {
    "algorithm.gamma": 0.5,
    "algorithm.clip_range": {"from": 0.3, "to": 0.1},
    "algorithm.max_grad_norm": None,
    "environment.kwargs.render_mode_of_mine": "a \"quoted\" text",
    "interventions.clipping.bound": 2,
    "network.hidden_sizes": [8, 8],
    "network.layer_norm": True,
    "seed": 3,
}  # fmt: skip


def test_changes_are_what_set_is_on_the_command_line():
    given = [f"{key}={json.dumps(value)}" for key, value in CHANGES.items() if not isinstance(value, dict)]
    given = [each.replace("null", '"none"') for each in given]
    given.append("algorithm.clip_range={ from = 0.3, to = 0.1 }")
    recipe = Recipe("cartpole", CHANGES)
    assert (
        recipe.agent == agent_file.load(agent_file.find("cartpole"), given) == Recipe("cartpole", given).agent
    )
    assert recipe.agent.algorithm.max_grad_norm is None
    assert recipe.name == "cartpole"


def test_changed_leaves_the_first_alone_and_the_last_change_wins():
    first = Recipe("cartpole", {"seed": 1, "algorithm.gamma": 0.5})
    second = first.changed({"seed": 2}).changed(["network.layer_norm=true"])
    assert (first.agent.seed, first.agent.network.layer_norm) == (1, False)
    assert (second.agent.seed, second.agent.algorithm.gamma, second.agent.network.layer_norm) == (
        2,
        0.5,
        True,
    )


def test_another_algorithm_keeps_nothing_of_the_first():
    recipe = Recipe(env="CartPole-v1").changed({"algorithm.name": "a2c"})
    assert recipe.agent == agent_file.load(agent_file.find("cartpole_a2c"))
    assert recipe.name == "CartPole-v1"


class Arm(gym.Env):
    """Continuous actions, and no shipped agent."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))


class Switch(Arm):
    action_space = gym.spaces.Discrete(2)


@pytest.mark.parametrize(("env", "normalized"), [(Arm, True), (Switch, False)])
def test_general_defaults_look_at_the_actions(env, normalized):
    recipe = Recipe(env=env)
    assert recipe.agent.environment.normalize_rewards is normalized
    assert ("continuous" in recipe.source.settings) is normalized
    assert Recipe(env=env, changes={"environment.normalize_rewards": False}).agent.environment == (
        Recipe(env=env).agent.environment.model_copy(update={"normalize_rewards": False})
    )


def test_an_agent_and_an_environment_are_not_both_obeyed():
    with pytest.raises(ConfigError, match="Acrobot-v1: goes without an agent, and cartpole is one"):
        Recipe("cartpole", env="Acrobot-v1")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"algorithm.gama": 0.5}, "gamma"),
        ({"algorithm.gamma": math.nan}, "algorithm.gamma"),
        ({"algorithm.gamma": object()}, "an agent file cannot hold a object"),
        ({"algorithm.clip_range": {"from": object()}}, "an agent file cannot hold a dict"),
        ("algorithm.gamma=0.5", "takes a mapping, or a list of key=value"),
        (["algorithm.gamma"], "takes key.subkey=value"),
    ],
)
def test_mistakes_are_one_line(changes, says):
    with pytest.raises(ConfigError) as caught:
        Recipe("cartpole", changes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_from_python_is_that_of_the_command_line(tmp_path, capsys):
    run = small_run()
    agent = Recipe("cartpole", TINY).train(tmp_path, quiet=True)
    assert isinstance(agent, TrainedAgent)
    assert agent.folder.parent == tmp_path / "cartpole"
    assert_same_result(result(agent.folder), result(run))
    again = Recipe(agent.folder)
    assert (again.name, again.agent) == ("cartpole", agent_file.load(run / "agent.toml"))


def test_the_history_is_what_was_recorded():
    history, recorded = TrainedAgent(small_run()).history(), read_scalars(small_run())
    assert history.keys() == recorded.keys()
    for tag, (steps, values) in history.items():
        assert steps.dtype == np.int64
        assert list(zip(steps, values, strict=True)) == recorded[tag]


def test_one_call_begins_a_run_in_a_chosen_folder_and_goes_on_with_it(tmp_path, monkeypatch):
    folder, recipe = tmp_path / "some" / "where", Recipe("cartpole", [*TINY, "checkpoint.every=256"])
    write, sent = Records.write, []

    def stopped(records, step, scalars):
        write(records, step, scalars)
        if step >= 512 and not sent:  # a second signal would end this process
            sent.append(step)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Records, "write", stopped)
    outcome = recipe.begin(tmp_path, folder=folder, resume=True, quiet=True)
    assert (outcome.folder, outcome.signal, outcome.env_steps) == (folder, signal.SIGTERM, 512)
    monkeypatch.setattr(Records, "write", write)
    assert recipe.train(folder=folder, resume=True, quiet=True).folder == folder
    whole = recipe.train(folder=tmp_path / "whole", quiet=True).folder
    assert_same_result(result(folder), result(whole))
    before = (folder / "progress.csv").read_bytes()
    outcome = recipe.begin(tmp_path, folder=folder, resume=True, quiet=True)
    assert (outcome.made, outcome.env_steps) == (0, 1024)  # a finished run is left as it is
    assert (folder / "progress.csv").read_bytes() == before


def test_a_chosen_folder_trains_one_agent_and_holds_nothing_else(tmp_path):
    recipe, run = Recipe("cartpole", TINY), tmp_path / "run"
    run.mkdir()
    with pytest.raises(ConfigError, match=r"run: exists already; `resume` goes on with a run, or begins it"):
        recipe.train(folder=run, quiet=True)
    with pytest.raises(ConfigError, match="needs the folder of the run"):
        recipe.train(tmp_path, resume=True, quiet=True)
    (run / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"no run folder, and not empty: it holds notes\.txt"):
        recipe.train(folder=run, resume=True, quiet=True)
    (run / "notes.txt").unlink()
    (run / "agent.toml").write_text(recipe.agent.to_toml())
    with pytest.raises(ConfigError, match=r"these keys differ: algorithm\.gamma"):
        recipe.changed({"algorithm.gamma": 0.5}).train(folder=run, resume=True, quiet=True)
