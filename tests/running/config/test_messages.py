"""What is said about data that is not valid: one line, with the nearest that is."""

import pytest

from rlweights.errors import ConfigError
from rlweights.running.config.messages import formatted, nearest
from support.agentdata import MINIMAL, error_of, refused

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


# Files --------------------------------------------------------------------------------------------


def test_messages_are_one_line_whatever_they_repeat():
    assert "\n" not in str(ConfigError("a\nb\x1b[2J\u2028c"))
    assert str(ConfigError("ü 'x' 🎲")) == "ü 'x' 🎲"
    assert formatted({"a": [True, "x"], "b": {}}) == "{ a = [true, 'x'], b = {} }"
    assert len(formatted("x" * 100)) == 60


def test_the_nearest_is_found_in_any_case_and_never_the_name_itself():
    assert nearest("cartpole-v1", ["CartPole-v1", "Acrobot-v1"]) == " Did you mean 'CartPole-v1'?"
    assert nearest("adam", ["adam"]) == nearest("qqq", ["adam"]) == ""
