"""Projection: Keras' constraints bit for bit, the two projections of our own by hand."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import constraints, ops

import rlweights as rw
from support.dense import arrays, assert_equal, built, model, step

FORMS = {
    "object": (constraints.MaxNorm(0.7), constraints.MaxNorm(0.7)),
    "class": (constraints.NonNeg, constraints.NonNeg()),
    "name": ("max_norm", constraints.MaxNorm()),
    "configuration": (
        {"class_name": "MinMaxNorm", "config": {"min_value": 0.2, "max_value": 0.8, "rate": 0.5}},
        constraints.MinMaxNorm(0.2, 0.8, 0.5),
    ),
    "unit_norm": ("unit_norm", constraints.UnitNorm()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_keras_constraint_is_the_kernel_constraint(form):
    ours, theirs = FORMS[form]
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=(4, 5)).astype("float32") for _ in range(5)]
    start = 2 * rng.normal(size=(4, 5)).astype("float32")

    def trained(optimizer, constraint) -> Any:
        layer = keras.layers.Dense(5, use_bias=False, name="layer", kernel_constraint=constraint)
        layer.build((None, 4))
        layer.kernel.assign(start)
        optimizer.build([layer.kernel])
        for gradient in gradients:
            optimizer.apply([ops.convert_to_tensor(gradient)])
        return layer.kernel.numpy()

    adam = keras.optimizers.Adam
    expected = trained(adam(0.1), theirs)
    found = trained(rw.InterventionOptimizer(adam(0.1), [rw.Projection(ours)]), None)
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - trained(adam(0.1), None)).max() > 0.01  # the constraint did something


def test_unit_norm_counts_all_inputs_of_a_unit():
    project = rw.Projection("unit_norm").update
    np.testing.assert_allclose(project(ops.array([[3.0, 0.0], [4.0, 2.0]]), 0), [[0.6, 0.0], [0.8, 1.0]])
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 5)).astype("float32")
    projected = np.asarray(project(ops.array(kernel), 0))
    np.testing.assert_allclose(np.linalg.norm(projected.reshape(18, 5), axis=0), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(projected, constraints.UnitNorm(axis=[0, 1, 2])(kernel))
    np.testing.assert_allclose(project(ops.array([3.0, 4.0]), 0), [0.6, 0.8])


def test_norm_gives_each_kernel_its_first_norm_back():
    network = model(3, 2)
    norms = [np.linalg.norm(kernel) for kernel in arrays(network)[::2]]
    optimizer = built([rw.Projection("norm")], network, keras.optimizers.SGD(1.0))
    expected = [kernel - 1.0 for kernel in arrays(network)[::2]]
    step(optimizer, network, gradient=1.0)
    for kernel, moved, norm in zip(arrays(network)[::2], expected, norms, strict=True):
        np.testing.assert_allclose(kernel, moved * norm / np.linalg.norm(moved), rtol=1e-6)
    assert_equal(arrays(network)[1::2], [b - np.float32(1.0) for b in arrays(model(3, 2))[1::2]])


def test_a_norm_of_zero_cannot_be_kept():
    network = model(3)
    network.trainable_variables[1].assign(np.zeros(3))
    with pytest.raises(ValueError, match=r"hidden_0/bias has the norm 0 .* leave it out with `on=`"):
        built([rw.Projection("norm", on=rw.kind("kernel", "bias"))], network)


def test_a_function_is_a_projection():
    np.testing.assert_array_equal(rw.Projection(lambda w: w * 2).update(ops.array([1.5]), 0), [3.0])


def test_what_is_no_constraint_is_refused():
    with pytest.raises(ValueError, match="'unti_norm' is neither 'norm' nor 'unit_norm' nor a constraint"):
        rw.Projection("unti_norm")
    with pytest.raises(TypeError, match="Received: 3"):
        rw.Projection(3)
