"""Rounded weights: the grid by hand and against Keras, signs, centroids, and what evaluations see."""

import keras
import numpy as np
import pytest
from keras import ops

import rlweights as rw
from support.dense import applied, arrays, built, model, step
from support.keras_models import data, small_model


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_the_grid_of_each_output_channel_is_that_of_keras(bits):
    network = model(5)
    network.trainable_variables[0].assign(np.random.default_rng(0).normal(size=(4, 5)))
    kernel, bias = arrays(network)
    optimizer = built([rw.Quantization(bits)], network)
    most = 2 ** (bits - 1) - 1
    integers, scale = keras.quantizers.abs_max_quantize(kernel, 0, (-most, most), to_numpy=True)
    expected = np.asarray(integers) / np.asarray(scale)
    np.testing.assert_allclose(np.abs(kernel).max(axis=0) / np.abs(expected).max(axis=0), 1.0, rtol=1e-6)
    with optimizer.evaluation():
        np.testing.assert_array_equal(arrays(network)[0], expected)
        np.testing.assert_array_equal(arrays(network)[1], bias)
    np.testing.assert_array_equal(arrays(network)[0], kernel)


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a")
def test_what_is_stripped_is_what_keras_makes_of_it():
    """Keras' int8 model of the stripped weights computes with the same integers, hence the same kernels."""
    network = small_model()
    network.compile(rw.InterventionOptimizer(keras.optimizers.SGD(0.1), [rw.Quantization(8)]), "mse")
    network.fit(*data(), verbose=0, callbacks=[rw.WeightMonitor()])
    trained = {v.path: v.numpy() for v in network.trainable_variables}  # no validation: they are clean
    stripped = {v.path: v.numpy() for v in rw.strip(network).trainable_variables}
    network.quantize("int8")
    for layer in network.layers[1:]:
        kernel = f"{layer.name}/kernel"
        quantized = keras.quantizers.abs_max_quantize(trained[kernel], 0, to_numpy=True)
        integers, scale = (np.asarray(ops.convert_to_numpy(each)) for each in quantized)
        np.testing.assert_array_equal(ops.convert_to_numpy(layer._kernel), integers)
        np.testing.assert_allclose(stripped[kernel], integers / scale)


def test_gradients_are_taken_at_rounded_weights_and_digits_are_kept():
    network = model(1, inputs=2)
    kernel = network.trainable_variables[0]
    kernel.assign([[1.0], [0.2]])
    optimizer = built([rw.Quantization(2, begin=2)], network)
    optimizer.begin_iteration()
    live = []
    for _ in range(3):
        live.append(kernel.numpy().ravel().tolist())
        step(optimizer, network, gradient=-1.0)
    np.testing.assert_allclose(live, [[1.0, 0.2], [1.1, 0.3], [1.2, 0.0]], atol=1e-6)
    optimizer.end_iteration()
    np.testing.assert_allclose(kernel.numpy().ravel(), [1.3, 0.5], atol=1e-6)


def test_signs_with_and_without_their_mean():
    weight = ops.array([[1.0, -4.0], [-2.0, 0.0]])
    found = rw.Binarization().update(weight, 0)
    np.testing.assert_allclose(np.asarray(found), [[1.5, -2.0], [-1.5, 2.0]])
    found = rw.Binarization("one").update(weight, 0)
    np.testing.assert_array_equal(ops.convert_to_numpy(found), [[1.0, -1.0], [-1.0, 1.0]])


def test_centroids_are_the_means_of_their_entries():
    network = model(1, inputs=6)
    kernel = network.trainable_variables[0]
    kernel.assign([[-1.0], [-0.8], [0.1], [0.3], [0.9], [1.0]])  # centroids begin at -1, 0 and 1
    optimizer = built([rw.Clustering(3)], network)
    optimizer.begin_iteration()
    expected = [-0.9, -0.9, 0.2, 0.2, 0.95, 0.95]
    np.testing.assert_allclose(kernel.numpy().ravel(), expected, atol=1e-6)
    with optimizer.evaluation():
        np.testing.assert_allclose(kernel.numpy().ravel(), expected, atol=1e-6)
    optimizer.end_iteration()
    np.testing.assert_allclose(kernel.numpy().ravel(), [-1.0, -0.8, 0.1, 0.3, 0.9, 1.0], atol=1e-6)


def test_pruned_weights_are_zero_in_every_form():
    for rule in (rw.Quantization(4), rw.Binarization(), rw.Clustering(4)):
        network = model(4)
        optimizer = applied(rw.Pruning(0.5, end=0, every=1), network)
        held = arrays(network)[0] == 0
        optimizer = built([rw.Pruning(0.5, end=0, every=1), rule], network)
        optimizer.begin_iteration()
        step(optimizer, network)
        step(optimizer, network)
        assert held.mean() == 0.5
        assert not arrays(network)[0][held].any()
        with optimizer.evaluation():
            assert not arrays(network)[0][held].any()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rw.Quantization(1), "`bits` must be 2 to 8. Received: 1"),
        (lambda: rw.Quantization(begin=-1), "`begin` must be at least 0"),
        (lambda: rw.Quantization(placement="after_step"), "takes placement 'during_gradient'"),
        (lambda: rw.Binarization("two"), "`scale` takes 'mean' or 'one'. Received: 'two'"),
        (lambda: rw.Clustering(1), "`clusters` must be at least 2. Received: 1"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(ValueError, match=words):
        make()
