"""What an agent file may hold: tables, types, ranges, defaults."""

import inspect
import tomllib

import pytest
from pydantic import BaseModel

from rlweights.learning.algorithms import A2C, PPO, Linear, Reinforce
from rlweights.running.config import agent_file, schema
from rlweights.running.config.schema import Agent
from rlweights.weights.interventions import PLACEMENTS
from support.agentdata import MINIMAL, refused

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


def test_one_rollout_is_enough():
    assert agent_file.parse(MINIMAL, "test", ["budget.total_timesteps=1024"]).total_iterations == 1


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
