"""Agent files: read, written, found by name and by environment, and changed by `--set`."""

import datetime
import math
import sys
import tomllib
from pathlib import Path

import pytest

from rlweights.errors import ConfigError
from rlweights.learning.algorithms import A2C, Linear
from rlweights.running.config import agent_file
from rlweights.running.config.schema import Agent
from support.agentdata import MINIMAL, error_of, refused

# What is valid ------------------------------------------------------------------------------------


EVERYTHING = {
    "description": "quotes \" and ' and \\ and ü and \n",
    "seed": 2**31 - 1,
    "environment": {
        "id": "CartPole-v1",
        "num_envs": 4,
        "kwargs": {"when": datetime.date(1979, 5, 27), "far": math.inf, "deep": {"a": [[1], ["b"]]}, "e": {}},
        "wrappers": ["RecordEpisodeStatistics", {"name": "TimeLimit", "max_episode_steps": 9}],
    },
    "algorithm": {"name": "ppo", "learning_rate": {"from": 1, "to": 0}, "n_steps": 64, "clip_range_vf": 0.3},
    "optimizer": {"name": "sgd", "momentum": 0.5, "nesterov": True},
    "network": {"hidden_sizes": [], "value_hidden_sizes": [3], "activation": "none"},
    "interventions": [
        {"rule": "noise", "stddev": {"from": 0.1, "to": 0.0}, "placement": "after_step", "seed": 3},
        {"rule": "recycling", "units": {"hidden_0": ["head"]}, "name": "none"},
    ],
    "expect": {"mean_reward": -1.5, "seeds": [3]},
}


@pytest.mark.parametrize(
    "agent",
    [
        agent_file.parse(EVERYTHING, "test"),
        *(agent_file.load(path) for path in agent_file.shipped().values()),
    ],
    ids=["everything", *agent_file.shipped()],
)
def test_what_is_written_reads_back_equal(agent, tmp_path):
    (tmp_path / "agent.toml").write_text(agent.to_toml(), encoding="utf-8")
    assert agent_file.load(tmp_path / "agent.toml") == agent
    written = tomllib.loads(agent.to_toml())
    assert written["logging"]["every"] == 2_048, "defaults are written too: they may change"
    assert "start" not in agent.to_toml()


def test_parsing_changes_nothing_of_what_it_is_given():
    data = {
        "environment": {"id": "X", "kwargs": {"a": [1]}},
        "algorithm": {},
        "interventions": [{"rule": "x"}],
    }
    before = repr(data)
    agent = agent_file.parse(
        data, "test", ["environment.kwargs.a=2", "interventions.x.bound=3", "algorithm.gamma=0"]
    )
    assert repr(data) == before
    assert agent.environment.kwargs == {"a": 2}
    data["environment"]["kwargs"]["a"].append(2)
    assert agent.environment.kwargs == {"a": 2}


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x = [", "not valid TOML: Invalid value (at end of document)"),
        (b"\xff", "not valid TOML: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"x = " + b"[" * 10_000, "not valid TOML: nested too deep, or a number of too many digits"),
        (b"x = " + b"9" * 5_000, "not valid TOML: nested too deep, or a number of too many digits"),
        (b"", "environment is missing"),
    ],
)
def test_files_that_are_no_agent(tmp_path, content, message):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        agent_file.load(path)
    assert str(caught.value) == f"{path}: {message}"


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="Is a directory"):
        agent_file.load(tmp_path)
    with pytest.raises(ConfigError, match=r"mine\.toml: no such file"):
        agent_file.find(str(tmp_path / "mine.toml"))
    with pytest.raises(ConfigError, match="File name too long"):
        agent_file.find("a" * 5_000)


def test_agents_are_found_by_name_file_and_run_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert agent_file.find("cartpole") == agent_file.shipped()["cartpole"]
    (tmp_path / "cartpole").mkdir()  # a folder of that name that is no run
    assert agent_file.find("cartpole") == agent_file.shipped()["cartpole"]
    for path in (tmp_path / "mine.toml", tmp_path / "cartpole" / "agent.toml"):
        path.write_text("")
    assert agent_file.find("mine.toml") == Path("mine.toml")
    assert agent_file.find("cartpole") == Path("cartpole/agent.toml")


def test_unknown_agents_name_the_nearest():
    with pytest.raises(
        ConfigError, match=r"'cartpol' is no agent\. Did you mean 'cartpole'\? Agents: acrobot, "
    ):
        agent_file.find("cartpol")
    with pytest.raises(ConfigError, match=r"An environment is trained with --env CartPole-v1\."):
        agent_file.find("CartPole-v1")


# Overrides ----------------------------------------------------------------------------------------


RULES = {
    **MINIMAL,
    "interventions": [
        {"rule": "clipping", "bound": 3.0},
        {"rule": "noise", "stddev": 0.1, "name": "first"},
        {"rule": "noise", "stddev": 0.1, "name": "second"},
    ],
}


def overridden(*texts: str) -> Agent:
    return agent_file.parse(RULES, "my.toml", texts)


def test_overrides_reach_every_place():
    agent = overridden(
        "seed=3",
        "algorithm.gamma = 0.5",
        "algorithm.learning_rate={ from = 1.0, to = 0.5 }",
        "environment.kwargs.length=5",
        "description=two words",
        "network.hidden_sizes=[1, 2]",
        "network.hidden_sizes.0=7",
        "interventions.clipping.bound=2",
        "interventions.2.stddev=0.25",
        "interventions.first.stddev=0.5",
    )
    assert (agent.seed, agent.algorithm.gamma, agent.description) == (3, 0.5, "two words")
    assert agent.algorithm.learning_rate == Linear.model_validate({"from": 1.0, "to": 0.5})
    assert agent.environment.kwargs == {"length": 5}
    assert agent.network.hidden_sizes == [7, 2]
    rules = [rule.model_dump(exclude_none=True) for rule in agent.interventions]
    assert [rule.get("bound", rule.get("stddev")) for rule in rules] == [2, 0.5, 0.25]


def test_a_value_is_one_value():
    assert error_of(RULES, "seed=1\nx=2") == "--set seed=1 x=2: must be a whole number"


def test_the_last_override_wins():
    assert overridden("seed=1", "seed=2").seed == 2
    assert overridden("interventions=[]").interventions == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "takes key.subkey=value, such as algorithm.gamma=0.98"),
        ("=3", "takes key.subkey=value, such as algorithm.gamma=0.98"),
        ("a..b=3", "takes key.subkey=value, such as algorithm.gamma=0.98"),
        ("environment.id.x=1", "environment.id is a value and has no keys"),
        (
            "interventions.cliping.bound=1",
            "there is no entry 'cliping'. Did you mean 'clipping'? "
            "There are: clipping, first, second",
        ),
        (
            "interventions.noise.stddev=1",
            "2 entries are called 'noise'; give the index",
        ),
        ("interventions.3.bound=1", "there is no entry '3'. There are: clipping, first, second"),
        ("interventions.0.bound.x=1", "interventions.0.bound is a value and has no keys"),
    ],
)  # fmt: skip
def test_overrides_without_a_place(override, message):
    assert error_of(RULES, override) == f"--set {override}: {message}"


def test_rules_cannot_be_named_where_there_are_none():
    assert refused("interventions.clipping.bound=1").endswith("there is no entry 'clipping'. There are none")


# --env --------------------------------------------------------------------------------------------


def test_an_environment_takes_the_shipped_agent_for_it():
    assert agent_file.for_environment("CartPole-v1").agent == agent_file.load(
        agent_file.shipped()["cartpole"]
    )
    assert agent_file.for_environment("Pendulum-v1", ["seed=3"]).agent.seed == 3


def test_another_algorithm_takes_the_agent_of_that_algorithm_or_the_defaults():
    chosen = agent_file.for_environment("CartPole-v1", ['algorithm.name="a2c"']).agent
    assert chosen == agent_file.load(agent_file.shipped()["cartpole_a2c"])
    assert agent_file.for_environment("Pendulum-v1", ["algorithm.name=a2c"]).agent.algorithm == A2C()


def test_another_backend_takes_the_agent_of_that_backend():
    chosen = agent_file.for_environment("CartPole-v1", ["environment.backend=tensorflow"]).agent
    assert chosen == agent_file.load(agent_file.shipped()["cartpole_xla"])


def test_an_environment_whose_agents_have_another_backend_takes_theirs():
    assert agent_file.for_environment("Acrobot-v1").agent == agent_file.load(agent_file.shipped()["acrobot"])
    chosen = agent_file.for_environment("Acrobot-v1", ["environment.backend=gymnasium"]).agent
    assert (chosen.environment.backend, chosen.algorithm.gae_lambda) == ("gymnasium", 0.94)


@pytest.mark.parametrize(
    ("env", "agent"), [("MiniGrid-Empty-5x5-v0", "minigrid"), ("ALE/Boxing-v5", "atari")]
)
def test_another_environment_of_a_family_is_trained_as_its_agent(env, agent):
    shipped, found = (
        agent_file.load(agent_file.shipped()[agent]),
        agent_file.for_environment(env, ["seed=3"]).agent,
    )
    assert (found.environment.id, found.seed, found.expect) == (env, 3, None)
    assert found.environment.wrappers == shipped.environment.wrappers != []
    assert found.algorithm == shipped.algorithm
    other = agent_file.for_environment(env, ["algorithm.name=a2c"]).agent
    assert (other.environment, other.algorithm) == (found.environment, A2C())


def test_any_other_environment_takes_the_defaults():
    assert agent_file.for_environment("Blackjack-v1").agent == agent_file.parse(
        {"environment": {"id": "Blackjack-v1"}}, "test"
    )
    with pytest.raises(ConfigError, match=r"^--set algorithm\.gamma=2: must be "):
        agent_file.for_environment("Blackjack-v1", ["algorithm.gamma=2"])


@pytest.mark.parametrize(
    ("env", "overrides", "settings", "own_steps"),
    [
        ("CartPole-v1", [], "those of the shipped agent cartpole", 100_000),
        ("ALE/Boxing-v5", [], "those of the shipped agent atari, a relative", 0),
        ("CartPole-v1", ["budget.total_timesteps=512"], "those of the shipped agent cartpole", 100_000),
        ("Pendulum-v1", ["algorithm.name=a2c"], "the environment of pendulum, and general defaults", 0),
        ("Blackjack-v1", [], "general defaults: there is no shipped agent for it", 0),
    ],
)
def test_it_is_said_whose_settings_an_environment_takes(env, overrides, settings, own_steps):
    chosen = agent_file.for_environment(env, overrides)
    assert (chosen.settings, chosen.own_steps) == (settings, own_steps)


def test_general_defaults_fit_the_kind_of_the_actions():
    plain = agent_file.for_environment("Ant-v5").agent
    found = agent_file.for_environment("Ant-v5", ["algorithm.n_steps=64"], continuous=True)
    assert (plain.environment.normalize_observations, plain.environment.normalize_rewards) == (False, False)
    normalized = found.agent.environment
    assert (normalized.normalize_observations, normalized.normalize_rewards) == (True, True)
    assert (found.agent.algorithm.n_steps, found.agent.algorithm.n_epochs) == (64, 10)
    assert found.settings == "general defaults for continuous actions: there is no shipped agent for it"
    hopper = agent_file.load(agent_file.shipped()["hopper"])
    assert agent_file.for_environment("Ant-v5", continuous=True).agent.algorithm == hopper.algorithm
    a2c = agent_file.for_environment("Ant-v5", ["algorithm.name=a2c"], continuous=True)
    assert a2c.agent.algorithm == A2C()


# Fuzz ---------------------------------------------------------------------------------------------


def test_whatever_comes_ends_in_a_configuration_or_in_one_line(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    import fuzz  # pyright: ignore[reportMissingImports]

    try:
        each = fuzz.Fuzz(tmp_path, builds=10)
        each.run(seed=1, numbers=range(600))
    finally:
        sys.modules.pop("fuzz")
    assert not each.failures, each.failures[0][1]
    assert min(each.counts["valid"], each.counts["command valid"], each.counts["built"]) >= 5
    assert each.counts["refused"] > 200
