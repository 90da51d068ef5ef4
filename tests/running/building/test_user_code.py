"""Files of the user's own: found beside the agent, loaded once, and blamed by file and line."""

import sys

import keras
import numpy as np
import pytest

from rlweights.weights.interventions.schedules import OverBudget
from support.assemblies import assembled, refused

SIGN_FLIP = '''
"""Rules of one's own."""

from keras import ops

from rlweights import Intervention


class SignFlip(Intervention):
    def __init__(self, threshold, **kwargs):
        super().__init__(**kwargs)
        self.threshold = self.strength(threshold, "threshold", minimum=0.0)

    def update(self, weight, step):
        limit = ops.cast(self.threshold(step), weight.dtype)
        return ops.where(ops.abs(weight) < limit, -weight, weight)


class Plain(Intervention):
    def __init__(self):
        super().__init__()

    def delta(self, weight, step):
        return ops.zeros_like(weight)


class Failing(Plain):
    def delta(self, weight, step):
        return weight.nothing


class Broken(Plain):
    def build(self, variables):
        raise KeyError("state")


class Widening(Plain):
    def delta(self, weight, step):
        return ops.zeros((1, 1))


class Other:
    pass


def function():
    pass
'''


@pytest.fixture
def own(tmp_path):
    (tmp_path / "sign_flip.py").write_text(SIGN_FLIP)
    return tmp_path


def test_a_rule_from_a_file_beside_the_agent(own):
    rules = [{"rule": "sign_flip.py:SignFlip", "threshold": {"from": 1.0, "to": 0.0}}]
    assembly = assembled(rules=rules, folder=own)
    (rule,) = assembly.rules
    assert rule.name == "sign_flip"
    assert isinstance(rule.threshold, OverBudget)
    assert assembly.files.loaded == [own / "sign_flip.py"]
    kernel = np.array([[0.5]], np.float32)
    assert float(rule.update(keras.ops.array(kernel), 0)[0, 0]) == -0.5


def test_a_file_is_loaded_once(own):
    rules = [{"rule": "sign_flip.py:Plain"}, {"rule": "sign_flip.py:SignFlip", "threshold": 1}]
    assembly = assembled(rules=rules, folder=own)
    assert assembly.files.loaded == [own / "sign_flip.py"]
    assert type(assembly.rules[0]).__module__ == type(assembly.rules[1]).__module__
    assert sys.modules[type(assembly.rules[0]).__module__].Plain is type(assembly.rules[0])


@pytest.mark.parametrize(
    ("rule", "key", "why"),
    [
        (
            {"rule": "nowhere.py:SignFlip"},
            "interventions.0.rule = 'nowhere.py:SignFlip'",
            "there is no file ",
        ),
        ({"rule": "\0.py:SignFlip"}, "interventions.0.rule = '\\x00.py:SignFlip'", ""),
        ({"rule": f"{'a' * 300}.py:X"}, "", "interventions.0.rule = 'aaaa"),
        (
            {"rule": "sign_flip.py:SignFlop"},
            "interventions.0.rule = 'sign_flip.py:SignFlop'",
            "sign_flip.py has no class 'SignFlop'. Did you mean 'SignFlip'? It has: SignFlip, Plain, ",
        ),
        (
            {"rule": "sign_flip.py:Intervention"},
            "interventions.0.rule = 'sign_flip.py:Intervention'",
            "sign_flip.py has no class 'Intervention'",
        ),
        (
            {"rule": "sign_flip.py:function"},
            "interventions.0.rule = 'sign_flip.py:function'",
            "sign_flip.py has no class 'function'",
        ),
        ({"rule": "sign_flip.py:"}, "interventions.0.rule = 'sign_flip.py:'", "sign_flip.py has no class ''"),
        (
            {"rule": "sign_flip.py:Other"},
            "interventions.0.rule = 'sign_flip.py:Other'",
            "is no rlweights.Intervention",
        ),
        (
            {"rule": "sign_flip.py:SignFlip", "treshold": 1},
            "interventions.0.treshold = 1",
            "is no argument of SignFlip. Did you mean 'threshold'? Valid: threshold, on, ",
        ),
        (
            {"rule": "sign_flip.py:SignFlip", "threshold": -1},
            "interventions.0.threshold = -1",
            "must be a finite number of at least 0",
        ),
        (
            {"rule": "sign_flip.py:Plain", "on": ".*"},
            "interventions.0.on = '.*'",
            "is no argument of Plain. Valid: ",
        ),
        (
            {"rule": "sign_flip.py:Failing"},
            "interventions.0 (sign_flip.py:Failing)",
            "sign_flip.py, line 29: AttributeError: ",
        ),
        ({"rule": "sign_flip.py:Broken"}, "sign_flip.py, line 34", "KeyError: 'state'"),
        (
            {"rule": "sign_flip.py:Widening"},
            "interventions.0 (sign_flip.py:Widening)",
            "widening: `delta` must keep shape (4, 4) ",
        ),
    ],
)
def test_files_that_bring_no_rule(own, rule, key, why):
    assert refused(rules=[rule], folder=own).startswith(f"{key}: {why}" if key else why)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import nothing_at_all", "fails.py, line 1: ModuleNotFoundError: No module named 'nothing_at_all'"),
        ("\n\nx = 1 / 0", "fails.py, line 3: ZeroDivisionError: division by zero"),
        ("def f(:", "fails.py, line 1: SyntaxError: invalid syntax (fails.py, line 1)"),
        ("raise SystemExit(0)", "fails.py, line 1: SystemExit: 0"),
        ("raise ValueError", "fails.py, line 1: ValueError: ValueError"),
        ("raise ValueError('a\\nb')", "fails.py, line 1: ValueError: a"),
        ("x = '\0'", "fails.py: "),
    ],
)
def test_files_that_fail_are_one_line(tmp_path, content, message):
    (tmp_path / "fails.py").write_text(content)
    text = refused(rules=[{"rule": "fails.py:X"}], folder=tmp_path)
    assert text.startswith(f"interventions.0.rule = 'fails.py:X': {message}")
