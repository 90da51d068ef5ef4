"""Rules together: what holds after each pair, in each order, and of which orders somebody is warned."""

import warnings

import keras
import numpy as np
import pytest

import rlweights as rw
from support.dense import arrays, built, model, step

BOUND, HALF = 0.4, {"end": 0, "every": 1}


def clipping():
    return rw.Clipping(BOUND, unit="absolute", on=rw.kernels())


MAKE = {
    "clipping": clipping,
    "pruning": lambda: rw.Pruning(0.5, **HALF),
    "shrinkage": lambda: rw.Shrinkage(0.1, towards="zero", on=rw.kernels()),
    "kept noise": lambda: rw.Noise(0.1, placement="after_step", on=rw.kernels()),
    "noise": lambda: rw.Noise(0.1, on=rw.kernels()),
    "averaging": lambda: rw.Averaging(0.5),
    "lookahead": lambda: rw.Lookahead(2),
    "recycling": lambda: rw.Recycling(placement="after_step"),
    "quantization": lambda: rw.Quantization(3),
    "binarization": lambda: rw.Binarization(),
    "spectral norm": lambda: rw.SpectralNorm(5.0),
}


def trained(names):
    """Kernels as they are, and as evaluations see them, after steps that push them outwards."""
    network = model(4, 3)
    for variable in network.trainable_variables:
        variable.assign(0.1 * variable.numpy())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inner = keras.optimizers.SGD(0.2, momentum=0.5)
        optimizer = built([MAKE[name]() for name in names], network, inner)
    for _ in range(5):
        step(optimizer, network, gradient=0.97)
        if "recycling" in names:
            optimizer.feedback["dormant_score/network/hidden_0"] = [0.0, 1.0, 1.0, 1.0]
    with optimizer.clean():
        clean = arrays(network)[::2]
    with optimizer.evaluation():
        evaluated = arrays(network)[::2]
    return clean, evaluated, [str(each.message) for each in caught]


OTHERS = [name for name in MAKE if name != "pruning"]


@pytest.mark.parametrize("other", OTHERS)
def test_sparsity_holds_in_every_order(other):
    """Pruning with everything: a share of exactly one half, in training and in evaluation."""
    for names in (["pruning", other], [other, "pruning"]):
        clean, evaluated, _ = trained(names)
        for kernel in clean + evaluated:
            assert np.mean(kernel == 0) >= 0.5, names
        for one, two in zip(clean, evaluated, strict=True):
            assert not two[one == 0].any()


BEHIND_A_BOUND = {
    "pruning": True,
    "shrinkage": True,
    "kept noise": False,
    "averaging": True,
    "lookahead": True,
    "spectral norm": False,
}
"""Whether the bound of Clipping holds where a rule acts behind it."""


@pytest.mark.parametrize(("other", "holds"), BEHIND_A_BOUND.items())
def test_a_bound_holds_or_somebody_is_warned(other, holds):
    clean, evaluated, warned = trained(["clipping", other])
    within = all(np.abs(kernel).max() <= np.float32(BOUND) for kernel in clean + evaluated)
    assert within == holds
    assert bool(warned) == (not holds), warned
    if not holds:
        assert "the bound of clipping does not survive" in warned[0]
    clean, _, warned = trained([other, "clipping"])
    assert all(np.abs(kernel).max() <= np.float32(BOUND) for kernel in clean)
    assert bool(warned) == (other in ("averaging", "lookahead") or other == "spectral norm")


def test_weights_that_are_drawn_afresh_may_be_anything():
    assert "does not survive recycling" in trained(["clipping", "recycling"])[2][0]


def test_evaluated_weights_are_on_the_grid_in_every_order():
    for names in (["quantization", "averaging"], ["averaging", "quantization"]):
        clean, evaluated, warned = trained(names)
        assert not warned
        for one, two in zip(clean, evaluated, strict=True):
            assert not np.allclose(one, two)
            for channel in two.T:
                steps = channel / np.abs(channel).max() * 3
                np.testing.assert_allclose(steps, np.round(steps), atol=1e-5)


def test_two_that_cannot_both_have_the_last_word_are_named():
    (warned,) = trained(["averaging", "lookahead"])[2]
    assert "evaluations see what lookahead keeps, and never what averaging does" in warned
    (warned,) = trained(["quantization", "binarization"])[2]
    assert "binarization rounds what quantization has rounded, and has the last word" in warned


def test_rules_of_other_weights_are_no_pair():
    network = model(2, 2)
    noise = rw.Noise(0.1, placement="after_step", on=rw.layers("hidden_0"))
    built([rw.Clipping(on=rw.layers("hidden_1")), noise], network)  # a warning would be an error
