"""Singular values: Keras' own spectral normalization to the last bit, and SciPy's polar decomposition."""

import keras
import numpy as np
import pytest
import scipy.linalg

import rlweights as rw
from support.dense import applied, arrays, built, model, step


def test_it_is_what_kerass_layer_does():
    layer = keras.layers.SpectralNormalization(keras.layers.Dense(5), power_iterations=2)
    x = np.ones((1, 4), np.float32)
    layer.build((1, 4))
    network = model(5)
    kernel = network.trainable_variables[0]
    kernel.assign(layer.kernel)
    optimizer = built([rw.SpectralNorm(iterations=2)], network)
    (vector,) = [v for v in optimizer.variables if v.name.endswith("_vector")]
    vector.assign(layer.vector_u)
    for _ in range(3):
        layer(x, training=True)
        step(optimizer, network)
        np.testing.assert_allclose(kernel.numpy(), layer.kernel.numpy(), rtol=2e-6, atol=1e-7)
    assert np.linalg.norm(kernel.numpy(), 2) == pytest.approx(1.0, abs=0.05)


def test_kernels_below_are_left_alone_if_asked():
    network = model(3, 3)
    before = arrays(network)
    for variable, value in zip(network.trainable_variables, before, strict=True):
        variable.assign(value * (0.01 if variable.path.endswith("hidden_0/kernel") else 1.0))
    applied(rw.SpectralNorm(2.0, iterations=30, only_above=True), network)
    small, _, large, _ = arrays(network)
    np.testing.assert_allclose(small, 0.01 * before[0])
    assert np.linalg.norm(large, 2) == pytest.approx(2.0, rel=1e-4)


@pytest.mark.parametrize("units", [3, 4, 9])
def test_the_nearest_orthogonal_matrix_is_scipys_polar_factor(units):
    network = model(units)
    kernel = network.trainable_variables[0]
    kernel.assign(np.random.default_rng(0).normal(size=(4, units)))
    expected, _ = scipy.linalg.polar(kernel.numpy())
    applied(rw.Orthogonal(2.0), network)
    np.testing.assert_allclose(kernel.numpy(), 2.0 * expected, atol=2e-4)
    step(built([rw.Orthogonal(2.0)], network, keras.optimizers.SGD(0.01)), network, gradient=1.0)
    gram = np.sort(np.linalg.svd(kernel.numpy(), compute_uv=False))
    np.testing.assert_allclose(gram, 2.0, atol=1e-4)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`iterations` must be at least 1. Received: 0"):
        rw.SpectralNorm(iterations=0)
    with pytest.raises(ValueError, match=r"`rounds` must be at least 1. Received: 0"):
        rw.Orthogonal(rounds=0)
