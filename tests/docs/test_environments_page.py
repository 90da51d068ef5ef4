"""The documentation page about environments says the truth: its code runs."""

import ast
import pathlib
import re
import tomllib

import numpy as np
import pytest
import tensorflow as tf

from rlweights.learning import environments
from rlweights.learning.environments import Draw, final_observations, reset_all, step_all

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "environments.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """What the page's code defines, after all of it ran in order."""
    namespace = {"__name__": "page"}
    for block in blocks("python"):
        exec(compile(block, "docs/environments.md", "exec"), namespace)
    return namespace


def test_the_code_runs(names):
    assert len(blocks("python")) >= 5
    assert names["swings"].schedules["length"].high == 1.0


def test_the_example_keeps_its_promise_of_40_lines():
    assert len(blocks("python")[0].splitlines()) <= 40


def test_the_agent_file_names_a_class_of_the_page(names):
    (agent,) = (tomllib.loads(block) for block in blocks("toml"))
    defined = [node.name for node in ast.parse(blocks("python")[0]).body if isinstance(node, ast.ClassDef)]
    assert agent["environment"]["id"].partition(":")[2] in defined
    assert agent["environment"]["backend"] == "tensorflow"
    assert names["Lander"](**agent["environment"]["kwargs"]).thrust == 8.0


def test_every_registered_id_is_listed():
    table = PAGE.partition("## Write your own")[0]
    for name in environments.ENVIRONMENTS:
        assert f"`{name}`" in table


@pytest.mark.parametrize("name", ["Lander", "Gusty"])
def test_the_examples_follow_the_protocol(names, name):
    environment = names[name]()
    environment.max_episode_steps = 6
    draw = Draw(0, tf.constant(0))

    @tf.function(jit_compile=True)
    def step(running, clock):
        action = tf.ones([8], tf.int32)
        return step_all(environment, running, action, Draw(0, clock))

    running, states, seen = reset_all(environment, 8, draw), [], []
    for clock in range(10):
        states.append(running.state)
        at = Draw(0, tf.constant(clock))
        seen.append(environment.observe(environment.step(running.state, tf.ones([8], tf.int32), at)[0]))
        running, _ = step(running, tf.constant(clock))
        assert all(environment.observation_space.contains(one) for one in running.state.numpy())
    recomputed = final_observations(
        environment, tf.stack(states), tf.ones([10, 8], tf.int32), tf.range(10), draw
    )
    np.testing.assert_allclose(recomputed, tf.stack(seen), rtol=1e-5, atol=1e-5)
