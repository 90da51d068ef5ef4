"""One battery over the whole registry, and what all rules have in common."""

import inspect

import keras
import pytest

import rlweights as rw
from rlweights.testing import check
from rlweights.weights import interventions
from rlweights.weights.interventions import RULES

SCORES = {"dormant_score/model/hidden": [0.0, 1.0, 0.5, 0.01, float("nan"), 2.0]}
FINITE_SCORES = {"dormant_score/model/hidden": [0.0, 1.0, 0.5, 0.01, 1.5, 2.0]}
MAX_NORM = keras.constraints.MaxNorm(0.5)

EXAMPLES = {
    "clipping": [
        (lambda: rw.Clipping(0.4, unit="absolute", per_layer=True), {}),
        (lambda: rw.Clipping(1.0, on="kind('kernel') & ~path('model/head/.*')"), {}),
        (lambda: rw.Clipping(0.5, unit="init"), {}),
    ],
    "projection": [
        (lambda: rw.Projection(MAX_NORM), {}),
        (lambda: rw.Projection("norm"), {}),
        (lambda: rw.Projection("unit_norm", placement="during_iteration"), {}),
    ],
    "noise": [
        (lambda: rw.Noise(0.1), {}),
        (lambda: rw.Noise(rw.Feedback("scale", 0.1), "factorised", placement="after_step"), {"scale": 0.2}),
    ],
    "adaptive_noise": [(lambda: rw.AdaptiveNoise(0.01, 0.1), {"policy_distance": 0.002})],
    "increment": [
        (lambda: rw.Increment(keras.optimizers.schedules.PolynomialDecay(0.1, 5, 0.01)), {}),
        (lambda: rw.Increment(1.0, scale=rw.Feedback("gain", 1e-3)), {"gain": 0.1}),
    ],
    "shrinkage": [
        (lambda: rw.Shrinkage(0.1, towards="initial"), {}),
        (lambda: rw.Shrinkage(0.1), {}),
        (lambda: rw.Shrinkage(0.4, towards="zero", perturb=0.5, placement="after_iteration"), {}),
    ],
    "recycling": [
        (lambda: rw.Recycling(), SCORES),
        (lambda: rw.Recycling(0.6, every=2, units={"hidden": "head"}, placement="after_step"), SCORES),
    ],
    "pruning": [
        (lambda: rw.Pruning(0.6, initial=0.6, regrowth=0.5, end=9, every=2, scope="global"), {}),
    ],
    "averaging": [
        (lambda: rw.Averaging(0.9), {}),
        (lambda: rw.Averaging(kind="uniform", begin=1, every=2), {}),
    ],
    "quantization": [(lambda: rw.Quantization(3), {})],
    "binarization": [(lambda: rw.Binarization(), {})],
    "clustering": [(lambda: rw.Clustering(4), {})],
    "drop_connect": [(lambda: rw.DropConnect(0.3), {})],
    "sharpness_aware": [(lambda: rw.SharpnessAware(0.1), {})],
    "lookahead": [(lambda: rw.Lookahead(3, reset=True), {})],
    "hare_and_tortoise": [(lambda: rw.HareAndTortoise(3, 0.5), {})],
    "schedule_free": [(lambda: rw.ScheduleFree(), {})],
    "spectral_norm": [(lambda: rw.SpectralNorm(0.8), {})],
    "orthogonal": [(lambda: rw.Orthogonal(), {})],
    "freezing": [(lambda: rw.Freezing(3, every=2), {})],
    "continual_backpropagation": [
        (lambda: rw.ContinualBackpropagation(0.3, maturity=2, every=2), FINITE_SCORES)
    ],
}
"""Rules, and the feedback that somebody writes for them."""


def test_every_rule_of_the_registry_has_an_example():
    assert set(EXAMPLES) == set(RULES)


@pytest.mark.parametrize(
    ("make", "feedback"),
    [example for examples in EXAMPLES.values() for example in examples],
    ids=lambda part: repr(part()) if callable(part) else "",
)
def test_battery(make, feedback):
    check(make(), feedback)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_names_its_source_its_arguments_and_its_metrics(name):
    rule = RULES[name]
    doc = inspect.getdoc(rule) or ""
    for argument in inspect.signature(rule.__init__).parameters:
        if argument not in ("self", "kwargs"):
            assert f"{argument}:" in doc, f"{name}: {argument} is not documented"
    for metric in rule.metric_names:
        assert f"`{metric}`" in doc, f"{name}: the metric {metric} is not documented"
    if name != "increment":
        assert "https://" in doc


@pytest.mark.parametrize("name", RULES)
def test_every_rule_prints_as_the_expression_that_makes_it(name):
    names = {each: getattr(rw, each) for each in rw.__all__}
    names |= vars(keras.constraints) | vars(keras.optimizers.schedules)
    for make, _ in EXAMPLES[name]:
        rule = make()
        assert rule.describe().startswith(f"{name} ")
        again = type(rule).from_config(rule.get_config())
        assert repr(again).replace("on=everything()", "") == repr(rule).replace("on=everything()", "")
        if "Feedback(" not in repr(rule):  # which prints its name alone
            assert repr(eval(repr(rule), names)) == repr(rule)


def test_a_rule_in_one_line_for_people():
    rule = rw.Noise(
        keras.optimizers.schedules.InverseTimeDecay(0.1, 10, 0.5), on=".*kernel", placement="after_step"
    )
    assert rule.describe() == (
        "noise (stddev InverseTimeDecay(initial_learning_rate=0.1, decay_steps=10, decay_rate=0.5, "
        "staircase=False, name='InverseTimeDecay'), placement after_step) on path('.*kernel')"
    )
    assert rw.Clipping().describe() == "clipping on kernels_and_biases()"


def half(weight):
    return 0.5 * weight


def test_a_function_prints_as_its_name():
    assert repr(rw.Projection(half)) == "Projection(constraint=half)"


def test_an_unknown_rule_names_the_nearest():
    with pytest.raises(ValueError, match=r"no rule 'cliping'. Did you mean 'clipping'\?"):
        interventions.get("cliping")
    assert interventions.get("clipping") is rw.Clipping


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


def test_a_bad_name_is_refused():
    with pytest.raises(ValueError, match=r"letters, digits and _ \. - only\. Received: 'my rule'"):
        rw.Clipping(name="my rule")


def test_state_is_made_in_build_only():
    with pytest.raises(RuntimeError, match="clipping: `add_variable` may only be called in `build`"):
        rw.Clipping().add_variable("late")


def test_a_selector_that_is_a_function_cannot_be_saved():
    with pytest.raises(ValueError, match="is a function and cannot be saved"):
        rw.Clipping(on=lambda variable: True).get_config()
