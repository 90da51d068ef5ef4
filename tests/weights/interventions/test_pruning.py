"""Pruning: the schedule of the old toolkit, masks by hand, and that nothing brings back what is held."""

import keras
import numpy as np
import pytest
from keras import ops

import rlweights as rw
from support.dense import arrays, built, model, step

NOW = {"end": 0, "every": 1}


def kernels(network):
    return arrays(network)[::2]


def test_the_schedule_is_the_cubic_one_of_the_old_toolkit():
    """tfmot's PolynomialDecay(0.2, 0.8, begin_step=2, end_step=9, frequency=3), worked out by hand."""
    rule = rw.Pruning(0.8, initial=0.2, begin=2, end=9, every=3)
    due = [s for s in range(12) if bool(rule.due(ops.array(s)))]
    assert due == [2, 5, 8, 9]  # and at the end itself, which that one misses where it is no multiple
    expected = [0.8 - 0.6 * (1 - (s - 2) / 7) ** 3 for s in due]
    np.testing.assert_allclose([float(rule.share(ops.array(s))) for s in due], expected, rtol=1e-6)


def test_each_layer_keeps_its_largest_or_all_layers_together():
    layerwise, together = model(4, 3), model(4, 3)
    step(built([rw.Pruning(0.5, **NOW)], layerwise), layerwise)
    step(built([rw.Pruning(0.5, **NOW, scope="global")], together), together)
    for kernel, before in zip(kernels(layerwise), kernels(model(4, 3)), strict=True):
        assert np.mean(kernel == 0) == 0.5
        assert np.abs(before[kernel == 0]).max() <= np.abs(kernel[kernel != 0]).min()
    flat = np.concatenate([k.ravel() for k in kernels(together)])
    assert np.mean(flat == 0) == 0.5
    assert np.mean(kernels(together)[0] == 0) > 0.5  # the kernel of the smaller values


def test_two_of_four_inputs_of_each_unit_stay():
    network = keras.Sequential([keras.Input((8, 8, 2)), keras.layers.Conv2D(3, 2), keras.layers.Dense(3)])
    convolution, _, dense, _ = network.trainable_variables
    on = rw.layers(network.layers[0]) & rw.kernels()
    step(built([rw.Pruning(0.0, **NOW, structure="2:4", on=on)], network), network)
    unit = np.moveaxis(convolution.numpy(), -1, 0).reshape(3, -1, 4)
    assert (np.count_nonzero(unit, axis=-1) == 2).all()
    assert dense.numpy().all()
    with pytest.raises(ValueError, match="has 3 inputs, which are no multiple of 4"):
        built([rw.Pruning(0.0, **NOW, structure="2:4")], model(2, inputs=3))


def test_whole_units_go_with_their_biases():
    network = model(4, 2)
    hidden = rw.layers("network/hidden_0")
    step(built([rw.Pruning(0.5, **NOW, structure="unit", on=hidden)], network), network)
    kernel, bias, head, _ = arrays(network)
    gone = ~kernel.any(axis=0)
    assert gone.sum() == 2
    norms = np.linalg.norm(arrays(model(4, 2))[0], axis=0)
    assert norms[gone].max() <= norms[~gone].min()
    assert not bias[gone].any()
    assert bias[~gone].all()
    assert head.all()


def test_regrowth_keeps_the_number_and_takes_the_steepest():
    network = model(1, inputs=8)
    kernel = network.trainable_variables[0]
    kernel.assign([[8.0], [7.0], [6.0], [5.0], [4.0], [3.0], [2.0], [1.0]])
    inner = keras.optimizers.SGD(0.0, momentum=0.9)
    optimizer = built([rw.Pruning(0.5, initial=0.5, regrowth=0.5, end=10, every=10)], network, inner)
    steepness = ops.reshape(ops.array([0.0, 0.0, 0.0, 0.0, 1.0, 9.0, 1.0, 2.0]), (8, 1))
    optimizer.apply([steepness, ops.zeros(1)])
    # 8, 7, 6, 5 are kept; 6 and 5 give way to the steepest two, which were there until now.
    assert kernel.numpy().ravel().tolist() == [8.0, 7.0, 0.0, 0.0, 0.0, 3.0, 0.0, 1.0]
    for _ in range(3):
        optimizer.apply([steepness, ops.zeros(1)])
    (momentum,) = optimizer.slots(kernel)
    assert not momentum.numpy().ravel()[[2, 3, 4, 6]].any()
    several = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="pruning: gradients are read where each step has one of its own"):
        built([rw.Pruning(0.5, regrowth=0.5, **NOW)], model(1), several)


EVERYTHING = [
    lambda: rw.Noise(1.0, placement="after_step"),
    lambda: rw.Noise(1.0, placement="during_gradient"),
    lambda: rw.Shrinkage(0.5, towards="initial"),
    lambda: rw.Increment(1.0),
    lambda: rw.Projection("norm", on=rw.kernels()),
    lambda: rw.Averaging(0.5),
]


@pytest.mark.filterwarnings("ignore:the norm of projection does not survive")
@pytest.mark.parametrize("order", [1, -1])
def test_nothing_brings_back_what_is_held(order):
    """Other rules, before or after it, weight decay, moments: whatever writes weights."""
    network = model(6, 3)
    inner = keras.optimizers.AdamW(0.1, weight_decay=0.1)
    rules = [rw.Pruning(0.5, begin=1, end=5, every=2), *(make() for make in EVERYTHING)][::order]
    rules = [r for i, r in enumerate(rules) if r.name not in {each.name for each in rules[:i]}]
    optimizer = built(rules, network, inner)
    optimizer.begin_iteration()
    seen = []
    for i in range(8):
        step(optimizer, network, gradient=float(i))
        if i > 5:
            seen.append([k == 0 for k in kernels(network)])  # live weights: noise, too, stays away
    assert float(optimizer.metrics()["pruning/sparsity"]) == 0.5
    for one, other in zip(*seen, strict=True):
        assert one.mean() == 0.5
        np.testing.assert_array_equal(one, other)
    for slot in optimizer.slots(network.trainable_variables[0]):
        assert not slot.numpy()[seen[0][0]].any()
    with optimizer.evaluation():
        for kernel, held in zip(kernels(network), seen[0], strict=True):
            assert not kernel[held].any()


def test_it_costs_no_look_between_two_prunings(monkeypatch):
    """Outside of graphs the branch that is not taken is not run."""
    network = model(4)
    rule = rw.Pruning(0.5, end=9, every=3)
    optimizer, looks = built([rule], network), []
    survey = rule.survey
    monkeypatch.setattr(rule, "survey", lambda w, s: (looks.append(int(s)), survey(w, s)))
    for _ in range(10):
        step(optimizer, network)
    assert looks == [0, 3, 6, 9]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sparsity": 1.0}, r"`sparsity` must be in \[0, 1\)\. Received: 1\.0"),
        ({"begin": 5}, "`end` must be at least `begin` = 5"),
        ({"every": 0}, "`every` must be at least 1"),
        ({"scope": "all"}, "`scope` takes 'layer' or 'global'. Received: 'all'"),
        ({"structure": "4:2"}, "`structure` takes 'weight', 'unit' or 'N:M' with N below M"),
        ({"structure": "unit", "regrowth": 0.3}, "`regrowth` goes with the structure 'weight' only"),
        ({"placement": "during_gradient"}, "takes placement 'after_step'"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        rw.Pruning(**({"sparsity": 0.5, "end": 3} | arguments))
