"""Averaging: the average by hand, seen in evaluation only, of weights that the other rules have passed."""

import keras
import numpy as np
import pytest

import rlweights as rw
from support.dense import arrays, assert_equal, built, model, step


def test_the_average_by_hand_and_only_in_evaluation():
    network = model(4)
    before = arrays(network)
    optimizer = built([rw.Increment(1.0), rw.Averaging(0.75)], network)
    for _ in range(2):  # weights + 1, + 2; average + 0.25, + 0.6875
        step(optimizer, network)
    live = arrays(network)
    np.testing.assert_allclose(live[0], before[0] + 2.0, atol=1e-6)
    with optimizer.evaluation():
        for old, new in zip(before, arrays(network), strict=True):
            np.testing.assert_allclose(new, old + 0.6875, atol=1e-6)
    assert_equal(arrays(network), live)
    assert float(optimizer.metrics()["averaging/distance"]) == pytest.approx(2.0 - 0.6875, rel=1e-6)


def test_it_writes_nothing():
    network = model(4)
    rule = rw.Averaging()
    built([rule], network)
    for variable in rule.variables:
        assert rule.update(variable, 0) is variable
        variable.assign = None  # pyright: ignore[reportAttributeAccessIssue]
    rule.apply(0)
    assert float(rule.metrics["relative_change"]) == 0.0


def test_the_average_of_clipped_weights_is_within_the_bound():
    """In the other order it is not: Keras' own average is such a one."""

    def reach(rules):
        network = model(4)
        for variable in network.trainable_variables:
            variable.assign(np.clip(variable.numpy(), -0.3, 0.3))
        optimizer = built(rules, network, keras.optimizers.Adam(0.5))
        for sign in (1.0, -1.0, 1.0):
            step(optimizer, network, sign)
        with optimizer.evaluation():
            return max(np.abs(a).max() for a in arrays(network))

    def rules():
        return [rw.Clipping(0.3, unit="absolute"), rw.Averaging(0.5)]

    assert reach(rules()) <= np.float32(0.3)
    with pytest.warns(UserWarning, match="what averaging keeps is out of the bound of clipping"):
        assert reach(rules()[::-1]) > 0.3


def test_only_what_is_selected_is_averaged():
    network = model(4)
    optimizer = built([rw.Increment(1.0), rw.Averaging(0.5, on=rw.kind("bias"))], network)
    step(optimizer, network)
    live = arrays(network)
    with optimizer.evaluation():
        assert_equal(arrays(network)[:1], live[:1])
        np.testing.assert_allclose(arrays(network)[1], live[1] - 0.5, atol=1e-6)


def test_averages_of_bfloat16_weights_are_kept_in_float32():
    layer = keras.layers.Dense(2, use_bias=False, dtype="bfloat16", name="layer")
    layer.build((None, 2))
    layer.kernel.assign(np.zeros((2, 2)))
    rule = rw.Averaging(0.999)
    optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(0.1), [rule])
    optimizer.build([layer.kernel])
    layer.kernel.assign(np.ones((2, 2)))
    for _ in range(100):
        rule.apply(0)
    np.testing.assert_allclose(rule.averages[0].numpy(), 1 - 0.999**100, rtol=1e-3)
    with optimizer.evaluation():
        np.testing.assert_allclose(layer.kernel.numpy().astype("float32"), 1 - 0.999**100, rtol=1e-2)


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_outside_of_its_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"`decay` must be in \[0, 1\)"):
        rw.Averaging(decay)


def test_other_placements_are_refused():
    with pytest.raises(ValueError, match=r"takes placement 'after_step'\. Received: 'during_gradient'"):
        rw.Averaging(placement="during_gradient")


def test_a_uniform_average_from_a_step_on_and_at_the_ends_of_cycles():
    """Izmailov et al., algorithm 1: the plain mean of the weights after steps 4, 7 and 10."""
    network = model(1, inputs=1)
    optimizer = built([rw.Averaging(kind="uniform", begin=4, every=3)], network, keras.optimizers.SGD(1.0))
    first, seen, judged = arrays(network)[0].item(), [], []
    for _ in range(11):
        step(optimizer, network, gradient=-1.0)
        seen.append(arrays(network)[0].item() - first)
        with optimizer.evaluation():
            judged.append(arrays(network)[0].item() - first)
    # Until there is an average, evaluations have the weights.
    np.testing.assert_allclose(judged, [1, 2, 3, 4, 4, 4, 5.5, 5.5, 5.5, 7, 7], atol=1e-5)
    np.testing.assert_allclose(seen, range(1, 12), atol=1e-5)


def test_an_exponential_average_may_begin_late():
    network = model(1, inputs=1)
    optimizer = built([rw.Averaging(0.5, begin=2)], network, keras.optimizers.SGD(1.0))
    first, judged = arrays(network)[0].item(), []
    for _ in range(4):
        step(optimizer, network, gradient=-1.0)
        with optimizer.evaluation():
            judged.append(arrays(network)[0].item() - first)
    np.testing.assert_allclose(judged, [1, 2, 2.5, 3.25], atol=1e-5)
