"""Continual backpropagation: utilities by hand, who is renewed and when, and what becomes of it."""

import keras
import numpy as np
import pytest

import rlweights as rw
from support.dense import arrays, built, model, step

SCORE = "dormant_score/network/hidden_0"


def test_the_least_useful_mature_unit_is_renewed():
    network = model(4, 2)
    head = network.trainable_variables[2]
    head.assign([[1.0, 1.0], [1.0, 0.0], [3.0, 3.0], [2.0, 2.0]])
    inner = keras.optimizers.SGD(0.0, momentum=0.9)
    # 4 units times 0.25 a step: one unit a step once they are mature, and three quarters while one is not.
    rule = rw.ContinualBackpropagation(0.25, maturity=2, decay=0.5, every=1)
    optimizer = built([rule], network, inner)
    before = arrays(network)
    renewed = []

    def take():
        step(optimizer, network)
        renewed.append(float(optimizer.metrics()["continual_backpropagation/renewed_units"]))

    take()
    assert not any(renewed)  # nothing was measured yet
    optimizer.feedback[SCORE] = [0.5, 1.2, 0.1, 2.0]  # utilities 1, 1.2, 0.6, 8 times 1 - 0.5^n
    take()
    for old, new in zip(before, arrays(network), strict=True):
        np.testing.assert_array_equal(old, new)
    take()
    assert renewed == [0.0, 0.0, 1.0]
    kernel, bias, outgoing, _ = arrays(network)
    assert bias[2] == 0.0
    assert not outgoing[2].any()
    assert (kernel[:, 2] != before[0][:, 2]).all()
    np.testing.assert_array_equal(np.delete(kernel, 2, axis=1), np.delete(before[0], 2, axis=1))
    np.testing.assert_array_equal(np.delete(outgoing, 2, axis=0), np.delete(before[2], 2, axis=0))
    take()
    take()
    assert renewed[3:] == [0.0, 1.0]  # and not the new one again, which is the least useful but young
    assert not arrays(network)[2][0].any()
    assert float(optimizer.metrics()["continual_backpropagation/mature"]) == 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"every": 0}, "`every` must be at least 1. Received: 0"),
        ({"maturity": -1}, "`maturity` must be at least 0. Received: -1"),
        ({"decay": 1.0}, r"`decay` must be in \[0, 1\). Received: 1.0"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        rw.ContinualBackpropagation(**arguments)
