"""A NumPy forward pass that equals Keras, on a snapshot of the weights."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlweights.learning.acting import NUMPY_ACTIVATIONS, NumpyPolicy
from rlweights.learning.networks import actor_critic
from support.builders import observations


def randomise(networks, seed=0):
    """Gives biases, layer norms and statistics values other than 0 and 1."""
    rng = np.random.default_rng(seed)
    for variable in networks.variables:
        noise = rng.normal(size=variable.shape).astype(np.float32)
        if variable.path.endswith(("variance", "count")):
            variable.assign(np.abs(noise) + 0.1)
        else:
            variable.assign(variable.numpy() + 0.3 * noise)


@pytest.mark.parametrize("activation", NUMPY_ACTIVATIONS)
@pytest.mark.parametrize(
    ("layer_norm", "normalize"), [(False, False), (True, False), (False, True), (True, True)]
)
@pytest.mark.parametrize("log_std", [None, -0.5])
def test_numpy_policy_equals_keras(activation, layer_norm, normalize, log_std):
    networks = actor_critic(
        (5,),
        3,
        hidden_sizes=(16, 8),
        activation=activation,
        layer_norm=layer_norm,
        normalize_observations=normalize,
        log_std=log_std,
    )
    randomise(networks)
    x = observations()
    assert NumpyPolicy.supports(networks.policy)
    found, expected = NumpyPolicy(networks.policy)(x), np.array(networks.policy(x))
    assert found.dtype == np.float32
    assert found.shape == (64, 3 if log_std is None else 6)
    # 1e-6 of the largest value in the row: where inputs are large, so is the rounding of the products.
    scale = np.maximum(np.abs(expected).max(axis=-1, keepdims=True), 1.0)
    if activation in ("relu", "linear", "silu", "elu", "leaky_relu") and not layer_norm:
        scale = scale * 2.0  # nothing bounds what the second layer gets to see
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-6)


@pytest.mark.parametrize("hidden_sizes", [(), (7,), (7, 7, 7)])
def test_numpy_policy_of_any_depth(hidden_sizes):
    networks = actor_critic((5,), 2, hidden_sizes=hidden_sizes)
    randomise(networks)
    x = observations() / 30.0
    np.testing.assert_allclose(NumpyPolicy(networks.policy)(x), networks.policy(x), atol=1e-6)


@given(st.integers(0, 2**31 - 1), st.sampled_from([1e-3, 1.0, 1e4]))
@settings(deadline=None, max_examples=25)
def test_numpy_activations_equal_keras_and_never_overflow(seed, scale):
    x = (np.random.default_rng(seed).normal(size=200) * scale).astype(np.float32)
    for name, function in NUMPY_ACTIVATIONS.items():
        expected = np.array(keras.activations.get(name)(x))
        found = function(x)
        assert found.dtype == np.float32, name
        np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-6, err_msg=name)


def test_numpy_policy_is_a_snapshot_and_leaves_its_input_alone():
    networks = actor_critic((5,), 2, hidden_sizes=(4,), layer_norm=True, normalize_observations=True)
    acting = NumpyPolicy(networks.policy)
    x = observations()
    kept, before = x.copy(), acting(x)
    randomise(networks)
    np.testing.assert_array_equal(acting(x), before)
    np.testing.assert_array_equal(x, kept)
    acting.refresh()
    np.testing.assert_allclose(acting(x), networks.policy(x), atol=1e-5)
    assert np.abs(acting(x) - before).max() > 0.01


def test_numpy_policy_refuses_what_it_cannot_do():
    for arguments in ({"activation": "gelu"}, {"convolutions": ((4, 3, 1),)}):
        shape = (8, 8, 1) if "convolutions" in arguments else (5,)
        networks = actor_critic(shape, 2, hidden_sizes=(4,), **arguments)
        assert not NumpyPolicy.supports(networks.policy)
        with pytest.raises(ValueError, match="only dense networks"):
            NumpyPolicy(networks.policy)
    assert not NumpyPolicy.supports(keras.Sequential([keras.layers.Dense(2)]))
