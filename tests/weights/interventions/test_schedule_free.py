"""Schedule-free steps: by hand, against Keras' ScheduleFreeAdamW, and with that one inside."""

import keras
import numpy as np
import pytest

import rlweights as rw
from support.dense import arrays, built, model, step


def gradients(network):
    """Of half the squared distance from 1: curved, so that it matters where they are taken."""
    return [v.numpy() - 1.0 for v in network.trainable_variables]


def test_the_equations_by_hand():
    network = model(2, inputs=2)
    optimizer = built([rw.ScheduleFree(0.9)], network, keras.optimizers.SGD(0.5))
    z = arrays(network)
    x = [each.copy() for each in z]
    optimizer.begin_iteration()
    for t in range(1, 5):
        y = [0.1 * a + 0.9 * b for a, b in zip(z, x, strict=True)]
        for live, expected in zip(arrays(network), y, strict=True):
            np.testing.assert_allclose(live, expected, atol=1e-6)
        optimizer.apply(gradients(network))
        z = [a - 0.5 * (b - 1.0) for a, b in zip(z, y, strict=True)]
        x = [(1 - 1 / t) * b + a / t for a, b in zip(z, x, strict=True)]
        with optimizer.evaluation():
            for found, expected in zip(arrays(network), x, strict=True):
                np.testing.assert_allclose(found, expected, atol=1e-6)
    optimizer.end_iteration()
    optimizer.begin_iteration()  # a draw without a step: the average stays
    with optimizer.evaluation():
        np.testing.assert_allclose(arrays(network)[0], x[0], atol=1e-6)


def test_on_adam_it_is_the_published_algorithm():
    """Defazio et al. 2024, algorithm 1, in NumPy, without its warm-up."""
    network = model(3, 2)
    inner = keras.optimizers.Adam(0.05, beta_1=0.0, epsilon=1e-12)
    optimizer = built([rw.ScheduleFree(0.9)], network, inner)
    z = arrays(network)
    x, v = [each.copy() for each in z], [np.zeros_like(each) for each in z]
    optimizer.begin_iteration()
    for t in range(1, 21):
        optimizer.apply(gradients(network))
        for i in range(len(z)):
            g = 0.1 * z[i] + 0.9 * x[i] - 1.0
            v[i] = 0.999 * v[i] + 0.001 * g**2
            z[i] = z[i] - 0.05 * g / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-12)
            x[i] = (1 - 1 / t) * x[i] + z[i] / t
    with optimizer.evaluation():
        for found, expected in zip(arrays(network), x, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_kerass_own_may_be_the_inner_optimizer():
    bare_network, network = model(3, 2), model(3, 2)
    bare, inner = (keras.optimizers.ScheduleFreeAdamW(0.05) for _ in range(2))
    bare.build(bare_network.trainable_variables)
    optimizer = built([], network, inner)
    for _ in range(5):
        bare.apply(gradients(bare_network), bare_network.trainable_variables)
        optimizer.apply(gradients(network))
    y, z = arrays(network), [s.numpy() for s in bare._momentums]
    for one, other in zip(y, arrays(bare_network), strict=True):
        np.testing.assert_array_equal(one, other)
    with optimizer.evaluation():
        for found, a, b in zip(arrays(network), y, z, strict=True):
            np.testing.assert_allclose(0.9 * found + 0.1 * b, a, atol=1e-6)
            assert not np.array_equal(found, a)


def test_a_rule_that_writes_slots_rewrites_the_copy_in_kerass_own_too():
    network = model(4)
    rules = [rw.Pruning(0.5, end=2, every=1)]
    optimizer = built(rules, network, keras.optimizers.ScheduleFreeAdamW(0.1))
    for _ in range(5):
        step(optimizer, network, 1.0)
    kernel = network.trainable_variables[0]
    held = kernel.numpy() == 0
    assert held.mean() == 0.5
    assert not optimizer.kept.named(kernel)["momentum"].numpy()[held].any()
    with optimizer.evaluation():
        assert not kernel.numpy()[held].any()
        assert kernel.numpy()[~held].all()


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`beta` must be in \[0, 1\)\. Received: 1\.0"):
        rw.ScheduleFree(1.0)
