"""Environments from a configuration: which one, in which wrappers, and what is said where there is none."""

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

from rlweights.learning.environments import CartPole
from rlweights.learning.environments.replay import SeededEpisodes
from rlweights.learning.environments.vector import VectorAdapter
from support.assemblies import assembled, refused
from support.probes import Probe


class EndlessProbe(Probe):
    """Nothing ever ends it."""

    def step(self, action):
        return self.observation(), 0.0, False, False, {}


# Environments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CartPole-v2", "Gymnasium knows no such environment. Did you mean 'CartPole-v1'?"),
        ("cartpole-v1", "Gymnasium knows no such environment. Did you mean 'CartPole-v1'?"),
        ("CartPole", "Gymnasium knows no such environment. Did you mean 'CartPole-v1'?"),
        ("Nowhere/CartPole-v1", "no installed package brings environments of 'Nowhere'"),
        ("", "Gymnasium knows no such environment"),
    ],
)
def test_unknown_environments_name_the_nearest(name, message):
    assert refused(f"environment.id='{name}'").startswith(f"environment.id = {name!r}: {message}")


def test_an_environment_of_a_module_that_is_not_there():
    message = refused("environment.id='nowhere_at_all:CartPole-v1'")
    assert message.startswith(
        "environment.id = 'nowhere_at_all:CartPole-v1': No module named 'nowhere_at_all'"
    )


def test_an_environment_of_a_module(tmp_path, monkeypatch):
    (tmp_path / "brings_one.py").write_text(
        "import gymnasium\ngymnasium.register('Brought-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assembly = assembled("environment.id='brings_one:Brought-v0'")
        assert assembly.environments.vector(1).single_action_space == spaces.Discrete(2)
    finally:
        gym.registry.pop("Brought-v0")
        sys.modules.pop("brings_one")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["environment.kwargs.sutton_barto=true"],
            "environment.kwargs.sutton_barto = true: is no argument of CartPole-v1. "
            "Did you mean 'sutton_barto_reward'? Valid: sutton_barto_reward",
        ),
        (
            ["environment.backend=tensorflow", "environment.kwargs.lenght=1.0"],
            "environment.kwargs.lenght = 1.0: is no argument of CartPole-v1. Did you mean 'length'? Valid: "
            "sutton_barto_reward, gravity, masscart, masspole, length, force_mag, tau",
        ),
        (
            ["environment.id=FrozenLake-v1", "environment.kwargs.map_name=9x9"],
            "environment.kwargs = { map_name = '9x9' }: KeyError: '9x9'",
        ),
        (
            ["environment.id=Chain", "environment.backend=tensorflow", "environment.kwargs.length=2"],
            "environment.kwargs = { length = 2 }: ValueError: Chain: length must be at least 3, got 2",
        ),
        (
            ["environment.id=CartPol-v1", "environment.backend=tensorflow"],
            "environment.id = 'CartPol-v1': there is no such environment with backend 'tensorflow'. "
            "Did you mean 'CartPole-v1'? Valid: Acrobot-v1, CartPole-v1, ",
        ),
    ],
)
def test_arguments_of_environments(overrides, message):
    assert refused(*overrides).startswith(message)


def test_arguments_reach_the_environment():
    for mode in ("sync", "vector_entry_point"):
        overrides = f"environment.vectorization_mode={mode}", "environment.kwargs.sutton_barto_reward=true"
        envs: Any = assembled(*overrides).environments.vector(1)
        single = envs.envs[0] if mode == "sync" else envs
        assert single.unwrapped._sutton_barto_reward is True
    assembly = assembled("environment.backend=tensorflow", "environment.kwargs.length=0.7")
    assert isinstance(assembly.environments.tensorflow, CartPole)
    assert assembly.environments.tensorflow.length == 0.7
    # Gymnasium's CartPole knows no length, so it is not the same environment.
    assert isinstance(assembly.environments.vector(2, evaluation=True), VectorAdapter)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], CartPoleVectorEnv),
        (["environment.vectorization_mode=vector_entry_point"], CartPoleVectorEnv),
        (["environment.vectorization_mode=sync"], gym.vector.SyncVectorEnv),
        (["environment.wrappers=['NormalizeReward']"], gym.vector.SyncVectorEnv),
        (["environment.id=Acrobot-v1"], gym.vector.SyncVectorEnv),
    ],
)
def test_the_environments_own_vector_version_is_the_default_where_there_is_one(overrides, expected):
    assembly = assembled(*overrides)
    envs = assembly.environments.vector(3)
    assert isinstance(envs.unwrapped, expected)
    assert envs.reset(seed=0)[0].shape[0] == 3
    assert isinstance(assembly.environments.vector(2, evaluation=True), gym.vector.SyncVectorEnv)


def test_a_look_at_the_agent_ends_where_the_environment_sets_no_limit(monkeypatch):
    for limit in (None, 7):
        spec = gym.envs.registration.EnvSpec("Endless-v0", EndlessProbe, max_episode_steps=limit)
        monkeypatch.setitem(gym.registry, "Endless-v0", spec)
        assembly = assembled("environment.id=Endless-v0", "evaluation.max_episode_steps=5")
        ends = []
        for evaluation in (True, False):
            envs = assembly.environments.vector(1, evaluation=evaluation)
            envs.reset(seed=0)
            ends.append([bool(envs.step(np.array([0]))[3][0]) for _ in range(8)])
            envs.close()
        expected = [False] * 8
        if limit:
            expected[limit - 1] = True
        assert ends[1] == expected  # trained as the environment is
        if limit is None:
            expected[4] = True
        assert ends[0] == expected
        assert assembly.environments.evaluation_limit == (5 if limit is None else None)


def test_a_vector_version_with_other_spaces_is_refused(monkeypatch):
    spec = gym.envs.registration.EnvSpec("Two-v0", Probe, vector_entry_point=CartPoleVectorEnv)
    monkeypatch.setitem(gym.registry, "Two-v0", spec)
    message = refused("environment.id=Two-v0")
    assert message.startswith("environment.vectorization_mode = 'vector_entry_point': has Box(")
    assert ", where agents are evaluated in " in message


def test_a_twin_is_evaluated_in_gymnasiums_own():
    envs = assembled("environment.backend=tensorflow").environments.vector(2, evaluation=True)
    assert isinstance(envs, gym.vector.SyncVectorEnv)


@pytest.mark.parametrize(
    ("space", "which"), [("observation_space", "observation"), ("action_space", "action")]
)
def test_unsupported_spaces(monkeypatch, space, which):
    class Strange(Probe):
        pass

    setattr(Strange, space, spaces.Text(3))
    monkeypatch.setitem(gym.registry, "Strange-v0", gym.envs.registration.EnvSpec("Strange-v0", Strange))
    assert refused("environment.id=Strange-v0") == (
        f"environment.id = 'Strange-v0': unsupported {which} space: {spaces.Text(3)}"
    )


def test_an_environment_that_fails(monkeypatch):
    class Failing(Probe):
        def __init__(self):
            raise RuntimeError("no licence\nsee page 3")

    monkeypatch.setitem(gym.registry, "Failing-v0", gym.envs.registration.EnvSpec("Failing-v0", Failing))
    start = "environment.id = 'Failing-v0': RuntimeError: no licence see page 3 (test_environments.py, line "
    assert refused("environment.id=Failing-v0").startswith(start)


def test_wrappers_by_name_act_innermost_first():
    overrides = ["environment.wrappers=['FlattenObservation', 'RecordEpisodeStatistics']"]
    env = assembled(*overrides).environments.vector(1).envs[0]  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(env, SeededEpisodes)
    assert isinstance(env.env, gym.wrappers.RecordEpisodeStatistics)
    assert isinstance(env.env.env, gym.wrappers.FlattenObservation)


WRAPPER = """
import gymnasium as gym


class Doubled(gym.RewardWrapper):
    def reward(self, reward):
        return 2 * reward


class Broken(gym.Wrapper):
    def __init__(self, env):
        super().__init__(env)
        self.missing


class Times(gym.RewardWrapper):
    def __init__(self, env, *, factor):
        super().__init__(env)
        self.factor = factor

    def reward(self, reward):
        return self.factor * reward
"""


def test_wrappers_from_a_file(tmp_path):
    (tmp_path / "wrapping.py").write_text(WRAPPER)
    assembly = assembled("environment.wrappers=['wrapping.py:Doubled']", folder=tmp_path)
    envs = assembly.environments.vector(1)
    envs.reset(seed=0)
    assert envs.step(np.array([0]))[1] == [2.0]
    assert assembly.files.loaded == [tmp_path / "wrapping.py"]
    message = refused("environment.wrappers=['wrapping.py:Broken']", folder=tmp_path)
    assert message.startswith(
        "environment.wrappers.0 = 'wrapping.py:Broken': wrapping.py, line 13: AttributeError: "
    )


def test_wrappers_with_arguments(tmp_path):
    (tmp_path / "wrapping.py").write_text(WRAPPER)
    overrides = ["environment.wrappers=['TimeAwareObservation', {name='wrapping.py:Times', factor=3.0}]"]
    envs = assembled(*overrides, folder=tmp_path).environments.vector(1)
    envs.reset(seed=0)
    observations, rewards, *_ = envs.step(np.array([0]))
    assert observations.shape == (1, 5)
    assert rewards == [3.0]


def test_wrappers_of_an_installed_package():
    env = (
        assembled("environment.wrappers=['gymnasium.wrappers:FlattenObservation']")
        .environments.vector(1)
        .envs[0]  # pyright: ignore[reportAttributeAccessIssue]
    )
    assert isinstance(env.env, gym.wrappers.FlattenObservation)


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        (
            "'RecordEpisodeStatistic'",
            " = 'RecordEpisodeStatistic': Gymnasium has no such wrapper. "
            "Did you mean 'RecordEpisodeStatistics'?",
        ),
        ("'vector'", " = 'vector': Gymnasium has no such wrapper"),
        (
            "'TimeLimit'",
            " = 'TimeLimit': TimeLimit.__init__() missing 1 required positional argument: "
            "'max_episode_steps'",
        ),
        (
            "{name='TimeLimit', max_steps=3}",
            ".max_steps = 3: is no argument of TimeLimit. Did you mean 'max_episode_steps'? Valid: "
            "max_episode_steps",
        ),
        (
            "'gymnasium.wrappers:FlatObservation'",
            " = 'gymnasium.wrappers:FlatObservation': gymnasium.wrappers has no such wrapper. "
            "Did you mean 'FlattenObservation'?",
        ),
        ("'nowhere_at_all:X'", " = 'nowhere_at_all:X': nowhere_at_all is not installed"),
        ("{nam='TimeLimit'}", ".name is missing. Is it 'nam'?"),
        ("3", " = 3: must be a string or a table"),
    ],
)
def test_wrappers_that_do_not_exist_or_fit(wrapper, message):
    assert refused(f"environment.wrappers=[{wrapper}]") == f"environment.wrappers.0{message}"


OWN = """
from rlweights.learning.environments import CartPole


class Long(CartPole):
    def __init__(self, *, pole: float = 2.0):
        super().__init__(length=pole)


class Nothing:
    pass
"""


def test_a_tensorflow_environment_from_a_file(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    data = ["environment.backend=tensorflow", "environment.id=own.py:Long"]
    assembly = assembled(*data, "environment.kwargs.pole=3.0", folder=tmp_path)
    assert assembly.environments.tensorflow.length == 3.0
    assert isinstance(assembly.environments.vector(2), VectorAdapter)
    message = refused(*data, "environment.kwargs.bole=3.0", folder=tmp_path)
    assert message == (
        "environment.kwargs.bole = 3.0: is no argument of own.py:Long. Did you mean 'pole'? Valid: pole"
    )
    message = refused(data[0], "environment.id=own.py:Nothing", folder=tmp_path)
    assert message == "environment.id = 'own.py:Nothing': is no rlweights.learning.environments.Environment"
