"""What acts: the networks of a configuration, the user's own included."""

import numpy as np
import pytest

from support.assemblies import assembled, refused, selected

KINDS = ("kernel", "bias")


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


@pytest.mark.parametrize(("name", "backend"), [("build", "gymnasium"), ("Own", "tensorflow")])
def test_a_model_from_a_file_learns(tmp_path, backend, name):
    (tmp_path / "model.py").write_text(MODEL)
    overrides = [f"network={{model='model.py:{name}'}}", f"environment.backend={backend}"]
    assembly = assembled(*overrides, folder=tmp_path, rules=[{"rule": "noise", "stddev": 0.1}])
    assert selected(assembly) == [[f"policy/{layer}/{k}" for layer in ("ours", "head") for k in KINDS]]
    assert assembly.files.loaded == [tmp_path / "model.py"]
    before = [variable.numpy() for variable in assembly.networks.trainable_variables]
    loop = assembly.make_loop()
    loop.begin(0, 0)
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
