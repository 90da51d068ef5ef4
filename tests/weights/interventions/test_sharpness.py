"""Momentum-SAM against its published code, worked out by hand in NumPy."""

import keras
import numpy as np
import pytest

import rlweights as rw
from support.dense import built, model


def test_each_gradient_is_taken_along_the_momentum():
    """algorithm 1: w~ = w - rho v / |v|, v <- mu v + grad(w~), w <- w - rate v; here with grad(w) = w."""
    network = model(2, inputs=2)
    weights = network.trainable_variables
    optimizer = built([rw.SharpnessAware(0.3)], network, keras.optimizers.SGD(0.1, momentum=0.9))
    w = np.concatenate([v.numpy().ravel() for v in weights])
    v, clean = np.zeros_like(w), w
    optimizer.begin_iteration()
    for _ in range(4):
        moved = clean - 0.3 * v / max(np.linalg.norm(v), 1e-12)
        live = np.concatenate([each.numpy().ravel() for each in weights])
        np.testing.assert_allclose(live, moved, atol=1e-6)
        v = 0.9 * v + moved
        clean = clean - 0.1 * v
        optimizer.apply([each.numpy() for each in weights])
    optimizer.end_iteration()
    np.testing.assert_allclose(np.concatenate([e.numpy().ravel() for e in weights]), clean, atol=1e-6)
    found = float(optimizer.metrics()["sharpness_aware/momentum"])
    assert found == pytest.approx(0.1 * np.linalg.norm(v), rel=1e-5)


def test_the_momentum_of_adam_points_the_other_way():
    network = model(1, inputs=2)
    optimizer = built([rw.SharpnessAware(0.5)], network, keras.optimizers.AdamW(1e-9))
    optimizer.begin_iteration()
    before = [v.numpy() for v in network.trainable_variables]
    optimizer.apply([np.float32([[3.0], [0.0]]), np.float32([4.0])])  # the momentum is along (3, 0, 4)
    for v, old, move in zip(network.trainable_variables, before, ([[-0.3], [0.0]], [-0.4]), strict=True):
        np.testing.assert_allclose(v.numpy() - old, move, atol=1e-6)


def test_an_optimizer_without_momentum_is_refused_by_name():
    with pytest.raises(ValueError, match="SGD keeps no 'momentum' of network/hidden_0/kernel; it keeps noth"):
        built([rw.SharpnessAware()], model(1))
    with pytest.raises(ValueError, match=r"of Adagrad no momentum is known\. Use SGD, Adam"):
        built([rw.SharpnessAware()], model(1), keras.optimizers.Adagrad())
