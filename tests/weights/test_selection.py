"""Selectors: every spelling, printing and reading, and what nobody meant to select."""

import tomllib

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlweights import depth, errors, everything, kind, layers, path, select
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file


def network(name: str) -> keras.Sequential:
    """Two dense layers and a layer norm between them."""
    layers = [
        keras.layers.Dense(3, name="hidden_0"),
        keras.layers.LayerNormalization(name="norm"),
        keras.layers.Dense(2, name="head"),
    ]
    return keras.Sequential([keras.Input((4,)), *layers], name=name)


POLICY, VALUE = network("policy"), network("value")
VARIABLES = [*POLICY.trainable_variables, *VALUE.trainable_variables]
PATHS = [v.path for v in VARIABLES]
HEAD = POLICY.get_layer("head")


def chosen(on) -> set[str]:
    return {v.path for v in select(on)(VARIABLES)}


def where(*parts: str) -> set[str]:
    """The paths with any of these parts."""
    return {each for each in PATHS if any(part in each for part in parts)}


SPELLINGS = [
    # every spelling of one meaning in a line
    (set(PATHS), [None, everything(), "everything()", ".*", lambda variable: True, path(".*")]),
    (where("policy/head"), [HEAD, layers(HEAD), "policy/head/.*", layers("policy/head")]),
    (where("head"), [layers("head"), ".*/head/.*", [HEAD, VALUE.get_layer("head")], "layers('head')"]),
    (where("policy"), [POLICY, layers("policy"), "policy/.*", path("policy/.*"), layers("/policy/")]),
    (where("kernel"), [kind("kernel"), "kind('kernel')", ".*kernel", lambda v: len(v.shape) == 2]),
    (where("kernel", "bias"), [kind("kernel", "bias"), "kind('kernel', 'bias')", [".*kernel", ".*bias"]]),
    (where("gamma", "beta"), [layers("norm"), ("kind('gamma')", "kind('beta')"), ".*(gamma|beta)"]),
    (where("policy/hidden_0"), [0, depth(0), "depth(0)", "policy/hidden_0/(kernel|bias)", depth(-6)]),
    (where("value/head"), [-1, depth(-1), "depth(-1)", depth(5), [VALUE.get_layer("head")]]),
    (where("policy/hidden_0", "policy/head"), [depth(0, 2), [0, 2], "depth(0, 2)", "depth(0) | depth(2)"]),
]


@pytest.mark.parametrize(
    ("expected", "on"), [(paths, on) for paths, spellings in SPELLINGS for on in spellings]
)
def test_every_spelling(expected, on):
    assert chosen(on) == expected
    assert select(select(on)) is not None


def test_combinations():
    kernels, head = kind("kernel"), layers("head")
    assert chosen(kernels & ~head) == where("kernel") - where("head")
    assert chosen(kernels | head) == where("kernel", "head")
    assert chosen(~(kernels | head)) == set(PATHS) - where("kernel", "head")
    assert chosen(kernels & "policy/.*") == {p for p in where("kernel") if p.startswith("policy")}
    assert chosen(kind("gamma") | HEAD) == where("gamma", "policy/head")
    assert chosen("kind('kernel') & ~path('value/.*')") == where("kernel") & where("policy")
    assert chosen("~(kind('kernel') | kind('bias')) & layers('policy')") == where("policy/norm")


def test_the_order_of_the_variables_is_kept():
    assert [v.path for v in select([HEAD, 0])(VARIABLES)] == [p for p in PATHS if p in chosen([HEAD, 0])]


def test_a_path_must_match_as_a_whole_and_a_name_in_whole_parts():
    with pytest.raises(ValueError, match="selects none"):
        chosen("kerne")
    with pytest.raises(ValueError, match="selects none"):
        chosen(layers("hidden"))
    with pytest.raises(ValueError, match="selects none"):
        chosen(layers("head/kernel"))


def test_what_selects_nothing_says_what_there_is():
    with pytest.raises(ValueError, match="selects none of the weights") as error:
        chosen(path("encodr/.*") & kind("kernel"))
    assert str(error.value).startswith("path('encodr/.*') & kind('kernel') selects none")
    assert all(each in str(error.value) for each in PATHS)


LEAVES = st.sampled_from(
    [
        everything(),
        path("policy/.*"),
        path(r".*\d/kernel"),
        path("it's|\\.x"),
        kind("kernel"),
        kind("bias", "beta"),
        layers("head", "norm"),
        layers(HEAD),
        layers(POLICY, "value/norm"),
        depth(-1),
        depth(0, 3),
    ]
)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a: ~a, inner),
    ),
)


@given(EXPRESSIONS)
def test_what_is_printed_is_read_as_the_same_selector(selector):
    again = select(repr(selector))
    assert repr(again) == repr(selector)
    assert again.mask(VARIABLES) == selector.mask(VARIABLES)
    assert eval(repr(selector)).mask(VARIABLES) == selector.mask(VARIABLES)


@given(EXPRESSIONS, EXPRESSIONS)
def test_selectors_follow_the_laws_of_sets(a, b):
    def same(one, other):
        return one.mask(VARIABLES) == other.mask(VARIABLES)

    assert same(~(a | b), ~a & ~b)
    assert same(~~a, a)
    assert same(a & (a | b), a)
    assert same(a | (b & ~b), a)


def test_predicates_print_their_names():
    def wide(variable):
        return variable.shape[-1] == 3

    assert repr(select(wide) & kind("kernel")).startswith("predicate(test_predicates_print_their_names")
    assert chosen(wide) == where("hidden_0", "norm")


@pytest.mark.parametrize("on", [1.5, True, {}, [], object()])
def test_what_is_no_selector_is_refused(on):
    with pytest.raises(TypeError, match=r"`on` takes a regular expression, .* Received: "):
        select(on)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("policy/(.*", r"'policy/\(\.\*' is not a valid regular expression"),
        ("path('(')", "in the selector .*: '\\(' is not a valid regular expression"),
        ("kind('kernel') + kind('bias')", r"may only combine everything, path, .* is none of these"),
        ("kind('kernel') & open('file')", r"open\('file'\).* is none of these"),
        ("kind(names)", "in the selector 'kind\\(names\\)'"),
        ("path(pattern='.*')", "is none of these"),
        ("kind('kernel') & 'head'", "is none of these"),
        ("everything(1)", "in the selector 'everything\\(1\\)'"),
    ],
)
def test_what_cannot_be_read_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        select(text)


def test_reading_runs_nothing():
    calls = "kind(__import__('os').getcwd())", "everything().mask([])", "everything() | exit()"
    for text in calls:
        with pytest.raises(ValueError, match=r"in the selector|is none of these"):
            select(text)


# The same strings in an agent file ----------------------------------------------------------------------

AGENT = """
[environment]
id = "CartPole-v1"
num_envs = 2
[network]
hidden_sizes = [3]
[[interventions]]
rule = "clipping"
on = {on}
[budget]
total_timesteps = 10000
"""


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        ('"policy/(head|nothing)/.*"', {"policy/head/kernel", "policy/head/bias"}),
        ("\"kind('kernel') & ~path('value/.*')\"", {"policy/hidden_0/kernel", "policy/head/kernel"}),
        ("\"layers('value/head')\"", {"value/head/kernel", "value/head/bias"}),
        ("-1", {"value/head/kernel", "value/head/bias"}),
        ("['policy/head/bias', \"depth(2) & kind('bias')\"]", {"policy/head/bias", "value/hidden_0/bias"}),
    ],
)
def test_the_same_strings_work_in_an_agent_file(on, expected):
    agent = agent_file.parse(tomllib.loads(AGENT.format(on=on)), "test")
    (rule,) = Assembly(agent, "test").rules
    assert {v.path for v in rule.variables} == expected


def test_an_agent_file_that_selects_nothing_is_refused_with_all_paths():
    agent = agent_file.parse(tomllib.loads(AGENT.format(on='"polcy/.*"')), "test")
    with pytest.raises(errors.ConfigError, match=r"path\('polcy/\.\*'\) selects none .* value/head/bias"):
        Assembly(agent, "test")
