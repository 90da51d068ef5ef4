"""Networks: names, initial weights, sharing, and hidden layers of one's own."""

import itertools
import re

import keras
import numpy as np
import pytest

from rlweights.learning.acting import NumpyPolicy
from rlweights.learning.networks import NATURE, actor_critic
from support.builders import observations

# Structure ----------------------------------------------------------------------------------------


def paths(networks):
    return [v.path for v in networks.trainable_variables]


def test_every_weight_has_a_name_that_the_process_history_does_not_change():
    expected = [
        *(f"policy/{name}" for name in ("hidden_0/kernel", "hidden_0/bias", "norm_0/gamma", "norm_0/beta")),
        *(f"policy/{name}" for name in ("head/kernel", "head/bias", "log_std")),
        *(f"value/{name}" for name in ("hidden_0/kernel", "hidden_0/bias", "norm_0/gamma", "norm_0/beta")),
        *(f"value/{name}" for name in ("head/kernel", "head/bias")),
    ]
    for _ in range(2):
        networks = actor_critic((5,), 2, hidden_sizes=(4,), layer_norm=True, log_std=0.0)
        assert sorted(paths(networks)) == sorted(expected)


def test_a_shared_trunk_belongs_to_both_and_is_listed_once():
    networks = actor_critic((5,), 2, hidden_sizes=(4,), shared=True, normalize_observations=True)
    assert sorted(paths(networks)) == [
        *("policy/head/bias", "policy/head/kernel", "trunk/hidden_0/bias", "trunk/hidden_0/kernel"),
        *("value/head/bias", "value/head/kernel"),
    ]
    assert networks.policy.trunk is networks.value.trunk
    statistics = {"normalization/mean", "normalization/variance", "normalization/count"}
    assert {v.path for v in networks.variables} == {*paths(networks), *statistics}
    assert len(networks.variables) == 9


def test_normalisation_is_shared_by_separate_trunks_and_not_trained():
    networks = actor_critic((5,), 2, hidden_sizes=(4,), normalize_observations=True)
    assert networks.policy.trunk.normalization is networks.value.trunk.normalization
    assert not [path for path in paths(networks) if "normalization" in path]
    assert len([v for v in networks.variables if "normalization" in v.path]) == 3


def test_initial_weights_are_orthogonal_with_the_gains():
    networks = actor_critic((6,), 3, hidden_sizes=(4, 4), policy_gain=0.01, log_std=-1.0)
    kernels = {v.path: v.numpy() for v in networks.trainable_variables}
    gains = {"hidden_0": 2**0.5, "hidden_1": 2**0.5}
    for network, head in (("policy", 0.01), ("value", 1.0)):
        for layer, gain in {**gains, "head": head}.items():
            kernel = kernels[f"{network}/{layer}/kernel"]
            gram = kernel.T @ kernel if kernel.shape[0] >= kernel.shape[1] else kernel @ kernel.T
            np.testing.assert_allclose(gram, gain**2 * np.eye(len(gram)), atol=1e-5)
            assert not kernels[f"{network}/{layer}/bias"].any()
    np.testing.assert_array_equal(kernels["policy/log_std"], -1.0)


def test_seeds_are_reproducible_and_layers_differ():
    def kernels(seed):
        networks = actor_critic((4,), 4, hidden_sizes=(4, 4), policy_gain=2**0.5, seed=seed)
        return {v.path: v.numpy() for v in networks.trainable_variables if v.path.endswith("kernel")}

    first, again, other = kernels(0), kernels(0), kernels(1)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        assert (first[name] != other[name]).any()
    squares = [kernel for kernel in first.values() if kernel.shape == (4, 4)]
    assert len(squares) == 5
    for a, b in itertools.combinations(squares, 2):
        assert (a != b).any()


def test_value_network_may_have_other_sizes():
    def shapes(value_hidden_sizes):
        networks = actor_critic((5,), 2, hidden_sizes=(4,), value_hidden_sizes=value_hidden_sizes)
        return [v.shape for v in networks.value.trainable_variables if v.path.endswith("kernel")]

    assert shapes(None) == [(5, 4), (4, 1)]
    assert shapes((8, 3)) == [(5, 8), (8, 3), (3, 1)]
    assert shapes(()) == [(5, 1)]  # linear, not "as the policy"


def test_images_go_through_the_nature_convolutions():
    networks = actor_critic((36, 36, 2), 3, hidden_sizes=(8,), convolutions=NATURE)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 36, 36, 2), np.uint8)
    assert networks.policy(pixels).shape == (2, 3)
    assert networks.values(pixels).shape == (2,)
    # uint8 is scaled to [0, 1] inside of the network.
    scaled = pixels.astype(np.float32) / 255.0
    np.testing.assert_allclose(networks.policy(pixels), networks.policy(scaled), atol=1e-6)
    assert "policy/convolution_2/kernel" in paths(networks)


def test_activations_are_listed_by_layer():
    networks = actor_critic((36, 36, 1), 3, hidden_sizes=(8,), convolutions=NATURE[:1])
    pixels = np.zeros((2, 36, 36, 1), np.uint8)
    found = networks.activations(pixels)
    assert list(found) == ["policy/convolution_0", "policy/hidden_0", "value/convolution_0", "value/hidden_0"]
    assert found["policy/hidden_0"].shape == (2, 8)
    shared = actor_critic((5,), 2, hidden_sizes=(4, 3), shared=True)
    found = shared.activations(observations())
    assert [(name, x.shape[-1]) for name, x in found.items()] == [
        ("trunk/hidden_0", 4),
        ("trunk/hidden_1", 3),
    ]
    x = observations()
    kernel, bias = shared.policy.trunk.hidden[0].weights
    np.testing.assert_allclose(found["trunk/hidden_0"], np.tanh(x @ kernel.numpy() + bias.numpy()), atol=1e-5)


# Hidden layers of one's own -----------------------------------------------------------------------


def functional(shape):
    inputs = keras.Input(shape)
    x = keras.layers.Dense(4, "relu", name="wide")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="deep")(x), name="ours")


def sequential(shape):
    layers = [keras.layers.Dense(4, name="wide"), keras.layers.Dense(3, name="deep")]
    return keras.Sequential(layers, name="ours")


class Subclassed(keras.Model):
    def __init__(self, shape):
        super().__init__(name="ours")
        self.wide = keras.layers.Dense(4, name="wide")
        self.deep = keras.layers.Dense(3, name="deep")

    def call(self, x):
        return self.deep(self.wide(x))


@pytest.mark.parametrize("build", [functional, sequential, Subclassed])
@pytest.mark.parametrize("shared", [False, True])
def test_own_layers_are_named_by_their_network_whatever_was_built_before(build, shared):
    inside = "" if build is functional else "ours/"  # functional models drop their names
    trunks = ["trunk"] if shared else ["policy", "value"]
    expected = [
        *(f"{t}/{inside}{n}/{k}" for t in trunks for n in ("wide", "deep") for k in ("kernel", "bias")),
        *(f"{head}/head/{kind}" for head in ("policy", "value") for kind in ("kernel", "bias")),
    ]
    for _ in range(2):
        networks = actor_critic((5,), 2, model=build, shared=shared)
        assert sorted(paths(networks)) == sorted(expected)
    assert not NumpyPolicy.supports(networks.policy)
    assert networks.policy(observations()).shape == (64, 2)
    assert networks.values(observations()).shape == (64,)
    assert {n: x.shape for n, x in networks.activations(observations()).items()} == {
        f"{trunk}/features": (64, 3) for trunk in trunks
    }


def test_own_layers_start_from_the_seed():
    def kernels(seed):
        return {
            v.path: v.numpy()
            for v in actor_critic((5,), 2, model=functional, seed=seed).trainable_variables
            if "kernel" in v.path
        }

    first, again, other = kernels(1), kernels(1), kernels(2)
    for name, kernel in first.items():
        np.testing.assert_array_equal(kernel, again[name])
        assert not np.array_equal(kernel, other[name])
    assert not np.array_equal(first["policy/wide/kernel"], first["value/wide/kernel"])


def test_own_layers_see_float32_and_images_in_the_unit_interval():
    def build(shape):
        return keras.Sequential([keras.layers.Flatten(name="flat")], name="ours")

    pixels = np.full((2, 36, 40, 3), 51, np.uint8)
    networks = actor_critic((36, 40, 3), 2, model=build, convolutions=NATURE)
    np.testing.assert_allclose(networks.activations(pixels)["policy/features"], 0.2, rtol=1e-6)
    networks = actor_critic((5,), 2, model=build, normalize_observations=True)
    assert networks.normalization is not None
    networks.normalization.update(observations(), np.ones(64, np.float32))
    features = np.array(networks.activations(observations())["policy/features"])
    np.testing.assert_allclose(features, networks.normalization(observations()), rtol=1e-6)
    assert not np.allclose(features, observations())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda shape: keras.layers.Reshape((5, 1), name="r"), "two observations became (2, 5, 1)"),
        (lambda shape: np.tanh, "must return a Keras model. Received: ufunc"),
        (
            lambda shape: keras.Sequential([keras.layers.Dense(3, name="deep")]),
            "every layer and model in it needs a name of its own: 'sequential",
        ),
    ],
)
@pytest.mark.parametrize("shared", [False, True])
def test_own_layers_that_do_not_fit(build, message, shared):
    with pytest.raises(ValueError, match=re.escape(message)):
        actor_critic((5,), 2, model=build, shared=shared)
