"""Clipping: bounds in each unit by hand, what it reports, and that doing it twice is doing it once."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

import rlweights as rw
from support.dense import applied, arrays, assert_equal, built, model, step


def test_absolute_units_are_a_clamp():
    clipped = rw.Clipping(0.5, unit="absolute").update(ops.array([-2.0, -0.5, 0.1, 3.0]), 0)
    np.testing.assert_array_equal(clipped, np.array([-0.5, -0.5, 0.1, 0.5], np.float32))


def test_fan_in_units_take_a_bias_by_its_own_layers_kernel():
    network = model(9, 2, inputs=4)
    before = arrays(network)
    optimizer = applied(rw.Clipping(0.6), network)
    bounds = [np.float32(0.6) * np.float32(n**-0.5) for n in (4, 4, 9, 9)]
    assert_equal(arrays(network), [np.clip(w, -b, b) for w, b in zip(before, bounds, strict=True)])
    beyond = np.concatenate([np.abs(w).ravel() > b for w, b in zip(before, bounds, strict=True)])
    assert float(optimizer.metrics()["clipping/clipped"]) == pytest.approx(beyond.mean())
    assert float(optimizer.metrics()["clipping/saturated"]) == pytest.approx(beyond.mean())
    step(optimizer, network)
    assert float(optimizer.metrics()["clipping/clipped"]) == 0.0  # what stands at the bound is not clipped
    assert float(optimizer.metrics()["clipping/saturated"]) == pytest.approx(beyond.mean())


def test_each_layer_is_measured_if_asked():
    network = model(2, 1, inputs=2)
    for variable, value in zip(network.trainable_variables, (9.0, 0.0, 0.5, 7.0), strict=True):
        variable.assign(value * ops.ones_like(variable))  # pyright: ignore[reportOperatorIssue]
    found = applied(rw.Clipping(1.0, unit="absolute", per_layer=True), network).metrics()
    shares = {
        name.removeprefix("clipping/clipped"): float(share)
        for name, share in found.items()
        if name.startswith("clipping/clipped")
    }
    assert shares == pytest.approx({"": 5 / 9, "/network/hidden_0": 4 / 6, "/network/hidden_1": 1 / 3})
    assert float(found["clipping/saturated/network/hidden_1"]) == pytest.approx(1 / 3)
    assert not [name for name in applied(rw.Clipping(), network).metrics() if "hidden" in name]


def test_the_fan_in_of_a_convolution_counts_places_and_channels():
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 4, name="convolution")])
    for variable in network.trainable_variables:
        variable.assign(ops.ones_like(variable))
    applied(rw.Clipping(1.0), network)
    assert {float(w.max()) for w in arrays(network)} == {np.float32(48**-0.5)}


def test_init_units_clip_nothing_at_first():
    network = model(9, 2)
    before = arrays(network)
    optimizer = applied(rw.Clipping(1.0, unit="init", on=rw.kind("kernel")), network)
    assert_equal(arrays(network), before)
    step(optimizer, network, gradient=-5.0)
    assert [np.abs(k).max() for k in arrays(network)[::2]] == [1.0, 3.0]  # the reach of each kernel


def test_clipping_is_idempotent():
    network = model(9, 2)
    applied(rw.Clipping(0.6), network)
    once = arrays(network)
    applied(rw.Clipping(0.6), network, steps=2)
    assert_equal(arrays(network), once)


def test_log_standard_deviations_and_normalisations_are_left_alone():
    log_std = keras.Variable([5.0, -5.0], name="log_std")
    norm, layer = keras.layers.LayerNormalization(name="norm"), keras.layers.Dense(2, name="layer")
    norm.build((None, 3))
    layer.build((None, 3))
    rule = rw.Clipping()
    optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(0.1), [rule])
    optimizer.build([log_std, *norm.trainable_variables, *layer.trainable_variables])
    assert [v.path for v in rule.variables] == ["layer/kernel", "layer/bias"]


def test_what_has_no_fan_in_is_refused_by_name():
    norm = keras.layers.LayerNormalization(name="norm")
    norm.build((None, 3))
    with pytest.raises(ValueError, match="norm/gamma has no fan-in"):
        built([rw.Clipping(1.0, on=rw.everything())], norm)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"unit": "fan_out"}, "`unit` takes 'fan_in', 'init', 'absolute'. Received: 'fan_out'"),
        ({"bound": -1.0}, "`bound` must be a finite number of at least 0. Received: -1.0"),
        ({"bound": float("inf")}, "`bound` must be a finite number"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        rw.Clipping(**arguments)


def test_the_default_of_bound():
    assert inspect.signature(rw.Clipping).parameters["bound"].default == 3.0
