"""Agents that see several images, long indices and bounded integers: they act, learn and are exported."""

import tomllib

import gymnasium as gym
import numpy as np
import pytest
import tomlkit
from gymnasium import spaces

from rlweights.errors import ConfigError
from rlweights.learning.acting import NumpyPolicy
from rlweights.running import export_formats
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file
from rlweights.running.trained import TrainedAgent
from support.probes import Scripted
from support.smallruns import untrained_run

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

OBSERVATIONS = {
    "nested": spaces.Dict(
        arm=spaces.Tuple((spaces.Box(0, 3, (8, 9, 3), np.uint8), spaces.MultiDiscrete([2_000, 3]))),
        camera=spaces.Box(0, 255, (2, 16, 17, 1), np.uint8),
        state=spaces.Box(-1, 1, (2,), np.float32),
    ),
    "index": spaces.Discrete(3_000, start=5),
    "few colors": spaces.Box(0, 3, (8, 9, 2), np.uint8),
    "signed image": spaces.Box(-2, 2, (8, 9, 2), np.int8),
}
ACTIONS = {
    "box": spaces.Box(np.float32([5, -1]), np.float32([35, 1])),
    "discrete": spaces.Discrete(3, start=2),
}


def registered(space, action_space):
    """Registers an environment of these spaces, whatever was registered before."""
    gym.registry.pop("parts/Scripted-v0", None)

    def observe(_):
        return space.sample()

    gym.register("parts/Scripted-v0", lambda: Scripted(space, observe, action_space))
    space.seed(0)
    return {"environment": {"id": "parts/Scripted-v0", "num_envs": 2}}


SMALL = {
    "algorithm": {"name": "ppo", "n_steps": 4, "batch_size": 8, "n_epochs": 2},
    "network": {"hidden_sizes": [8]},
}


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_every_part_is_learned_from(name):
    data = registered(OBSERVATIONS[name], ACTIONS["box"]) | SMALL
    assembly = Assembly(agent_file.parse(data, "test"), "test")
    before = {v.path: v.numpy().copy() for v in assembly.networks.trainable_variables}
    assert len(before) == len(assembly.networks.trainable_variables)
    loop = assembly.make_loop()
    loop.begin(0, 0)
    ((scalars, _),) = loop.advance(0, 1)
    loop.close()
    assert np.isfinite(scalars["train/loss"] if "train/loss" in scalars else next(iter(scalars.values())))
    for variable in assembly.networks.trainable_variables:
        assert not np.array_equal(variable.numpy(), before[variable.path]), variable.path


@pytest.mark.parametrize("normalize", [False, True])
def test_indices_act_in_numpy_as_in_keras(normalize):
    data = registered(OBSERVATIONS["index"], ACTIONS["box"]) | SMALL
    data["environment"]["normalize_observations"] = normalize
    assembly = Assembly(agent_file.parse(data, "test"), "test")
    if normalize:
        assembly.networks.normalization.mean.assign([1_000.0])
    x = np.arange(0, 3_000, 7, dtype=np.float32)[:, None]
    assert NumpyPolicy.supports(assembly.networks.policy)
    found = NumpyPolicy(assembly.networks.policy)(x)
    np.testing.assert_allclose(found, assembly.networks.policy(x), atol=1e-6)
    assert len(np.unique(found[:, 0])) == len(x), "each value has numbers of its own"


@pytest.mark.parametrize("name", OBSERVATIONS)
@pytest.mark.parametrize("normalize", [False, True])
def test_exports_have_parts_bounds_and_tables(name, normalize, tmp_path):
    data = registered(OBSERVATIONS[name], ACTIONS["box"]) | {"network": {"hidden_sizes": [8]}}
    data["environment"]["normalize_observations"] = normalize
    agent = TrainedAgent(untrained_run(tmp_path, data))
    outputs = np.asarray(agent.policy.networks.policy(export_formats._inputs(agent)[0]))
    assert np.ptp(outputs, axis=0)[0] > 1e-4
    export_formats.write(agent, tmp_path / "policy.keras")  # which compares the outputs


@pytest.mark.parametrize("observed", OBSERVATIONS)
@pytest.mark.parametrize("acted", ACTIONS)
def test_one_observation_gives_one_action_that_the_space_contains(observed, acted, tmp_path):
    data = registered(OBSERVATIONS[observed], ACTIONS[acted]) | {"network": {"hidden_sizes": [8]}}
    agent = TrainedAgent(untrained_run(tmp_path, data))
    observation = OBSERVATIONS[observed].sample()
    action = agent.predict(observation)
    assert ACTIONS[acted].contains(action)
    np.testing.assert_array_equal(action, agent.act(observation))


@pytest.mark.parametrize("shape", [(8,), (3, 8), (1, 16)])
def test_predict_refuses_what_does_not_fit(shape, tmp_path):
    agent = TrainedAgent(untrained_run(tmp_path, {"environment": {"id": "CartPole-v1"}}))
    for ask in (agent.predict, agent.act):
        with pytest.raises(ConfigError) as caught:
            ask(np.zeros(shape, np.float32))
        assert str(shape) in str(caught.value)
        assert "(4,)" in str(caught.value)
        with pytest.raises(ConfigError, match="not finite"):
            ask(np.full(4, np.nan, np.float32))
    with pytest.raises(ConfigError, match="act takes one observation"):
        agent.act(np.zeros((2, 4), np.float32))


# Runs of version 0.1 ------------------------------------------------------------------------------


def test_a_run_of_version_0_1_acts_as_it_did(tmp_path):
    space = spaces.Box(0, 3, (4,), np.uint8)
    run = untrained_run(tmp_path, registered(space, ACTIONS["box"]) | {"network": {"hidden_sizes": [8]}})
    new = TrainedAgent(run)
    assert new.policy.agent.environment.rescale_actions
    written = tomllib.loads((run / "agent.toml").read_text())
    for key in ("rescale_actions", "encoding"):
        del written["environment"][key]
    (run / "agent.toml").write_text(tomlkit.dumps(written))
    old = TrainedAgent(run)
    assert not old.policy.agent.environment.rescale_actions
    x = np.array([[0, 1, 2, 3], [3, 3, 0, 1]], np.uint8)
    np.testing.assert_allclose(new.policy.encoder.encode(x), x / 3, rtol=1e-6)
    np.testing.assert_allclose(old.policy.encoder.encode(x), x / 255, rtol=1e-6)
    mean = np.asarray(old.policy.networks.policy(np.float32(x) * np.float32(1 / 255)))[:, :2]
    np.testing.assert_allclose(old.predict(x), np.clip(mean, [5, -1], [35, 1]), rtol=1e-5)
    mean = np.asarray(new.policy.networks.policy(np.float32(x) * np.float32(1 / 3)))[:, :2]
    np.testing.assert_allclose(new.predict(x), np.clip(mean * [15, 1] + [20, 0], [5, -1], [35, 1]), rtol=1e-5)


def test_what_a_user_writes_is_new_and_what_a_run_wrote_says_so(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text('[environment]\nid = "Pendulum-v1"\n')
    agent = agent_file.load(path)
    assert (agent.environment.rescale_actions, agent.environment.encoding) == (True, 2)
    path.write_text(agent.to_toml())
    assert agent_file.load(path) == agent


# TensorFlow environments --------------------------------------------------------------------------


def test_the_compiled_loop_rescales_as_the_environment_in_which_agents_are_evaluated():
    def trained(rescale):
        data = {
            "environment": {
                "id": "Pendulum-v1",
                "backend": "tensorflow",
                "num_envs": 2,
                "rescale_actions": rescale,
            },
            **SMALL,
        }
        assembly = Assembly(agent_file.parse(data, "test"), "test")
        return assembly, assembly.make_loop().programs._environment

    assembly, environment = trained(True)
    state = np.array([[0.1, 0.2, 0.0], [1.0, -0.5, 0.0]], np.float32)[:, :2]
    action = np.array([[0.25], [-0.5]], np.float32)
    plain = assembly.environments.tensorflow
    found = environment.step(state, action, None)[0]
    wanted = plain.step(state, assembly.translation.decode(action), None)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert np.abs(found - plain.step(state, action, None)[0]).max() > 1e-3
    assert trained(False)[1] is trained(False)[0].environments.tensorflow or trained(False)[1].id == plain.id


# Hidden layers of the user's own ------------------------------------------------------------------

MODEL = """
import keras
from keras import layers


def flat(shape):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layers.Dense(6, "relu", name="ours")(inputs))


def parts(shapes, space):
    assert set(shapes) == {"arm.0", "arm.1", "camera", "state"}, shapes
    assert set(space.spaces) == {"arm", "camera", "state"}
    inputs = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
    camera = layers.Flatten(name="flat")(layers.Conv2D(2, 3, name="see")(inputs["camera"]))
    joined = layers.Concatenate(name="join")([camera, inputs["state"]])
    return keras.Model(inputs, layers.Dense(6, name="ours")(joined))


def picture(shape, space):
    assert shape == (8, 9, 2) == space.shape, shape
    return keras.Sequential([layers.Conv2D(2, 3, name="see"), layers.Flatten(name="flat")], name="net")
"""


@pytest.mark.parametrize(
    ("model", "observed", "shape"),
    [
        ("flat", "few colors", (144,)),
        ("picture", "few colors", (8, 9, 2)),
        ("parts", "nested", (8 * 9 * 3 + 2 + 16 * 17 * 2 + 2,)),
    ],
)
def test_network_model_gets_spaces_and_shapes_or_the_shape_of_version_0_1(model, observed, shape, tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    data = registered(OBSERVATIONS[observed], ACTIONS["box"])
    data["network"] = {"model": f"model.py:{model}"}
    agent = agent_file.parse(data, "test")
    assembly = Assembly(agent, "test", tmp_path)
    assert assembly.encoder.shape == shape
    example = np.zeros((3, *shape), assembly.encoder.dtype)
    assert assembly.networks.policy(example).shape == (3, 4)


# Many inputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "overrides", "said"),
    [
        (spaces.Box(-1, 1, (70, 60, 2), np.float32), [], "8,400 inputs"),
        (spaces.Dict(map=spaces.Box(-1, 1, (5_000,), np.float32)), [], "'map'"),
        (spaces.Box(0, 255, (40, 40, 3), np.uint8), ["network.flatten_images=true"], "4,800 inputs"),
        (spaces.Box(0, 255, (300, 300, 3), np.uint8), [], "convolutions make 73,984 inputs"),
        (spaces.Box(0, 255, (84, 84, 4), np.uint8), [], None),
        (spaces.Discrete(300_000), [], None),
        (spaces.Box(-1, 1, (4_096,), np.float32), [], None),
    ],
    ids=str,
)
def test_very_many_inputs_are_said_with_the_way_out(space, overrides, said):
    agent = agent_file.parse(registered(space, ACTIONS["box"]) | SMALL, "test", overrides)
    remarks = Assembly(agent, "test").remarks()
    assert len(remarks) == (said is not None)
    if said is not None:
        assert said in remarks[0]
        assert "environment.wrappers" in remarks[0]
