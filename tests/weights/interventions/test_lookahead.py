"""Lookahead and the hare and the tortoise, by hand: optax's `lookahead` makes the same numbers."""

import keras
import numpy as np
import pytest

import rlweights as rw
from support.dense import arrays, built, model, step


def moving(rule, steps, inner=None):
    """How far a kernel has come that each step moves by 1, and its evaluation, step by step."""
    network = model(1, inputs=1)
    optimizer = built([rule], network, inner or keras.optimizers.SGD(1.0))
    first = arrays(network)[0].item()
    fast, slow = [], []
    for _ in range(steps):
        step(optimizer, network, gradient=-1.0)
        fast.append(arrays(network)[0].item() - first)
        with optimizer.evaluation():
            slow.append(arrays(network)[0].item() - first)
    return fast, slow, optimizer, network


def test_two_steps_forward_and_half_the_way_back():
    """optax.lookahead(sgd(1.0), sync_period=2, slow_step_size=0.5): fast 1, 1, 2, 2; slow 0, 1, 1, 2."""
    fast, slow, _, _ = moving(rw.Lookahead(2, 0.5), 4)
    np.testing.assert_allclose(fast, [1.0, 1.0, 2.0, 2.0], atol=1e-6)
    np.testing.assert_allclose(slow, [0.0, 1.0, 1.0, 2.0], atol=1e-6)


def test_momentum_begins_anew_if_asked():
    for reset, expected in ((True, 0.0), (False, 1.9)):
        inner = keras.optimizers.SGD(1.0, momentum=0.9)
        _, _, optimizer, network = moving(rw.Lookahead(2, reset=reset), 2, inner)
        (momentum,) = optimizer.slots(network.trainable_variables[0])
        np.testing.assert_allclose(momentum.numpy(), expected, atol=1e-6)


def test_the_hare_comes_back_to_the_tortoise():
    fast, slow, _, _ = moving(rw.HareAndTortoise(every=3, decay=0.5), 4)
    # The tortoise: 0.5, 0.5 (0.5 + 2), 0.5 (1.25 + 3), and there the hare is, too.
    np.testing.assert_allclose(slow, [0.5, 1.25, 2.125, 2.625], atol=1e-6)
    np.testing.assert_allclose(fast, [1.0, 2.0, 2.125, 3.125], atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rw.Lookahead(0), "`every` must be at least 1. Received: 0"),
        (lambda: rw.Lookahead(rate=0.0), r"`rate` must be in \(0, 1\]. Received: 0.0"),
        (lambda: rw.HareAndTortoise(0), "`every` must be at least 1. Received: 0"),
        (lambda: rw.HareAndTortoise(decay=1.0), r"`decay` must be in \[0, 1\). Received: 1.0"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(ValueError, match=words):
        make()
