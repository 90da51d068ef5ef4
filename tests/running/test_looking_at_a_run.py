"""Looking at a run loads no rule file and makes nothing that trains: what acts is not what trains."""

import contextlib
import functools
import io

import gymnasium as gym
import numpy as np
import pytest

from rlweights import cli
from rlweights.learning import learner
from rlweights.running import session
from rlweights.running.building import assembly, rules
from rlweights.running.recipe import Recipe
from rlweights.running.trained import TrainedAgent
from rlweights.running.video import film
from rlweights.weights import optimizer
from support.commandline import invoke

RULE = """
import os
from pathlib import Path

from rlweights import Intervention

with Path(os.environ["MARKER"]).open("a") as file:
    file.write("loaded ")


class Halving(Intervention):
    def update(self, weight, step):
        return 0.5 * weight
"""

AGENT = """
[environment]
id = "CartPole-v1"
num_envs = 2

[algorithm]
name = "ppo"
n_steps = 16
batch_size = 32
n_epochs = 1

[network]
hidden_sizes = [4]

[[interventions]]
rule = "halving.py:Halving"
on = "policy/.*"

[budget]
total_timesteps = 64

[evaluation]
every = 32
episodes = 2
final_episodes = 2
film_frames = 0

[logging]
every = 32
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose rule lies in a file that writes a marker when it is loaded, and the marker."""
    folder = tmp_path_factory.mktemp("marked")
    marker = folder / "marker"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARKER", str(marker))
        (folder / "halving.py").write_text(RULE)
        (folder / "mine.toml").write_text(AGENT)
        with contextlib.redirect_stdout(io.StringIO()):
            outcome = Recipe(str(folder / "mine.toml")).begin(folder / "runs", quiet=True)
        assert marker.exists(), "training loads it"
        yield outcome.folder, marker


@pytest.fixture
def marked(trained):
    """The run, and a marker that is not there yet."""
    run, marker = trained
    marker.unlink(missing_ok=True)
    return run, marker


@pytest.fixture
def nothing_trains(monkeypatch):
    """Makes everything that trains refuse to be made."""

    def refuse(self, *args, **kwargs):
        raise AssertionError(f"{type(self).__name__} was made to look at a run")

    def refused(*args, **kwargs):
        raise AssertionError("a rule was made to look at a run")

    for owner in (optimizer.InterventionOptimizer, learner.Learner, assembly.Assembly):
        monkeypatch.setattr(owner, "__init__", refuse)
    monkeypatch.setattr(rules, "rules_of", refused)
    monkeypatch.setattr(assembly, "inner_optimizer", refused)


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "{run}", "--episodes", "2"),
        ("evaluate", "{run}", "--episodes", "2", "--weights", "latest", "--stochastic", "--json"),
        ("play", "{run}", "--record", "{folder}/episode.gif"),
        ("export", "{run}", "{folder}/policy.keras"),
        ("compare", "{run}", "--points", "2"),
    ],
    ids=lambda words: words[0],
)
def test_commands_load_no_rule_file(marked, nothing_trains, tmp_path, words):
    run, marker = marked
    code, output, error = invoke(cli.app, *(word.format(run=run, folder=tmp_path) for word in words))
    assert (code, error) == (0, "")
    assert output
    assert not marker.exists()


WAYS = {
    "predict": lambda agent: agent.predict(np.zeros((3, 4), np.float32)),
    "predict by draws": lambda agent: agent.predict(np.zeros((3, 4), np.float32), deterministic=False),
    "evaluate": lambda agent: agent.evaluate(2),
    "history": lambda agent: agent.history(),
    "frames": lambda agent: agent.frames(),
    "act": lambda agent: agent.act(np.zeros(4, np.float32)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_trained_agent_loads_no_rule_file_and_makes_nothing_that_trains(marked, nothing_trains, way):
    run, marker = marked
    assert WAYS[way](TrainedAgent(run)) is not None
    assert not marker.exists()


def test_a_film_loads_no_rule_file(marked, nothing_trains):
    run, marker = marked
    policy = TrainedAgent(run).policy
    env = policy.environments.rendered("rgb_array")
    with contextlib.closing(env):
        assert isinstance(env, gym.Env)
        assert film(env, policy.performer(policy.acting(), 0), 0, 4) is not None
    assert not marker.exists()


@functools.cache
def again(run):
    with contextlib.redirect_stdout(io.StringIO()):
        return session.resume(run, ["budget.total_timesteps=96"], quiet=True)


def test_resuming_loads_it(marked):
    run, marker = marked
    assert again(run).env_steps == 96
    assert marker.read_text() == "loaded "


def test_what_trains_is_refused_where_nothing_may_train(marked, nothing_trains):
    """The control of the controls: the traps would be sprung."""
    run, _ = marked
    with pytest.raises(AssertionError, match="Assembly was made to look at a run"):
        session.resume(run, ["budget.total_timesteps=160"], quiet=True)
