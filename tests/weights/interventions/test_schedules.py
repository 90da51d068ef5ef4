"""Strengths: a number, a schedule, a function of the step and feedback mean the same in every rule."""

import keras
import numpy as np
import pytest
from keras import ops

import rlweights as rw
from rlweights.weights.interventions.schedules import strength
from support.dense import arrays, built, model, step

RULES = {
    "clipping, bound": (lambda s: rw.Clipping(s), 0.5),
    "noise, stddev": (lambda s: rw.Noise(s, placement="after_step"), 0.3),
    "adaptive noise, target": (lambda s: rw.AdaptiveNoise(s, 0.1), 0.3),
    "increment, amount": (lambda s: rw.Increment(s), 0.3),
    "increment, scale": (lambda s: rw.Increment(2.0, scale=s), 0.3),
    "shrinkage, rate": (lambda s: rw.Shrinkage(s, towards="zero"), 0.3),
    "shrinkage, perturb": (lambda s: rw.Shrinkage(0.1, perturb=s), 0.3),
    "recycling, tau": (lambda s: rw.Recycling(s), 0.3),
    "averaging, decay": (lambda s: rw.Averaging(s), 0.3),
}
KINDS = {
    "schedule": lambda value: keras.optimizers.schedules.PolynomialDecay(value, 10, value),
    "function": lambda value: lambda step: ops.convert_to_tensor(value),
    "feedback": lambda value: rw.Feedback("strength", 0.0),
}
SIGNALS = {"dormant_score/network/hidden_0": [0.1, 0.9], "policy_distance": 0.1}


def outcome(rule, strength=None):
    """All weights, averages and metrics of two iterations, in one array."""
    network = model(2, 3)
    optimizer = built([rule], network)
    signals = SIGNALS if strength is None else SIGNALS | {"strength": strength}
    seen = []
    for _ in range(2):
        for name in signals.keys() & optimizer.feedback.keys():
            optimizer.feedback[name] = signals[name]
        optimizer.begin_iteration()
        step(optimizer, network, gradient=1.0)
        seen += arrays(network)
        optimizer.end_iteration()
        with optimizer.evaluation():
            seen += arrays(network)
        seen += [np.asarray(v) for v in optimizer.metrics().values()]
    return np.concatenate([np.ravel(each) for each in seen])


@pytest.mark.parametrize("rule", RULES)
def test_every_kind_of_strength_is_that_number(rule):
    make, value = RULES[rule]
    expected = outcome(make(value))
    for kind, strength_of in KINDS.items():
        found = outcome(make(strength_of(value)), value if kind == "feedback" else None)
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=kind)
    unwritten = outcome(make(rw.Feedback("strength", 0.0)))
    assert np.abs(unwritten - expected).max() > 0.01  # the strength matters


def test_a_schedule_is_asked_for_the_step_before_the_optimizers():
    asked = []

    def schedule(step):
        asked.append(int(step))
        return ops.convert_to_tensor(0.0)

    network = model(2)
    optimizer = built([rw.Increment(schedule, on=rw.kind("bias"))], network)
    for _ in range(3):
        step(optimizer, network)
    assert asked == [0, 1, 2]


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ("much", TypeError, "`rate` takes a number, a schedule of the step, or a Feedback. Received: 'much'"),
        (True, TypeError, "Received: True"),
        (float("nan"), ValueError, "`rate` must be a finite number of at least 0. Received: nan"),
        (-1, ValueError, "of at least 0. Received: -1"),
    ],
)
def test_what_is_no_strength(value, error, words):
    with pytest.raises(error, match=words):
        strength(value, "rate", minimum=0.0)


def test_numbers_of_numpy_are_numbers():
    assert float(strength(np.float32(0.5))(0)) == 0.5
    assert repr(strength(np.int64(3))) == "3"
