"""Increments: numbers, schedules, arrays, and functions that read feedback."""

import keras
import numpy as np
import pytest

import rlweights as rw
from support.dense import applied, arrays, built, model, step


def test_increments_cancel():
    network = model(4)
    before = arrays(network)
    optimizer = applied(rw.Increment(0.25), network)
    np.testing.assert_allclose(arrays(network)[0] - before[0], 0.25, atol=1e-7)
    flat = np.concatenate([b.ravel() for b in before])
    expected = 0.25 * np.sqrt(flat.size) / np.linalg.norm(flat)
    assert float(optimizer.metrics()["increment/relative_change"]) == pytest.approx(expected, rel=1e-5)
    applied(rw.Increment(-0.25), network)
    for old, new in zip(before, arrays(network), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)


def test_an_array_for_each_path_times_a_scale():
    network = model(4)
    before = arrays(network)
    amounts = {v.path: np.full(v.shape, i + 1.0) for i, v in enumerate(network.trainable_variables)}
    applied(rw.Increment(amounts, scale=0.5), network)
    for i, (old, new) in enumerate(zip(before, arrays(network), strict=True)):
        np.testing.assert_allclose(new - old, 0.5 * (i + 1), atol=1e-6)


def test_a_list_of_the_weights_shape():
    network = model(3)
    before = arrays(network)[1]
    applied(rw.Increment([1.0, 0.0, -2.0], on=rw.kind("bias")), network)
    np.testing.assert_allclose(arrays(network)[1] - before, [1.0, 0.0, -2.0], atol=1e-6)


def test_a_schedule_goes_with_the_optimizers_steps():
    network = model(4)
    before = arrays(network)[0]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [1.0, 0.5, 0.0])
    applied(rw.Increment(schedule), network, steps=4)
    np.testing.assert_allclose(arrays(network)[0] - before, 1.5, atol=1e-6)


def test_a_learning_rule_of_ones_own():
    """A function of weight, step and feedback: here decay by a rate that somebody else decides."""

    def decay(weight, step, feedback):
        return -feedback["rate"] * weight

    network = model(4)
    before = arrays(network)[0]
    optimizer = built([rw.Increment(decay, feedback={"rate": 0.0})], network)
    step(optimizer, network)
    np.testing.assert_array_equal(arrays(network)[0], before)
    optimizer.feedback["rate"] = 0.5
    step(optimizer, network)
    np.testing.assert_allclose(arrays(network)[0], 0.5 * before)


def test_a_tensor_from_outside():
    network = model(3)
    before = arrays(network)[1]
    optimizer = built([rw.Increment(rw.Feedback("push", [0.0] * 3), on=rw.kind("bias"))], network)
    optimizer.feedback["push"] = [1.0, 2.0, 3.0]
    step(optimizer, network)
    np.testing.assert_allclose(arrays(network)[1] - before, [1.0, 2.0, 3.0], atol=1e-6)


def test_a_wrong_shape_is_an_error_and_does_not_broadcast():
    with pytest.raises(ValueError, match=r"`delta` must keep shape \(4, 4\)"):
        applied(rw.Increment([1.0, 2.0, 3.0, 4.0], on=rw.kind("kernel")), model(4))


def test_a_mapping_must_name_every_selected_weight():
    with pytest.raises(ValueError, match="`amount` has no entry for network/hidden_0/bias"):
        built([rw.Increment({"network/hidden_0/kernel": np.zeros((4, 4))})], model(4))
