"""Every shipped agent: its file, and two iterations of its training."""

import re
import tomllib
from unittest import mock

import numpy as np
import pytest

from rlweights.errors import ConfigError
from rlweights.learning.loops import device
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file
from rlweights.weights import compilation

AGENTS = agent_file.shipped()


def test_there_are_agents():
    assert {"cartpole", "cartpole_plain", "cartpole_reinforce", "cartpole_a2c", "pendulum"} <= set(AGENTS)


@pytest.mark.parametrize("name", AGENTS)
def test_the_file_says_what_it_is_and_what_to_expect(name):
    agent, text = agent_file.load(AGENTS[name]), AGENTS[name].read_text(encoding="utf-8")
    assert text.startswith('description = "')
    assert re.search(r"^# .{20,}", text, re.MULTILINE), "a comment says where the numbers come from"
    assert 20 <= len(agent.description) <= 100
    assert agent.expect is not None
    assert len(agent.expect.seeds) == len(set(agent.expect.seeds)) >= 3
    assert "seed" not in tomllib.loads(text), "a seed is chosen where a run is started"
    assert agent.budget.total_timesteps % agent.steps_per_iteration < 0.1 * agent.budget.total_timesteps
    assert agent.evaluation.every < agent.budget.total_timesteps, "progress is seen before the end"


ALIKE = ("cartpole_plain", "hopper", "walker2d", "bipedal_walker", "chain_50")
"""Agents that differ from another one in numbers only: tried before a release."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ALIKE else n for n in AGENTS]
)
def test_two_iterations(name):
    agent = agent_file.load(AGENTS[name])
    if agent.algorithm.n_epochs > 1:  # one shows as much, and convolutions take their time
        agent = agent_file.load(AGENTS[name], ["algorithm.n_epochs=1"])
    try:
        assembly = Assembly(agent, name)
    except ConfigError as error:
        if "not installed" in str(error):
            pytest.skip(str(error))
        raise
    original = compilation.compiled
    # Without XLA, whose compilation takes most of the time and is tested elsewhere.
    with mock.patch.object(device, "compiled", lambda f, *specs, xla=True: original(f, *specs, xla=False)):
        loop = assembly.make_loop()
    variables = assembly.networks.trainable_variables
    before = [variable.numpy() for variable in variables]
    loop.begin(0, 0)
    rows = loop.advance(0, 1)
    rows += loop.advance(1, 1)
    probe = loop.probe()
    loop.close()
    assert len(rows) == 2
    for scalars, _ in rows:
        assert np.isfinite(list(scalars.values())).all()
        assert scalars["update/skipped"] == 0
    with assembly.optimizer.evaluation():
        for variable, old in zip(variables, before, strict=True):
            assert np.isfinite(variable.numpy()).all()
            assert not np.array_equal(variable.numpy(), old), f"{variable.path} does not learn"
    assert probe.shape[1:] == assembly.encoder.shape


def test_agents_lists_every_shipped_agent(rlweights):
    code, output, error = rlweights("agents")
    assert (code, error) == (0, "")
    heading, *lines = output.splitlines()
    rows = [line for line in lines if not line.startswith((" ", "pretrained"))]
    assert heading.split() == ["agent", "environment", "trained", "by", "steps", "expected"]
    assert [row.split()[0] for row in rows] == list(agent_file.shipped())
    (row,) = [row for row in rows if row.startswith("cartpole ")]
    assert row.split() == ["cartpole", "CartPole-v1", "ppo", "100,000", "475"]
    assert lines[lines.index(row) + 1] == "    with clipping, adaptive_noise"
    assert "ppo, xla" in next(row for row in rows if row.startswith("cartpole_xla"))
    assert max(map(len, [heading, *lines])) <= 80
    assert re.search(
        r"^pretrained, for play, evaluate, export and --from: .*\bcartpole\b", output, re.MULTILINE
    )
