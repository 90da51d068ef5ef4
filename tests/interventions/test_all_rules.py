"""One battery over the whole registry, and over rules that must not pass it."""

import inspect

import numpy as np
import pytest
from keras import ops

import rlweights as rw
from rlweights import interventions
from rlweights.interventions import RULES
from rlweights.testing import check

EXAMPLES = {
    "clipping": [
        lambda: rw.Clipping(0.4, unit="absolute"),
        lambda: rw.Clipping(1.0),
        lambda: rw.Clipping(0.5, unit="init"),
    ],
    "projection": [
        lambda: rw.Projection("max_norm"),
        lambda: rw.Projection("initial_norm"),
        lambda: rw.Projection("unit_inputs"),
    ],
    "noise": [
        lambda: rw.Noise(0.1),
        lambda: rw.Noise(0.1, kind="factorised", placement="after_step"),
        lambda: rw.Noise(0.1, placement="during_iteration"),
        lambda: rw.Noise(0.1, placement="after_iteration"),
    ],
    "adaptive_noise": [lambda: rw.AdaptiveNoise(target=0.01, initial_stddev=0.1)],
    "increment": [lambda: rw.Increment(1e-3), lambda: rw.Increment(1.0, scale=rw.Feedback("gain", 1e-3))],
    "shrinkage": [
        lambda: rw.Shrinkage(0.1, towards="zero", perturb=0.1),
        lambda: rw.Shrinkage(0.1, towards="initial"),
        lambda: rw.Shrinkage(0.1, towards="fresh"),
        lambda: rw.Shrinkage(0.4, towards="zero", perturb=0.5, placement="after_iteration"),
    ],
    "recycling": [lambda: rw.Recycling(units={"hidden": "head"})],
    "averaging": [lambda: rw.Averaging(0.9)],
}


def test_every_rule_of_the_registry_has_an_example():
    assert set(EXAMPLES) == set(RULES)


@pytest.mark.parametrize("make", [m for makes in EXAMPLES.values() for m in makes], ids=lambda m: repr(m()))
def test_battery(make):
    check(make())


@pytest.mark.parametrize("name", RULES)
def test_every_rule_names_its_source_and_its_arguments(name):
    rule = RULES[name]
    doc = inspect.getdoc(rule) or ""
    assert "Args:" in doc
    for argument in inspect.signature(rule.__init__).parameters:
        if argument not in ("self", "kwargs"):
            assert f"{argument}:" in doc, f"{name}: {argument} is not documented"
    if name != "increment":
        assert "Reference" in doc


def test_an_unknown_rule_names_the_nearest():
    with pytest.raises(ValueError, match=r"no rule 'cliping'. Did you mean 'clipping'\?"):
        interventions.get("cliping")


class FrozenNoise(rw.Intervention):
    """Draws with NumPy: a graph freezes the draw."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.rng = np.random.default_rng(0)

    def delta(self, weight, step):
        return ops.convert_to_tensor(self.rng.normal(size=weight.shape).astype("float32"))


class Widening(rw.Intervention):
    """Changes the shape."""

    def update(self, weight, step):
        return ops.concatenate([weight, weight], axis=-1)


class Retyping(rw.Intervention):
    """Changes the dtype."""

    def update(self, weight, step):
        return ops.cast(weight, "float64")


class Forgetful(rw.Intervention):
    """Keeps state where nobody saves it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.count = 0

    def delta(self, weight, step):
        self.count += 1
        return ops.ones_like(weight) * (1e-3 * self.count)


class Overreaching(rw.Intervention):
    """Writes into weights that it does not select."""

    def update(self, weight, step):
        for other in self.all_variables:
            if other is not weight:
                other.assign(other + 0.1)
        return ops.convert_to_tensor(weight)


class Exploding(rw.Intervention):
    """Reports what is not finite."""

    metric_names = ("bad",)

    def update(self, weight, step):
        return ops.convert_to_tensor(weight)

    def observe(self, before, after, step):
        return {"bad": float("nan")}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda: FrozenNoise(), "differ"),
        (lambda: Widening(), "shape"),
        (lambda: Retyping(), "dtype"),
        (lambda: Forgetful(), "differ"),
        (lambda: Overreaching(on=".*hidden/kernel"), "not selected|differ"),
        (lambda: Exploding(), "bad"),
    ],
)
def test_the_battery_catches(rule, words):
    with pytest.raises((AssertionError, ValueError), match=words):
        check(rule())


def test_neither_or_both_methods_is_an_error():
    class Nothing(rw.Intervention):
        pass

    class Both(rw.Intervention):
        def update(self, weight, step):
            return weight

        def delta(self, weight, step):
            return weight

    with pytest.raises(TypeError, match="must implement `update` or `delta`"):
        Nothing()
    with pytest.raises(TypeError, match="not both"):
        Both()


def test_a_placement_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="Averaging takes placement 'after_step'"):
        rw.Averaging(0.9, placement="during_gradient")
