"""Exported policies act as the agent does in a process that has never heard of rlweights."""

import importlib.util
import json
import subprocess
import sys
from types import ModuleType

import gymnasium as gym
import numpy as np
import pytest

from rlweights.errors import ConfigError
from rlweights.running import export_formats
from rlweights.running.records.event_file import read_scalars
from rlweights.running.trained import TrainedAgent
from support.smallruns import EPISODES, small_run, untrained_run

# Keras' own saving reads variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

KINDS = {"keras": "policy.keras", "saved_model": "policy", "tflite": "policy.tflite"}
if importlib.util.find_spec("tf2onnx"):
    KINDS["onnx"] = "policy.onnx"
""" "pip install rlweights[onnx]" adds one."""

FIRST = int(np.random.SeedSequence([10_000, 2]).generate_state(1, np.uint32)[0] >> 1)
SEEDS = [FIRST + i for i in range(EPISODES)]
"""Those of the environments of the run's own last evaluation, one episode each."""

READER = '''
"""Loads every model below a folder; writes what it says about the observations, and what it reaches."""
import json, sys, warnings
from pathlib import Path
import numpy as np

def load(path):
    if path.suffix == ".keras":
        import keras
        model = keras.saving.load_model(path)
        return lambda x: np.asarray(model(x))
    if path.suffix == ".onnx":
        import onnxruntime
        session = onnxruntime.InferenceSession(str(path))
        return lambda x: session.run(None, {session.get_inputs()[0].name: x})[0]
    import tensorflow as tf
    if path.suffix == ".tflite":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            interpreter = tf.lite.Interpreter(str(path))
        def run(x):
            entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
            interpreter.resize_tensor_input(entry["index"], x.shape)
            interpreter.allocate_tensors()
            interpreter.set_tensor(entry["index"], x)
            interpreter.invoke()
            return interpreter.get_tensor(result["index"])
        return run
    model = tf.saved_model.load(str(path))
    return lambda x: np.asarray(model.serve(x))

def greedy_return(policy, seed):
    import gymnasium as gym
    env = gym.make("CartPole-v1")
    observation, total, ended = env.reset(seed=seed)[0], 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(int(policy(observation[None]).argmax()))
        total, ended = total + reward, terminated or truncated
    return total

folder, seeds = Path(sys.argv[1]), json.loads(sys.argv[2])
found = {}
for path in sorted(folder.glob("*/policy*")):
    policy, name = load(path), path.relative_to(folder).as_posix()
    found[name] = {"outputs": policy(np.load(path.parent / "observations.npy")).tolist()}
    if path.parent.name == "trained":
        found[name]["returns"] = [greedy_return(policy, seed) for seed in seeds]
assert not any(name.startswith("rlweights") for name in sys.modules)
print(json.dumps(found))
'''


class Pixels(gym.Env):
    """Noise to look at."""

    observation_space = gym.spaces.Box(0, 255, (40, 44, 3), np.uint8)
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.integers(0, 256, (40, 44, 3), dtype=np.uint8), {}

    def step(self, action):
        return self.np_random.integers(0, 256, (40, 44, 3), dtype=np.uint8), 0.0, False, True, {}


CARTPOLE, PENDULUM, PIXELS = {"id": "CartPole-v1"}, {"id": "Pendulum-v1"}, {"id": "rlweights/Pixels-v0"}
NORMALIZED = {"normalize_observations": True}
AGENTS = {
    "normalized": {"environment": CARTPOLE | NORMALIZED},
    "layer_norm": {"environment": CARTPOLE, "network": {"layer_norm": True, "activation": "relu"}},
    "continuous": {"environment": PENDULUM, "network": {"log_std_init": -1.0}},
    "shared": {"environment": CARTPOLE, "network": {"shared": True, "activation": "silu"}},
    "everything": {
        "environment": PENDULUM | NORMALIZED,
        "network": {"shared": True, "layer_norm": True, "hidden_sizes": [8, 16, 8], "activation": "elu"},
    },
    "pixels": {"environment": PIXELS},
    "normalized_pixels": {"environment": PIXELS | NORMALIZED},
}
EVERY_KIND = ("trained", "everything")
EXPORTS = [
    (name, target)
    for name in ("trained", *AGENTS)
    for target in KINDS.values()
    # All kinds are made from one model: for most agents one of them shows that the model is right.
    if name in EVERY_KIND or target == KINDS["keras"]
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What agents say themselves, and what their exports said in another process."""
    gym.register(PIXELS["id"], Pixels)
    folder = tmp_path_factory.mktemp("exports")
    runs = {"trained": small_run()}
    runs |= {name: untrained_run(tmp_path_factory.mktemp(name), data) for name, data in AGENTS.items()}
    wanted = {}
    for name, run in runs.items():
        agent = TrainedAgent(run, "latest")
        (folder / name).mkdir()
        for target in KINDS.values():
            if (name, target) in EXPORTS:
                export_formats.write(agent, folder / name / target)
        (observations,) = export_formats._inputs(agent)
        observations = observations[9:]  # another batch size than the one that was checked
        np.save(folder / name / "observations.npy", observations)
        wanted[name] = {"outputs": np.asarray(agent.policy.networks.policy(observations))}
    del gym.registry[PIXELS["id"]]
    script = folder / "reader.py"
    script.write_text(READER)
    command = [sys.executable, str(script), str(folder), json.dumps(SEEDS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return wanted, json.loads(done.stdout), folder


@pytest.mark.parametrize(("name", "target"), EXPORTS)
def test_exported_policy_gives_the_agents_own_outputs(exported, name, target):
    wanted, found, _ = exported
    outputs = wanted[name]["outputs"]
    assert np.ptp(outputs) > 1e-3  # a comparison of zeros would prove nothing
    tolerance = export_formats.TOLERANCE * max(1.0, np.abs(outputs).max())
    np.testing.assert_allclose(found[f"{name}/{target}"]["outputs"], outputs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_exported_policy_reaches_the_evaluation_return_of_the_run(exported, kind):
    _, found, _ = exported
    step, recorded = read_scalars(small_run())["eval/mean_reward"][-1]
    returns = found[f"trained/{KINDS[kind]}"]["returns"]
    assert (step, len(set(returns)) > 1) == (1024, True)
    assert np.float32(np.mean(returns)) == np.float32(recorded)


def test_an_export_leaves_only_its_target(exported):
    _, _, folder = exported
    assert {p.name for p in (folder / "trained").iterdir()} == {*KINDS.values(), "observations.npy"}


def test_statistics_far_from_zero_lose_no_precision(tmp_path):
    agent = TrainedAgent(untrained_run(tmp_path, AGENTS["normalized"]))
    normalization = agent.policy.networks.normalization
    normalization.mean.assign(np.full(4, 1000.0))
    normalization.variance.assign(np.full(4, 0.01))
    export_formats.write(agent, tmp_path / "policy.keras")


def test_the_check_sees_observations_of_the_scale_of_the_statistics(tmp_path):
    agent = TrainedAgent(untrained_run(tmp_path, AGENTS["normalized"]))
    normalization = agent.policy.networks.normalization
    assert normalization is not None
    normalization.mean.assign(np.full(4, 1000.0))
    normalized = np.abs(np.asarray(normalization(export_formats._inputs(agent)[0])))
    assert normalized[:12].max() < 5.0  # at the limit of 10 every policy looks alike
    assert normalized[:12].std() > 0.3
    assert (normalized[12:] == 10.0).any()  # but the limit is checked, too


@pytest.mark.parametrize("target", ["policy.h5", "policy.pb", "policy.keras.zip"])
def test_unknown_kinds_are_refused(tmp_path, target):
    agent = TrainedAgent(small_run())
    with pytest.raises(ConfigError, match=r"takes a \.keras, \.tflite or \.onnx file, or a folder"):
        export_formats.write(agent, tmp_path / target)
    assert not list(tmp_path.iterdir())


def test_onnx_without_its_extra_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    with pytest.raises(ConfigError, match=r"tf2onnx is not installed; pip install 'rlweights\[onnx\]'"):
        export_formats.write(TrainedAgent(small_run()), tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", KINDS.values())
def test_existing_targets_are_refused_and_left_alone(tmp_path, target):
    agent, path = TrainedAgent(small_run()), tmp_path / target
    path.write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        export_formats.write(agent, path)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("target", KINDS.values())
def test_a_missing_folder_is_one_line(tmp_path, target):
    agent = TrainedAgent(small_run())
    with pytest.raises(ConfigError, match="cannot be written: No such file or directory"):
        export_formats.write(agent, tmp_path / "nowhere" / target)
    assert not list(tmp_path.iterdir())


def test_a_model_that_acts_differently_leaves_nothing_behind(tmp_path, monkeypatch):
    agent, fill = TrainedAgent(small_run()), export_formats._fill

    def wrong(model, policy):
        fill(model, policy)
        bias = model.get_layer("head").bias
        bias.assign(bias + 0.01)

    monkeypatch.setattr(export_formats, "_fill", wrong)
    for target in ("policy.keras", "policy"):
        with pytest.raises(ConfigError, match=r"differs from the agent by 0\.01"):
            export_formats.write(agent, tmp_path / target)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_behind_when_a_writer_breaks(tmp_path, monkeypatch):
    def broken(model, target, observations):
        target.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(export_formats, "_keras", broken)
    with pytest.raises(KeyboardInterrupt):
        export_formats.write(TrainedAgent(small_run()), tmp_path / "policy.keras")
    assert not list(tmp_path.iterdir())


def test_the_converter_prints_nothing(tmp_path, capfd):
    agent = TrainedAgent(small_run())
    capfd.readouterr()
    export_formats.write(agent, tmp_path / "policy.tflite")
    assert capfd.readouterr().out == ""


MODEL = """
import keras


def build(observation_shape):
    inputs = keras.Input(observation_shape)
    return keras.Model(inputs, keras.layers.Dense(6, "relu", name="ours")(inputs))


class Own(keras.layers.Layer):
    def __init__(self, observation_shape):
        super().__init__(name="ours")
        self.inner = keras.layers.Dense(6, name="inner")

    def call(self, x):
        return self.inner(x)
"""


def run_with(model: str, folder):
    """A run whose hidden layers are the user's own; their file is gone but for the run's copy."""
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "own.py").write_text(MODEL)
    network = {"model": f"{folder / 'elsewhere' / 'own.py'}:{model}"}
    environment = {"id": "Pendulum-v1", "normalize_observations": True}
    run = untrained_run(folder, {"environment": environment, "network": network})
    (folder / "elsewhere" / "own.py").unlink()
    return run


@pytest.mark.parametrize("target", KINDS.values())
def test_a_model_of_ones_own_is_exported_from_the_runs_copy_of_it(tmp_path, target):
    run = run_with("build", tmp_path)
    assert (run / "own.py").read_text() == MODEL
    export_formats.write(TrainedAgent(run), tmp_path / target)  # which compares
    assert (tmp_path / target).exists()


def test_a_model_that_keras_cannot_load_alone_is_exported_as_saved_model_only(tmp_path):
    agent = TrainedAgent(run_with("Own", tmp_path))
    with pytest.raises(ConfigError, match=r"^policy\.keras: the file needs classes of your own to load; "):
        export_formats.write(agent, tmp_path / "policy.keras")
    assert not (tmp_path / "policy.keras").exists()
    export_formats.write(agent, tmp_path / "policy")
