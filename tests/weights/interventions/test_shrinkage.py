"""Shrinkage: its three targets and its perturbation by hand."""

import keras
import numpy as np
import pytest

import rlweights as rw
from support.dense import applied, arrays, assert_equal, built, model, step


def rms(values) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def test_towards_zero():
    network = model(4)
    before = arrays(network)
    applied(rw.Shrinkage(0.25, towards="zero"), network, steps=2)
    for old, new in zip(before, arrays(network), strict=True):
        np.testing.assert_allclose(new, 0.75**2 * old, rtol=1e-6)


def test_towards_the_initial_weights():
    network = model(4)
    before = arrays(network)
    optimizer = built([rw.Shrinkage(0.25, towards="initial")], network, keras.optimizers.SGD(1.0))
    step(optimizer, network, gradient=1.0)  # at a distance of 1, then of 3/4
    step(optimizer, network, gradient=1.0)  # at a distance of 7/4, then of 3/4 of it
    for old, new in zip(before, arrays(network), strict=True):
        np.testing.assert_allclose(new, old - 1.3125, atol=1e-5)


def test_a_target_of_fresh_draws_has_the_scale_of_the_initial_weights():
    network = model(40, inputs=40)
    scale = rms(arrays(network)[0])
    applied(rw.Shrinkage(1.0, towards="fresh"), network)
    once = arrays(network)[0]
    assert rms(once) == pytest.approx(scale, rel=0.05)
    applied(rw.Shrinkage(1.0, towards="fresh"), network, steps=2)
    assert abs(np.corrcoef(once.ravel(), arrays(network)[0].ravel())[0, 1]) < 0.1


def test_a_bias_that_began_at_zero_is_drawn_as_zero():
    network = model(4)
    bias = network.trainable_variables[1]
    bias.assign(np.zeros(4))
    optimizer = built([rw.Shrinkage(0.5, towards="fresh", perturb=1.0)], network)
    bias.assign(np.ones(4))
    step(optimizer, network)
    np.testing.assert_allclose(bias.numpy(), 0.5)


def test_shrink_and_perturb_between_iterations():
    network = model(50, inputs=40)
    before = arrays(network)[0]
    rule = rw.Shrinkage(0.6, towards="zero", perturb=0.5, placement="after_iteration")
    optimizer = built([rule], network)
    optimizer.begin_iteration()
    step(optimizer, network)
    assert_equal(arrays(network)[:1], [before])
    optimizer.end_iteration()
    added = arrays(network)[0] - np.float32(0.4) * before
    assert rms(added) == pytest.approx(0.5 * rms(before), rel=0.05)
    assert abs(np.corrcoef(added.ravel(), before.ravel())[0, 1]) < 0.1


def test_a_rate_of_a_millionth_keeps_its_digits():
    """In float32, 1 - 1e-6 is 1 - 1.013e-6: as a factor the published rate would be wrong by 1.3 %."""
    weight = keras.Variable(np.ones(4, np.float32))
    change = np.asarray(rw.Shrinkage(1e-6, towards="zero").delta(weight, 0))
    np.testing.assert_allclose(change, -1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"towards": "one"}, "`towards` takes 'zero', 'initial', 'fresh'. Received: 'one'"),
        ({"rate": 1.5}, r"`rate` must be in \[0, 1\]. Received: 1.5"),
        ({"perturb": -1.0}, "`perturb` must be a finite number of at least 0"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        rw.Shrinkage(**arguments)
