"""From a configuration to the objects that run, and what is said where that fails."""

import importlib
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

from rlweights.errors import ConfigError
from rlweights.learning.environments import CartPole
from rlweights.learning.environments.vector import VectorAdapter
from rlweights.running.building.assembly import Assembly
from rlweights.running.building.keras_objects import ACTIVATIONS, OPTIMIZERS, SCHEDULES
from rlweights.running.building.rules import strength_of
from rlweights.running.config import agent_file
from rlweights.weights.interventions import RULES, Feedback
from rlweights.weights.interventions.schedules import OverBudget
from support.probes import Probe


class EndlessProbe(Probe):
    """Nothing ever ends it."""

    def step(self, action):
        return self.observation(), 0.0, False, False, {}


KINDS = ("kernel", "bias")

SMALL = {
    "environment": {"id": "CartPole-v1", "num_envs": 2},
    "algorithm": {"name": "ppo", "n_steps": 8, "batch_size": 8, "n_epochs": 2},
    "network": {"hidden_sizes": [4, 3]},
}

LAYERS = [f"{net}/{layer}" for net in ("policy", "value") for layer in ("hidden_0", "hidden_1", "head")]
PATHS = ", ".join(f"{layer}/{kind}" for layer in LAYERS for kind in ("kernel", "bias"))


def assembled(*overrides: str, folder: Path | None = None, rules=()) -> Assembly:
    agent = agent_file.parse({**SMALL, "interventions": list(rules)}, "my.toml", overrides)
    return Assembly(agent, "my.toml", folder)


def refused(*overrides: str, folder: Path | None = None, rules=()) -> str:
    """The one line about an agent that cannot be built, without the file."""
    with pytest.raises(ConfigError) as caught:
        assembled(*overrides, folder=folder, rules=rules)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith("my.toml: ")
    return message.removeprefix("my.toml: ")


def selected(assembly: Assembly) -> list[list[str]]:
    """The paths of the weights of each rule."""
    return [[variable.path for variable in rule.variables] for rule in assembly.rules]


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
    ("name", "module", "package", "extra"),
    [
        ("LunarLander-v3", "Box2D", "box2d", 'pip install "gymnasium[box2d]"'),
        ("HalfCheetah-v5", "mujoco", "mujoco", 'pip install "gymnasium[mujoco]"'),
    ],
)
def test_a_missing_extra_says_how_to_install_it(monkeypatch, name, module, package, extra):
    importlib.import_module("gymnasium.envs")
    for loaded in [each for each in sys.modules if each.startswith(f"gymnasium.envs.{package}")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    message = refused(f"environment.id={name}")
    assert message.startswith(f"environment.id = '{name}': ")
    assert "is not installed" in message
    assert extra in message


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("ALE/Pong-v5", "ale_py", "atari"),
        ("MiniGrid-Empty-5x5-v0", "minigrid", "minigrid"),
        ("minigrid:BabyAI-GoToObj-v0", "minigrid", "minigrid"),
    ],
)
def test_a_missing_package_of_a_family_names_the_extra(monkeypatch, name, module, extra):
    for loaded in [each for each in sys.modules if each.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    assert refused(f"environment.id={name}") == (
        f"environment.id = '{name}': {module} is not installed; pip install 'rlweights[{extra}]'"
    )
    wrapper = f"environment.wrappers=['{module}.wrappers:Some']"
    assert refused(wrapper).endswith(f": {module} is not installed; pip install 'rlweights[{extra}]'")


def test_missing_envpool_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    assert refused("environment.backend=envpool") == (
        "environment.backend = 'envpool': envpool is not installed; pip install 'rlweights[envpool]'"
    )


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
    assert refused("environment.id=Failing-v0") == "environment.id = 'Failing-v0': RuntimeError: no licence"


def test_wrappers_by_name_act_innermost_first():
    overrides = ["environment.wrappers=['FlattenObservation', 'RecordEpisodeStatistics']"]
    env = assembled(*overrides).environments.vector(1).envs[0]  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(env, gym.wrappers.RecordEpisodeStatistics)
    assert isinstance(env.env, gym.wrappers.FlattenObservation)


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
        .envs[0]
    )  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(env, gym.wrappers.FlattenObservation)


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


# Networks -----------------------------------------------------------------------------------------


def test_networks_follow_their_section():
    networks = assembled("network.value_hidden_sizes=[5]", "network.layer_norm=true").networks
    shapes = {v.path: tuple(v.shape) for v in networks.trainable_variables}
    assert shapes["policy/hidden_1/kernel"] == (4, 3)
    assert shapes["value/hidden_0/kernel"] == (4, 5)
    assert "value/hidden_1/kernel" not in shapes
    assert "policy/norm_0/gamma" in shapes


def test_shared_networks_have_one_trunk():
    assembly = assembled("network.shared=true", rules=[{"rule": "noise", "stddev": 0.1}])
    paths = [v.path for v in assembly.networks.trainable_variables]
    assert paths == [
        *(f"trunk/hidden_{i}/{kind}" for i in range(2) for kind in ("kernel", "bias")),
        *(f"{head}/head/{kind}" for head in ("policy", "value") for kind in ("kernel", "bias")),
    ]
    assert selected(assembly) == [paths[:6]], "undone noise is in everything that acts, and in nothing else"


def test_continuous_actions_have_a_log_std():
    assembly = assembled("environment.id=Pendulum-v1", "network.log_std_init=-0.5")
    log_std = next(v for v in assembly.networks.variables if v.path.endswith("log_std"))
    assert log_std.numpy().tolist() == [-0.5]


def test_unknown_activations_name_the_nearest():
    message = refused("network.activation=tanhh")
    assert message == "network.activation = 'tanhh': Keras has no such activation. Did you mean 'tanh'?"
    assert {"tanh", "relu", "swish", "linear"} <= set(ACTIVATIONS)
    assert not {"get", "serialize", "deserialize"} & set(ACTIVATIONS)


MODEL = """
import keras


def build(observation_shape):
    inputs = keras.Input(observation_shape)
    return keras.Model(inputs, keras.layers.Dense(6, "relu", name="ours")(inputs))


def broken(observation_shape):
    return keras.layers.Dense("six", name="ours")


def picture(observation_shape):
    return keras.layers.Reshape((2, 2), name="ours")


class Own(keras.layers.Dense):
    def __init__(self, observation_shape):
        super().__init__(6, name="ours")
"""


@pytest.mark.parametrize("backend", ["gymnasium", "tensorflow"])
@pytest.mark.parametrize("name", ["build", "Own"])
def test_a_model_from_a_file_learns(tmp_path, backend, name):
    (tmp_path / "model.py").write_text(MODEL)
    overrides = [f"network={{model='model.py:{name}'}}", f"environment.backend={backend}"]
    assembly = assembled(*overrides, folder=tmp_path, rules=[{"rule": "noise", "stddev": 0.1}])
    assert selected(assembly) == [[f"policy/{layer}/{k}" for layer in ("ours", "head") for k in KINDS]]
    assert assembly.files.loaded == [tmp_path / "model.py"]
    before = [variable.numpy() for variable in assembly.networks.trainable_variables]
    loop = assembly.make_loop()
    loop.boundary(0, 0)
    loop.advance(0, 1)
    loop.close()
    for variable, old in zip(assembly.networks.trainable_variables, before, strict=True):
        assert not np.array_equal(variable.numpy(), old), variable.path


def test_a_model_from_a_file_has_a_log_std_behind_it(tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    assembly = assembled("network={model='model.py:build'}", "environment.id=Pendulum-v1", folder=tmp_path)
    assert "policy/log_std" in [v.path for v in assembly.networks.trainable_variables]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["network={model='model.py'}"], " = 'model.py': takes file.py:Name, a function or a class"),
        (
            ["network={model='model.py:bild'}"],
            " = 'model.py:bild': model.py has no class or function 'bild'. Did you mean 'build'? It has: "
            "build, broken, picture, Own",
        ),
        (["network={model='model.py:broken'}"], " = 'model.py:broken': model.py, line 11: ValueError: "),
        (
            ["network={model='model.py:picture'}"],
            " = 'model.py:picture': must return features [B, units]; two observations became (2, 2, 2)",
        ),
    ],
)
def test_models_that_do_not_exist_or_fit(tmp_path, overrides, message):
    (tmp_path / "model.py").write_text(MODEL)
    assert refused(*overrides, folder=tmp_path).startswith(f"network.model{message}")


def test_layers_cannot_be_described_beside_a_model():
    assert refused("network.model=m.py:build") == (
        "network.hidden_sizes = [4, 3]: the layers are those of network.model"
    )


def test_recycling_says_that_it_does_not_see_into_a_model(tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    message = refused("network={model='model.py:build'}", folder=tmp_path, rules=[{"rule": "recycling"}])
    assert message == (
        "interventions: nothing measures the dormant units of 'policy/ours'; measured are: policy/features, "
        "value/features"
    )


# Optimizer ----------------------------------------------------------------------------------------


def test_the_algorithm_brings_its_optimizer():
    inner = assembled().optimizer.inner
    assert isinstance(inner, keras.optimizers.Adam)
    assert inner.epsilon == 1e-5, "not Keras' 1e-7"
    a2c = agent_file.parse({"environment": {"id": "CartPole-v1"}, "algorithm": {"name": "a2c"}}, "my.toml")
    assert isinstance(Assembly(a2c, "my.toml").optimizer.inner, keras.optimizers.RMSprop)


def test_arguments_of_the_optimizer_are_its_own():
    inner = assembled("optimizer.beta_1=0.5").optimizer.inner
    assert (inner.beta_1, inner.epsilon) == (0.5, 1e-5)
    inner = assembled("optimizer.name=sgd", "optimizer.momentum=0.5").optimizer.inner
    assert isinstance(inner, keras.optimizers.SGD)
    assert inner.momentum == 0.5
    inner = assembled("optimizer.name=adamw").optimizer.inner
    assert inner.epsilon == 1e-7, "another optimizer has Keras' own defaults"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_can_be_had(name):
    assert type(assembled(f"optimizer.name={name}").optimizer.inner) is OPTIMIZERS[name]


@pytest.mark.parametrize(
    ("overrides", "key", "why"),
    [
        (
            ["optimizer.name=adamm"],
            "optimizer.name = 'adamm'",
            "Keras has no such optimizer. Did you mean 'adam'? Valid: ",
        ),
        (
            ["optimizer.name=Adam"],
            "optimizer.name = 'Adam'",
            "Keras has no such optimizer. Did you mean 'adam'? Valid: ",
        ),
        (
            ["optimizer.name=optimizer"],
            "optimizer.name = 'optimizer'",
            "Keras has no such optimizer. Valid: ",
        ),
        (
            ["optimizer.beta1=0.9"],
            "optimizer.beta1 = 0.9",
            "is no argument of Adam. Did you mean 'beta_1'? Valid: beta_1, ",
        ),
        (
            ["optimizer.name=sgd", "optimizer.beta_1=0.9"],
            "optimizer.beta_1 = 0.9",
            "is no argument of SGD. Valid: momentum, ",
        ),
        (
            ["optimizer.learning_rate=1.0"],
            "optimizer.learning_rate = 1.0",
            "is algorithm.learning_rate's business",
        ),
        (
            ["optimizer.beta_1=x"],
            "optimizer = { name = 'adam', epsilon = 1e-05, beta_1 = 'x' }",
            "Cast string to float is not",
        ),
        (
            ["optimizer.clipnorm=1", "optimizer.clipvalue=1"],
            "optimizer = { name = 'adam', epsilon = 1e-05, clipnorm = 1, clipvalue...",
            "Only one of",
        ),
        (
            ["optimizer.epsilon=inf", "optimizer.weight_decay=1e300"],
            "",
            "optimizer = { name = 'adam', epsilon = inf, ",
        ),
        (["optimizer.use_ema=true"], "", "`use_ema=True` on the inner optimizer averages weights before"),
    ],
)
def test_optimizers_that_cannot_be_had(overrides, key, why):
    assert refused(*overrides).startswith(f"{key}: {why}" if key else why)


# Rules --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "key", "why"),
    [
        (
            {"rule": "cliping"},
            "interventions.0.rule = 'cliping'",
            "there is no such rule. Did you mean 'clipping'? Valid: clipping, ",
        ),
        (
            {"rule": "clipping", "bund": 3},
            "interventions.0.bund = 3",
            "is no argument of Clipping. Did you mean 'bound'? Valid: bound, ",
        ),
        (
            {"rule": "clipping", "bound": -1},
            "interventions.0.bound = -1",
            "must be a finite number of at least 0",
        ),
        (
            {"rule": "clipping", "bound": "x"},
            "interventions.0.bound = 'x'",
            "takes a number, a schedule of the step, or a Feedback",
        ),
        (
            {"rule": "clipping", "unit": "x"},
            "interventions.0.unit = 'x'",
            "takes 'fan_in', 'init', 'absolute'",
        ),
        (
            {"rule": "clipping", "name": "a b"},
            "interventions.0.name = 'a b'",
            "takes letters, digits and _ . - only",
        ),
        ({"rule": "noise"}, "interventions.0 (noise)", "missing a required argument: 'stddev'"),
        (
            {"rule": "averaging", "placement": "after_iteration"},
            "interventions.0 (averaging)",
            "Averaging takes placement 'after_step'",
        ),
        (
            {"rule": "increment", "amount": [1, 2]},
            "interventions.0 (increment)",
            "increment: `delta` must keep shape (4, 4) ",
        ),
        (
            {"rule": "clipping", "bound": {"feedback": "x", "initial": [1, 2]}},
            "interventions.0 (clipping)",
            "Incompatible shapes",
        ),
        (
            {"rule": "recycling", "units": {"nowhere": "head"}},
            "recycling",
            "no layer 'nowhere' among policy/hidden_0, ",
        ),
        (
            {"rule": "recycling", "units": 3},
            "interventions.0 (recycling)",
            "'int' object has no attribute 'items'",
        ),
    ],
)
def test_rules_that_cannot_be_had(rule, key, why):
    assert refused(rules=[rule]).startswith(f"{key}: {why}" if key else why)


@pytest.mark.parametrize(
    ("on", "why"),
    [
        ("path('actor/.*')", f"path('actor/.*') selects none of the weights: {PATHS}"),
        (9, f"depth(9) selects none of the weights: {PATHS}"),
        (
            "kind('kernel') & path('.*bias')",
            "kind('kernel') & path('.*bias') selects none of the weights: " + PATHS,
        ),
        (
            "kind(",
            "'kind(' is not a valid regular expression: missing ), unterminated subpattern at position 4",
        ),
    ],
)
def test_selectors_that_match_nothing_list_every_path(on, why):
    assert refused(rules=[{"rule": "clipping", "on": on}]).endswith(f": {why}")
    assert refused(rules=[{"rule": "clipping", "on": on}]).startswith("interventions.0.on = ")


@pytest.mark.parametrize("on", [True, 1.5, {"a": 1}, "layers(3)", "depth('a')", []])
def test_selectors_that_are_none(on):
    assert refused(rules=[{"rule": "clipping"}, {"rule": "noise", "stddev": 1.0, "on": on}]).startswith(
        "interventions.1.on = "
    )


def test_selectors_of_all_kinds():
    ons = ["policy/head/kernel", -1, ["value/head/bias", 0], "depth(0) & kind('bias')"]
    rules = [{"rule": "clipping", "on": on, "name": f"rule_{i}"} for i, on in enumerate(ons)]
    assert selected(assembled(rules=rules)) == [
        ["policy/head/kernel"],
        ["value/head/kernel", "value/head/bias"],
        ["policy/hidden_0/kernel", "policy/hidden_0/bias", "value/head/bias"],
        ["policy/hidden_0/bias"],
    ]


@pytest.mark.parametrize(
    "placement", ["during_iteration", "during_gradient", "after_step", "after_iteration"]
)
def test_what_is_undone_leaves_the_critic_alone(placement):
    rules = [{"rule": "noise", "stddev": 0.1, "placement": placement}]
    overrides = ["environment.id=Pendulum-v1", "network.layer_norm=true"]
    (paths,) = selected(assembled(*overrides, rules=rules))
    layers = ("hidden_0", "hidden_1", "head")
    policy = [f"policy/{layer}/{kind}" for layer in layers for kind in ("kernel", "bias")]
    value = [path.replace("policy", "value") for path in policy]
    undone = placement.startswith("during_")
    assert sorted(paths) == sorted(policy if undone else [*policy, *value]), "no norms, and no log_std"


def test_the_rules_own_selection_can_be_overruled():
    rules = [{"rule": "adaptive_noise", "on": ".*"}]
    (paths,) = selected(assembled("environment.id=Pendulum-v1", rules=rules))
    assert {"value/head/kernel", "policy/log_std"} <= set(paths)


def test_two_rules_of_one_name_are_refused():
    rules = [{"rule": "clipping"}, {"rule": "clipping"}]
    assert refused(rules=rules).startswith("two rules are named 'clipping'; give one of them another `name`")


def test_seeds_of_rules():
    rules = [{"rule": "noise", "stddev": 1.0}, {"rule": "adaptive_noise", "seed": 7}]
    assert [rule.seed for rule in assembled("seed=5", rules=rules).rules] == [5, 7]


@pytest.mark.parametrize("name", RULES)
def test_every_rule_can_be_had_from_a_file(name):
    needs = {"noise": {"stddev": 0.1}, "increment": {"amount": 0.1}, "projection": {"constraint": "max_norm"}}
    (rule,) = assembled(rules=[{"rule": name, **needs.get(name, {})}]).rules
    assert type(rule) is RULES[name]


# Strengths ----------------------------------------------------------------------------------------


def test_from_and_to_follow_the_progress_of_training():
    assembly = assembled(rules=[{"rule": "noise", "stddev": {"from": 1.0, "to": 0}}])
    strength = assembly.rules[0].stddev
    assert isinstance(strength, OverBudget)
    for progress, value in [(0.0, 1.0), (0.25, 0.75), (1.0, 0.0)]:
        assembly.optimizer.feedback["progress"] = progress
        assert float(strength(0)) == pytest.approx(value)
    copied = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(strength))
    assert (copied.first, copied.last) == (1.0, 0.0)
    assert repr(strength) == "1 to 0"


def test_feedback_is_written_from_outside():
    table = {"feedback": "loudness", "initial": 0.5}
    assembly = assembled(rules=[{"rule": "noise", "stddev": table}])
    assert float(assembly.rules[0].stddev(0)) == 0.5
    assembly.optimizer.feedback["loudness"] = 0.25
    assert float(assembly.rules[0].stddev(0)) == 0.25
    assert isinstance(strength_of({"feedback": "x"}, "my.toml", "key"), Feedback)


def test_keras_schedules_follow_the_optimizer_step():
    table = {
        "schedule": "ExponentialDecay",
        "initial_learning_rate": 1.0,
        "decay_steps": 10,
        "decay_rate": 0.5,
    }
    (rule,) = assembled(rules=[{"rule": "noise", "stddev": table}]).rules
    assert float(rule.stddev(tf.constant(20))) == 0.25
    assert "PiecewiseConstantDecay" in SCHEDULES


def test_what_is_no_strength_is_passed_on():
    for value in (3, "x", [1], {}, {"hidden_0": "head"}):
        assert strength_of(value, "my.toml", "key") == value


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"from": 1.0}, "must be a table of two numbers, from and to"),
        ({"from": 1.0, "to": "x"}, "must be a table of two numbers, from and to"),
        ({"from": 1.0, "to": True}, "must be a table of two numbers, from and to"),
        ({"from": 1.0, "to": 0.0, "by": 2}, "must be a table of two numbers, from and to"),
        ({"from": 1.0, "to": float("inf")}, "must be a table of two numbers, from and to"),
        ({"feedback": 3}, "must be a table of feedback, a name, and initial, a number"),
        ({"feedback": "x", "initial": "y"}, "must be a table of feedback, a name, and initial, a number"),
        ({"feedback": "x", "first": 1.0}, "must be a table of feedback, a name, and initial, a number"),
        ({"schedule": "CosineDecay"}, "CosineDecay.__init__() missing 2 required positional arguments"),
        ({"schedule": "CosineDecay", "initial_learning_rate": "x", "decay_steps": 9}, "Cast"),
        ({"schedule": "CosineDecay", "initial_learning_rate": float("inf"), "decay_steps": 9}, "begins at"),
    ],
)
def test_strengths_that_are_none(table, message):
    text = refused(rules=[{"rule": "noise", "stddev": table}])
    assert text.startswith("interventions.0.stddev = { ")
    assert f": {message}" in text


def test_unknown_schedules_name_the_nearest():
    assert refused(rules=[{"rule": "noise", "stddev": {"schedule": "CosineDecy"}}]).startswith(
        "interventions.0.stddev.schedule = 'CosineDecy': Keras has no such schedule. "
        "Did you mean 'CosineDecay'? Valid: CosineDecay, "
    )


# Rules of one's own -------------------------------------------------------------------------------

SIGN_FLIP = '''
"""Rules of one's own."""

from keras import ops

from rlweights import Intervention


class SignFlip(Intervention):
    def __init__(self, threshold, **kwargs):
        super().__init__(**kwargs)
        self.threshold = self.strength(threshold, "threshold", minimum=0.0)

    def update(self, weight, step):
        limit = ops.cast(self.threshold(step), weight.dtype)
        return ops.where(ops.abs(weight) < limit, -weight, weight)


class Plain(Intervention):
    def __init__(self):
        super().__init__()

    def delta(self, weight, step):
        return ops.zeros_like(weight)


class Failing(Plain):
    def delta(self, weight, step):
        return weight.nothing


class Broken(Plain):
    def build(self, variables):
        raise KeyError("state")


class Widening(Plain):
    def delta(self, weight, step):
        return ops.zeros((1, 1))


class Other:
    pass


def function():
    pass
'''


@pytest.fixture
def own(tmp_path):
    (tmp_path / "sign_flip.py").write_text(SIGN_FLIP)
    return tmp_path


def test_a_rule_from_a_file_beside_the_agent(own):
    rules = [{"rule": "sign_flip.py:SignFlip", "threshold": {"from": 1.0, "to": 0.0}}]
    assembly = assembled(rules=rules, folder=own)
    (rule,) = assembly.rules
    assert rule.name == "sign_flip"
    assert isinstance(rule.threshold, OverBudget)
    assert assembly.files.loaded == [own / "sign_flip.py"]
    kernel = np.array([[0.5]], np.float32)
    assert float(rule.update(keras.ops.array(kernel), 0)[0, 0]) == -0.5


def test_a_file_is_loaded_once(own):
    rules = [{"rule": "sign_flip.py:Plain"}, {"rule": "sign_flip.py:SignFlip", "threshold": 1}]
    assembly = assembled(rules=rules, folder=own)
    assert assembly.files.loaded == [own / "sign_flip.py"]
    assert type(assembly.rules[0]).__module__ == type(assembly.rules[1]).__module__
    assert sys.modules[type(assembly.rules[0]).__module__].Plain is type(assembly.rules[0])


@pytest.mark.parametrize(
    ("rule", "key", "why"),
    [
        (
            {"rule": "nowhere.py:SignFlip"},
            "interventions.0.rule = 'nowhere.py:SignFlip'",
            "there is no file ",
        ),
        ({"rule": "\0.py:SignFlip"}, "interventions.0.rule = '\\x00.py:SignFlip'", ""),
        ({"rule": f"{'a' * 300}.py:X"}, "", "interventions.0.rule = 'aaaa"),
        (
            {"rule": "sign_flip.py:SignFlop"},
            "interventions.0.rule = 'sign_flip.py:SignFlop'",
            "sign_flip.py has no class 'SignFlop'. Did you mean 'SignFlip'? It has: SignFlip, Plain, ",
        ),
        (
            {"rule": "sign_flip.py:Intervention"},
            "interventions.0.rule = 'sign_flip.py:Intervention'",
            "sign_flip.py has no class 'Intervention'",
        ),
        (
            {"rule": "sign_flip.py:function"},
            "interventions.0.rule = 'sign_flip.py:function'",
            "sign_flip.py has no class 'function'",
        ),
        ({"rule": "sign_flip.py:"}, "interventions.0.rule = 'sign_flip.py:'", "sign_flip.py has no class ''"),
        (
            {"rule": "sign_flip.py:Other"},
            "interventions.0.rule = 'sign_flip.py:Other'",
            "is no rlweights.Intervention",
        ),
        (
            {"rule": "sign_flip.py:SignFlip", "treshold": 1},
            "interventions.0.treshold = 1",
            "is no argument of SignFlip. Did you mean 'threshold'? Valid: threshold, on, ",
        ),
        (
            {"rule": "sign_flip.py:SignFlip", "threshold": -1},
            "interventions.0.threshold = -1",
            "must be a finite number of at least 0",
        ),
        (
            {"rule": "sign_flip.py:Plain", "on": ".*"},
            "interventions.0.on = '.*'",
            "is no argument of Plain. Valid: ",
        ),
        (
            {"rule": "sign_flip.py:Failing"},
            "interventions.0 (sign_flip.py:Failing)",
            "sign_flip.py, line 29: AttributeError: ",
        ),
        ({"rule": "sign_flip.py:Broken"}, "sign_flip.py, line 34", "KeyError: 'state'"),
        (
            {"rule": "sign_flip.py:Widening"},
            "interventions.0 (sign_flip.py:Widening)",
            "widening: `delta` must keep shape (4, 4) ",
        ),
    ],
)
def test_files_that_bring_no_rule(own, rule, key, why):
    assert refused(rules=[rule], folder=own).startswith(f"{key}: {why}" if key else why)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import nothing_at_all", "fails.py, line 1: ModuleNotFoundError: No module named 'nothing_at_all'"),
        ("\n\nx = 1 / 0", "fails.py, line 3: ZeroDivisionError: division by zero"),
        ("def f(:", "fails.py, line 1: SyntaxError: invalid syntax (fails.py, line 1)"),
        ("raise SystemExit(0)", "fails.py, line 1: SystemExit: 0"),
        ("raise ValueError", "fails.py, line 1: ValueError: ValueError"),
        ("raise ValueError('a\\nb')", "fails.py, line 1: ValueError: a"),
        ("x = '\0'", "fails.py: "),
    ],
)
def test_files_that_fail_are_one_line(tmp_path, content, message):
    (tmp_path / "fails.py").write_text(content)
    text = refused(rules=[{"rule": "fails.py:X"}], folder=tmp_path)
    assert text.startswith(f"interventions.0.rule = 'fails.py:X': {message}")


# The whole ----------------------------------------------------------------------------------------

WHOLE = [{"rule": "clipping", "bound": 1.0}, {"rule": "adaptive_noise"}]


@pytest.mark.parametrize("backend", ["gymnasium", "tensorflow"])
def test_two_assemblies_in_one_process_are_equal(backend):
    overrides = [f"environment.backend={backend}", "environment.normalize_observations=true"]
    first, second, other = (
        assembled(*overrides, seed, rules=WHOLE) for seed in ("seed=1", "seed=1", "seed=2")
    )
    for a, b, c in zip(*(each.learner.variables for each in (first, second, other)), strict=True):
        assert a.path == b.path == c.path
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    kernels = [each.networks.policy.head.kernel.numpy() for each in (first, other)]
    assert not np.array_equal(*kernels)


def test_trying_the_rules_changes_nothing(monkeypatch):
    tried = assembled(rules=WHOLE)
    monkeypatch.setattr(Assembly, "_try_rules", lambda self: None)
    untried = assembled(rules=WHOLE)
    for a, b in zip(tried.learner.variables, untried.learner.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), a.path)


def test_the_largest_seed_works():
    assert assembled(f"seed={2**31 - 1}", rules=WHOLE).rules[0].seed == 2**31 - 1
