"""Agent files: what is valid, what is not, and what is said about it."""

import datetime
import inspect
import math
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from rlweights.errors import ConfigError
from rlweights.learning.algorithms import A2C, PPO, Linear, Reinforce
from rlweights.running.config import agent_file, schema
from rlweights.running.config.messages import formatted, nearest
from rlweights.running.config.schema import Agent
from rlweights.weights.interventions import PLACEMENTS

MINIMAL = {"environment": {"id": "CartPole-v1"}}


def error_of(data: dict, *overrides: str) -> str:
    """The one line about data that is not valid, without the file."""
    with pytest.raises(ConfigError) as caught:
        agent_file.parse(data, "my.toml", overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message.removeprefix("my.toml: ")


def refused(*overrides: str) -> str:
    """The same about `--set` on the smallest agent."""
    return error_of(MINIMAL, *overrides)


# What is valid ------------------------------------------------------------------------------------


def test_only_the_environment_is_needed():
    agent = agent_file.parse(MINIMAL, "test")
    assert agent == Agent(environment=schema.EnvironmentSection(id="CartPole-v1"))
    assert agent.algorithm == PPO()
    assert agent.steps_per_iteration == 128 * 8
    assert agent.total_iterations == 97  # 100,000 steps, rounded down


@pytest.mark.parametrize(("name", "algorithm"), [("ppo", PPO), ("a2c", A2C), ("reinforce", Reinforce)])
def test_the_algorithm_goes_by_its_name(name, algorithm):
    assert agent_file.parse({**MINIMAL, "algorithm": {"name": name}}, "test").algorithm == algorithm()


def test_a_table_of_from_and_to_changes_over_the_budget():
    data = {**MINIMAL, "algorithm": {"learning_rate": {"from": 1e-3, "to": 0}, "clip_range": 0.1}}
    algorithm = agent_file.parse(data, "test").algorithm
    assert algorithm.learning_rate == Linear.model_validate({"from": 1e-3, "to": 0.0})
    assert isinstance(algorithm, PPO)
    assert algorithm.clip_range == 0.1


def test_none_switches_off_what_is_on_by_default():
    data = {**MINIMAL, "algorithm": {"max_grad_norm": "none", "batch_size": "none", "target_kl": "none"}}
    agent = agent_file.parse(data, "test")
    assert (agent.algorithm.max_grad_norm, agent.algorithm.batch_size) == (None, None)
    assert agent_file.parse(tomllib.loads(agent.to_toml()), "test") == agent
    assert refused("algorithm.gamma=none").startswith("algorithm.gamma = 'none': must be a number")


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


def test_agents_are_frozen_and_share_nothing():
    first, second = (agent_file.parse(MINIMAL, "test") for _ in range(2))
    for section in (first, first.environment, first.algorithm, first.optimizer):
        with pytest.raises(ValueError, match="frozen"):
            section.seed = 3  # pyright: ignore[reportAttributeAccessIssue]
    first.environment.kwargs["x"] = 1
    first.network.hidden_sizes.append(1)
    first.interventions.append(schema.Rule(rule="noise"))
    assert second == agent_file.parse(MINIMAL, "test")


# What is not --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("sed=1", "seed"),
        ("enviroment.id=x", "environment"),
        ("environment.num_env=1", "num_envs"),
        ("algorithm.gama=0.9", "gamma"),
        ("algorithm.learning_rate={from=1, too=0}", "to"),
        ("network.hidden_size=[1]", "hidden_sizes"),
        ("budget.total_timestep=1", "total_timesteps"),
        ("evaluation.episode=1", "episodes"),
        ("checkpoint.kep=1", "keep"),
        ("logging.histogram_every=1", "histograms_every"),
        ("guard.on_nonfinit=1", "on_nonfinite"),
        ("expect.mean_rewards=1", "mean_reward"),
    ],
)
def test_unknown_keys_name_the_nearest(override, hint):
    key = override.partition("=")[0]
    if hint == "to":
        key += ".too"
    if hint == "environment":
        key = "enviroment"
    message = refused(override)
    assert message.startswith(f"{key} = ")
    assert f": there is no such key. Did you mean {hint!r}? Valid: " in message
    assert hint in message.partition("Valid: ")[2].split(", ")


@pytest.mark.parametrize("name", ["ppo", "a2c", "reinforce"])
def test_each_algorithm_knows_its_own_keys(name):
    overrides = [f"algorithm.name={name}", "algorithm.clip_rangee=0.1"]
    valid = refused(*overrides).partition("Valid: ")[2].split(", ")
    assert ("clip_range" in valid) == (name == "ppo")
    assert "gamma" in valid


def test_a_misspelt_key_is_told_before_the_key_that_is_missing_for_it():
    assert "Did you mean 'environment'?" in error_of({"enviroment": {"id": "CartPole-v1"}})
    assert "Did you mean 'id'?" in error_of({"environment": {"idd": "CartPole-v1"}})
    assert error_of({**MINIMAL, "interventions": [{"rul": "noise"}]}) == (
        "interventions.0.rule is missing. Is it 'rul'?"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "environment is missing"),
        ({"environment": {}}, "environment.id is missing"),
        ({**MINIMAL, "expect": {}}, "expect.mean_reward is missing"),
        (
            {**MINIMAL, "algorithm": {"learning_rate": {"from": 1.0}}},
            "algorithm.learning_rate.to is missing",
        ),
    ],
)
def test_missing_keys(data, message):
    assert error_of(data) == message


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ('algorithm.gamma="0.9"', "must be a number"),
        ("algorithm.gamma=true", "must be a number"),
        ("algorithm.gamma=.9", "must be a number"),
        ("algorithm.n_steps=true", "must be a whole number"),
        ("algorithm.n_steps=3.0", "must be a whole number"),
        ("algorithm.normalize_advantage=1", "must be true or false"),
        ("algorithm.normalize_advantage=True", "must be true or false"),
        ("algorithm.learning_rate=fast", "must be a number or a table of from and to"),
        ("algorithm.learning_rate={from='a', to=0}", "must be a number"),
        ("algorithm.learning_rate=[1]", "must be a number or a table of from and to"),
        ("environment.id=3", "must be a string"),
        ("environment.kwargs=3", "must be a table"),
        ("environment.wrappers=x", "must be an array"),
        ("network.hidden_sizes=32", "must be an array"),
        ('network.hidden_sizes=[4, "a"]', "must be a whole number"),
        ("interventions=3", "must be an array"),
        ("interventions=[{rule=3}]", "must be a string"),
        ("interventions=[{rule='noise', seed='x'}]", "must be a whole number"),
        ("budget=[]", "must be a table"),
        ("expect.seeds=[true]", "must be a whole number"),
        ("algorithm=ppo", "must be a table. Did you mean algorithm.name = 'ppo'?"),
        ("optimizer=adam", "must be a table. Did you mean optimizer.name = 'adam'?"),
        ("environment=X", "must be a table. Did you mean environment.id = 'X'?"),
        ("interventions=['x']", "must be a table. Did you mean interventions.0.rule = 'x'?"),
    ],
)
def test_wrong_types(override, why):
    key, _, message = refused(override).partition(" = ")
    assert key.startswith(override.partition("=")[0])
    assert message.partition(": ")[2] == why


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("seed=-1", "must be greater than or equal to 0"),
        ("seed=2147483648", "must be less than 2147483648"),
        ("environment.num_envs=0", "must be greater than or equal to 1"),
        ("environment.num_threads=-1", "must be greater than or equal to 0"),
        ("algorithm.gamma=1.5", "must be less than or equal to 1"),
        ("algorithm.gamma=-0.1", "must be greater than or equal to 0"),
        ("algorithm.learning_rate=0", "must be greater than 0"),
        ("algorithm.learning_rate=inf", "must be a finite number"),
        ("algorithm.learning_rate={from=-1.0, to=0.0}", "falls below 0"),
        ("algorithm.max_grad_norm=0", "must be greater than 0"),
        ("network.hidden_sizes=[0]", "must be greater than or equal to 1"),
        ("network.hidden_sizes=[70000]", "must be less than or equal to 65536"),
        ("evaluation.every=-1", "must be greater than or equal to 0"),
        ("algorithm.n_epochs=9223372036854775808", "is more than 64 bits"),
        ("algorithm.gamma=nan", "is not a number"),
        ("environment.kwargs.x=[nan]", "is not a number"),
        (
            "environment.backend=tensorflw",
            "must be 'gymnasium', 'envpool' or 'tensorflow'. Did you mean 'tensorflow'?",
        ),
        ("guard.on_nonfinite=stopp", "must be 'skip', 'stop' or 'rollback'. Did you mean 'stop'?"),
        (
            "interventions=[{rule='noise', placement='after_steps'}]",
            "must be 'after_step', 'during_gradient', 'during_iteration' or 'after_iteration'. "
            "Did you mean 'after_step'?",
        ),
        ("algorithm.name=pp0", "must be one of 'ppo', 'a2c', 'reinforce'. Did you mean 'ppo'?"),
        ("algorithm.name=3", "must be one of 'ppo', 'a2c', 'reinforce'"),
    ],
)
def test_values_out_of_range(override, why):
    key, _, message = refused(override).partition(" = ")
    assert key.startswith(override.partition("=")[0])
    assert message.partition(": ")[2] == why


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('algorithm.gamma="0.9"', "algorithm.gamma = '0.9': must be a number"),
        (
            "algorithm.learning_rate={from=true, to=0}",
            "algorithm.learning_rate.from = true: must be a number",
        ),
        ("interventions=[{rule=[1, {}]}]", "interventions.0.rule = [1, {}]: must be a string"),
        ("algorithm=[{a=1}]", "algorithm = [{ a = 1 }]: must be a table"),
    ],
)
def test_the_whole_line(override, message):
    assert refused(override) == message


ROLLOUT = "the rollout of n_steps * num_envs = 128 * 8 = 1024 steps"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["algorithm.batch_size=250"],
            f"algorithm.batch_size = 250: does not divide {ROLLOUT}; the nearest that does is 256",
        ),
        (
            ["algorithm.batch_size=2000"],
            f"algorithm.batch_size = 2000: does not divide {ROLLOUT}; the nearest that does is 1024",
        ),
        (
            ["budget.total_timesteps=1023"],
            f"budget.total_timesteps = 1023: is less than {ROLLOUT}",
        ),
        (
            ["algorithm.n_steps=1000000000", "algorithm.batch_size=7"],
            "algorithm.n_steps = 1000000000: a rollout of n_steps * num_envs = 8000000000 steps is too long",
        ),
        (
            ["budget.total_timesteps=1000000000000"],
            "budget.total_timesteps = 1000000000000: is more than the counters of the compiled step hold; "
            "take more num_envs or fewer n_epochs",
        ),
        (
            ["network.shared=true", "network.value_hidden_sizes=[3]"],
            "network.value_hidden_sizes = [3]: there are no layers of the value network's own with "
            "network.shared = true",
        ),
        (
            ["environment.backend=tensorflow", "environment.wrappers=['X']"],
            "environment.wrappers = ['X']: is for backend 'gymnasium' with vectorization_mode 'sync' or "
            "'async' only",
        ),
        (
            ["environment.vectorization_mode=vector_entry_point", "environment.wrappers=['X']"],
            "environment.wrappers = ['X']: is for backend 'gymnasium' with vectorization_mode 'sync' or "
            "'async' only",
        ),
        (
            ["environment.backend=envpool", "environment.vectorization_mode=async"],
            "environment.vectorization_mode = 'async': is for backend 'gymnasium' only",
        ),
        (
            ["environment.num_threads=2"],
            "environment.num_threads = 2: is for backend 'envpool' only",
        ),
        (
            ["environment.id=mine.py:World"],
            "environment.backend = 'gymnasium': an environment from a file, mine.py:World, needs backend "
            "'tensorflow'",
        ),
        (
            ["environment.kwargs.render_mode=human"],
            "environment.kwargs.render_mode = 'human': is no argument of the environment itself; rlweights "
            "gives it to Gymnasium",
        ),
    ],
)
def test_what_does_not_fit_together(overrides, message):
    assert refused(*overrides) == message


def test_one_rollout_is_enough():
    assert agent_file.parse(MINIMAL, "test", ["budget.total_timesteps=1024"]).total_iterations == 1


def test_no_recursion_runs_away():
    deep: dict = {}
    for _ in range(200):
        deep = {"a": deep}
    assert error_of({**MINIMAL, "environment": {"id": "X", "kwargs": deep}}) == (
        "environment: nested more than 16 deep"
    )


def test_lone_surrogates_are_refused_before_a_file_fails_to_hold_them():
    assert refused("description=\udcff") == "description = '\\udcff': is not valid Unicode"
    assert refused("environment.kwargs.\udcff=1").endswith("is not valid Unicode")


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


def test_messages_are_one_line_whatever_they_repeat():
    assert "\n" not in str(ConfigError("a\nb\x1b[2J\u2028c"))
    assert str(ConfigError("ü 'x' 🎲")) == "ü 'x' 🎲"
    assert formatted({"a": [True, "x"], "b": {}}) == "{ a = [true, 'x'], b = {} }"
    assert len(formatted("x" * 100)) == 60


def test_the_nearest_is_found_in_any_case_and_never_the_name_itself():
    assert nearest("cartpole-v1", ["CartPole-v1", "Acrobot-v1"]) == " Did you mean 'CartPole-v1'?"
    assert nearest("adam", ["adam"]) == nearest("qqq", ["adam"]) == ""


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
    assert error_of(RULES, "seed=1\nx=2") == "seed = '1\\nx=2': must be a whole number"


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
    assert agent_file.for_environment("CartPole-v1") == agent_file.load(agent_file.shipped()["cartpole"])
    assert agent_file.for_environment("Pendulum-v1", ["seed=3"]).seed == 3


def test_another_algorithm_takes_the_agent_of_that_algorithm_or_the_defaults():
    chosen = agent_file.for_environment("CartPole-v1", ['algorithm.name="a2c"'])
    assert chosen == agent_file.load(agent_file.shipped()["cartpole_a2c"])
    assert agent_file.for_environment("Pendulum-v1", ["algorithm.name=a2c"]).algorithm == A2C()


def test_another_backend_takes_the_agent_of_that_backend():
    chosen = agent_file.for_environment("CartPole-v1", ["environment.backend=tensorflow"])
    assert chosen == agent_file.load(agent_file.shipped()["cartpole_xla"])


def test_an_environment_whose_agents_have_another_backend_takes_theirs():
    assert agent_file.for_environment("Acrobot-v1") == agent_file.load(agent_file.shipped()["acrobot"])
    chosen = agent_file.for_environment("Acrobot-v1", ["environment.backend=gymnasium"])
    assert (chosen.environment.backend, chosen.algorithm.gae_lambda) == ("gymnasium", 0.94)


@pytest.mark.parametrize(
    ("env", "agent"), [("MiniGrid-Empty-5x5-v0", "minigrid"), ("ALE/Boxing-v5", "atari")]
)
def test_another_environment_of_a_family_is_trained_as_its_agent(env, agent):
    shipped, found = agent_file.load(agent_file.shipped()[agent]), agent_file.for_environment(env, ["seed=3"])
    assert (found.environment.id, found.seed, found.expect) == (env, 3, None)
    assert found.environment.wrappers == shipped.environment.wrappers != []
    assert found.algorithm == shipped.algorithm
    other = agent_file.for_environment(env, ["algorithm.name=a2c"])
    assert (other.environment, other.algorithm) == (found.environment, A2C())


def test_any_other_environment_takes_the_defaults():
    assert agent_file.for_environment("Blackjack-v1") == agent_file.parse(
        {"environment": {"id": "Blackjack-v1"}}, "test"
    )
    with pytest.raises(ConfigError, match=r"^--env Blackjack-v1: algorithm\.gamma = 2: "):
        agent_file.for_environment("Blackjack-v1", ["algorithm.gamma=2"])


# The schema itself --------------------------------------------------------------------------------

TABLES = [each for each in vars(schema).values() if inspect.isclass(each) and issubclass(each, BaseModel)]


@pytest.mark.parametrize("table", [t for t in TABLES if t is not BaseModel], ids=lambda table: table.__name__)
def test_every_key_says_what_it_is(table):
    assert inspect.getdoc(table)
    for name, field in table.model_fields.items():
        tables = table in (Linear, Agent) or name == "name"  # documented by their own docstring
        assert field.description or tables, f"{table.__name__}.{name}"


def test_rules_take_every_placement():
    for placement in PLACEMENTS:
        assert schema.Rule(rule="x", placement=placement).placement == placement


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
