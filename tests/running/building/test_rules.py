"""Rules and their strengths from the tables of an agent file."""

import tomllib

import keras
import pytest

from rlweights.running.building.rules import strength_of
from rlweights.weights import gallery
from rlweights.weights.interventions import RULES, Feedback
from rlweights.weights.interventions.schedules import OverBudget
from support.assemblies import assembled, refused, selected

LAYERS = [f"{net}/{layer}" for net in ("policy", "value") for layer in ("hidden_0", "hidden_1", "head")]

PATHS = ", ".join(f"{layer}/{kind}" for layer in LAYERS for kind in ("kernel", "bias"))


# Rules --------------------------------------------------------------------------------------------


def test_every_rule_of_the_catalogue_may_stand_in_an_agent_file():
    for name in RULES:
        (table,) = tomllib.loads(gallery.Card(name).toml)["interventions"]
        (rule,) = assembled(rules=[table]).rules
        assert type(rule) is RULES[name]
        assert rule.selected()


@pytest.mark.parametrize(
    ("rule", "key", "why"),
    [
        (
            {"rule": "cliping"},
            "interventions.0.rule = 'cliping'",
            "there is no such rule. Did you mean 'clipping'? Valid: clipping, ",
        ),
        (
            {"rule": "clipping", "bund": 3},
            "interventions.0.bund = 3",
            "is no argument of Clipping. Did you mean 'bound'? Valid: bound, ",
        ),
        (
            {"rule": "clipping", "bound": -1},
            "interventions.0.bound = -1",
            "must be a finite number of at least 0",
        ),
        (
            {"rule": "clipping", "bound": "x"},
            "interventions.0.bound = 'x'",
            "takes a number, a schedule of the step, or a Feedback",
        ),
        (
            {"rule": "clipping", "unit": "x"},
            "interventions.0.unit = 'x'",
            "takes 'fan_in', 'init', 'absolute'",
        ),
        (
            {"rule": "clipping", "name": "a b"},
            "interventions.0.name = 'a b'",
            "takes letters, digits and _ . - only",
        ),
        ({"rule": "noise"}, "interventions.0 (noise)", "missing a required argument: 'stddev'"),
        (
            {"rule": "averaging", "placement": "after_iteration"},
            "interventions.0 (averaging)",
            "Averaging takes placement 'after_step'",
        ),
        (
            {"rule": "increment", "amount": [1, 2]},
            "interventions.0 (increment)",
            "increment: `delta` must keep shape (4, 4) ",
        ),
        (
            {"rule": "clipping", "bound": {"feedback": "x", "initial": [1, 2]}},
            "interventions.0 (clipping)",
            "Incompatible shapes",
        ),
        (
            {"rule": "recycling", "units": {"nowhere": "head"}},
            "recycling",
            "no layer 'nowhere' among policy/hidden_0, ",
        ),
        (
            {"rule": "recycling", "units": 3},
            "interventions.0 (recycling)",
            "'int' object has no attribute 'items'",
        ),
    ],
)
def test_rules_that_cannot_be_had(rule, key, why):
    assert refused(rules=[rule]).startswith(f"{key}: {why}" if key else why)


@pytest.mark.parametrize(
    ("on", "why"),
    [
        ("path('actor/.*')", f"path('actor/.*') selects none of the weights: {PATHS}"),
        (9, f"depth(9) selects none of the weights: {PATHS}"),
        (
            "kind('kernel') & path('.*bias')",
            "kind('kernel') & path('.*bias') selects none of the weights: " + PATHS,
        ),
        (
            "kind(",
            "'kind(' is not a valid regular expression: missing ), unterminated subpattern at position 4",
        ),
    ],
)
def test_selectors_that_match_nothing_list_every_path(on, why):
    assert refused(rules=[{"rule": "clipping", "on": on}]).endswith(f": {why}")
    assert refused(rules=[{"rule": "clipping", "on": on}]).startswith("interventions.0.on = ")


@pytest.mark.parametrize("on", [True, 1.5, {"a": 1}, "layers(3)", "depth('a')", []])
def test_selectors_that_are_none(on):
    assert refused(rules=[{"rule": "clipping"}, {"rule": "noise", "stddev": 1.0, "on": on}]).startswith(
        "interventions.1.on = "
    )


def test_selectors_of_all_kinds():
    ons = ["policy/head/kernel", -1, ["value/head/bias", 0], "depth(0) & kind('bias')"]
    rules = [{"rule": "clipping", "on": on, "name": f"rule_{i}"} for i, on in enumerate(ons)]
    assert selected(assembled(rules=rules)) == [
        ["policy/head/kernel"],
        ["value/head/kernel", "value/head/bias"],
        ["policy/hidden_0/kernel", "policy/hidden_0/bias", "value/head/bias"],
        ["policy/hidden_0/bias"],
    ]


@pytest.mark.parametrize(
    "placement", ["during_iteration", "during_gradient", "after_step", "after_iteration"]
)
def test_what_is_undone_leaves_the_critic_alone(placement):
    rules = [{"rule": "noise", "stddev": 0.1, "placement": placement}]
    overrides = ["environment.id=Pendulum-v1", "network.layer_norm=true"]
    (paths,) = selected(assembled(*overrides, rules=rules))
    layers = ("hidden_0", "hidden_1", "head")
    policy = [f"policy/{layer}/{kind}" for layer in layers for kind in ("kernel", "bias")]
    value = [path.replace("policy", "value") for path in policy]
    undone = placement.startswith("during_")
    assert sorted(paths) == sorted(policy if undone else [*policy, *value]), "no norms, and no log_std"


def test_the_rules_own_selection_can_be_overruled():
    rules = [{"rule": "adaptive_noise", "on": ".*"}]
    (paths,) = selected(assembled("environment.id=Pendulum-v1", rules=rules))
    assert {"value/head/kernel", "policy/log_std"} <= set(paths)


def test_two_rules_of_one_name_are_refused():
    rules = [{"rule": "clipping"}, {"rule": "clipping"}]
    assert refused(rules=rules).startswith("two rules are named 'clipping'; give one of them another `name`")


def test_seeds_of_rules():
    rules = [{"rule": "noise", "stddev": 1.0}, {"rule": "adaptive_noise", "seed": 7}]
    assert [rule.seed for rule in assembled("seed=5", rules=rules).rules] == [5, 7]


@pytest.mark.parametrize("name", RULES)
def test_every_rule_can_be_had_from_a_file(name):
    needs = {"noise": {"stddev": 0.1}, "increment": {"amount": 0.1}, "projection": {"constraint": "max_norm"}}
    needs["pruning"] = {"sparsity": 0.5, "end": 10}
    (rule,) = assembled(rules=[{"rule": name, **needs.get(name, {})}]).rules
    assert type(rule) is RULES[name]


# Strengths ----------------------------------------------------------------------------------------


def test_from_and_to_follow_the_progress_of_training():
    assembly = assembled(rules=[{"rule": "noise", "stddev": {"from": 1.0, "to": 0}}])
    strength = assembly.rules[0].stddev
    assert isinstance(strength, OverBudget)
    for progress, value in [(0.0, 1.0), (0.25, 0.75), (1.0, 0.0)]:
        assembly.optimizer.feedback["progress"] = progress
        assert float(strength(0)) == pytest.approx(value)
    copied = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(strength))
    assert (copied.first, copied.last) == (1.0, 0.0)
    assert repr(strength) == "1 to 0"


def test_feedback_is_written_from_outside():
    table = {"feedback": "loudness", "initial": 0.5}
    assembly = assembled(rules=[{"rule": "noise", "stddev": table}])
    assert float(assembly.rules[0].stddev(0)) == 0.5
    assembly.optimizer.feedback["loudness"] = 0.25
    assert float(assembly.rules[0].stddev(0)) == 0.25
    assert isinstance(strength_of({"feedback": "x"}, "my.toml", "key"), Feedback)


def test_what_is_no_strength_is_passed_on():
    for value in (3, "x", [1], {}, {"hidden_0": "head"}):
        assert strength_of(value, "my.toml", "key") == value


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"from": 1.0}, "must be a table of two numbers, from and to"),
        ({"from": 1.0, "to": "x"}, "must be a table of two numbers, from and to"),
        ({"from": 1.0, "to": True}, "must be a table of two numbers, from and to"),
        ({"from": 1.0, "to": 0.0, "by": 2}, "must be a table of two numbers, from and to"),
        ({"from": 1.0, "to": float("inf")}, "must be a table of two numbers, from and to"),
        ({"feedback": 3}, "must be a table of feedback, a name, and initial, a number"),
        ({"feedback": "x", "initial": "y"}, "must be a table of feedback, a name, and initial, a number"),
        ({"feedback": "x", "first": 1.0}, "must be a table of feedback, a name, and initial, a number"),
        ({"schedule": "CosineDecay"}, "CosineDecay.__init__() missing 2 required positional arguments"),
        ({"schedule": "CosineDecay", "initial_learning_rate": "x", "decay_steps": 9}, "Cast"),
        ({"schedule": "CosineDecay", "initial_learning_rate": float("inf"), "decay_steps": 9}, "begins at"),
    ],
)
def test_strengths_that_are_none(table, message):
    text = refused(rules=[{"rule": "noise", "stddev": table}])
    assert text.startswith("interventions.0.stddev = { ")
    assert f": {message}" in text
