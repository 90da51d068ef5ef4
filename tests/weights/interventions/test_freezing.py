"""Freezing: held to the last bit against everything, freed layer by layer, from the last one on."""

import keras
import numpy as np
import pytest

import rlweights as rw
from support.dense import arrays, built, model, step


def moved(before, after):
    return [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]


@pytest.mark.parametrize("last", [True, False])
def test_weights_are_held_against_everything_and_freed_from_the_last_layer_on(last):
    network = model(2, 2, 2)
    rules = [rw.Noise(0.1, placement="after_step"), rw.Noise(0.1, name="undone"), rw.Freezing(2, every=2)]
    inner = keras.optimizers.AdamW(0.1, weight_decay=0.1)
    optimizer = built(rules if last else rules[::-1], network, inner)
    first, changes = arrays(network), []
    optimizer.begin_iteration()
    for _ in range(7):
        step(optimizer, network, gradient=1.0)
        with optimizer.clean():
            changes.append(sum(moved(first, arrays(network))[::2]))
    # What is freed from the next step on, a rule behind it moves in this one.
    assert changes == ([0, 0, 1, 1, 2, 2, 3] if last else [0, 1, 1, 2, 2, 3, 3])
    assert moved(first, arrays(network)) == [True] * 6
    assert float(optimizer.metrics()["freezing/frozen"]) == 0.0


def test_a_part_for_good_and_what_is_loaded_stays():
    network = model(2, 2)
    optimizer = built([rw.Freezing(on=rw.layers("hidden_0"))], network)
    step(optimizer, network, gradient=1.0)
    network.trainable_variables[0].assign(np.full((4, 2), 7.0))
    step(optimizer, network, gradient=1.0)
    kernel, bias, *others = arrays(network)
    assert (kernel == 7.0).all()
    np.testing.assert_array_equal(bias, arrays(model(2, 2))[1])
    assert all(moved(arrays(model(2, 2))[2:], others))
    assert float(optimizer.metrics()["freezing/frozen"]) == 1.0


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`until` must be at least 0, or None\. Received: -1"):
        rw.Freezing(-1)
    with pytest.raises(ValueError, match="`every` must be at least 0, and 0 where `until` is None"):
        rw.Freezing(every=2)
