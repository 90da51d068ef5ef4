"""The module names of version 0.1: the same objects under two names, nothing twice."""

import importlib
import pkgutil
import subprocess
import sys
import types

import pytest

from rlweights.renamed import RENAMED
from support.assemblies import assembled

SUBMODULES = [
    (f"{old}.{found.name}", f"{new}.{found.name}")
    for old, new in RENAMED.items()
    for found in pkgutil.iter_modules(getattr(importlib.import_module(new), "__path__", []))
]


@pytest.mark.parametrize(("old", "new"), [*RENAMED.items(), *SUBMODULES])
def test_an_old_name_is_the_same_module(old, new):
    found, present = importlib.import_module(old), importlib.import_module(new)
    assert found is present
    assert present.__name__ == new
    assert present.__spec__ is not None
    assert present.__spec__.name == new
    assert sys.modules[old] is sys.modules[new]


def test_packages_have_submodules():
    assert ("rlweights.interventions.noise", "rlweights.weights.interventions.noise") in SUBMODULES


@pytest.mark.parametrize("name", ["rlweights.nothing", "rlweights.interventions.nothing"])
def test_other_names_are_not_found(name):
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)


def test_nothing_is_loaded_twice_whichever_name_comes_first():
    names = [*RENAMED, *RENAMED.values(), *(name for pair in SUBMODULES for name in pair)]
    script = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
files = {{}}
for module in list(sys.modules.values()):
    if getattr(module, "__name__", "").startswith("rlweights") and getattr(module, "__file__", None):
        files.setdefault(module.__file__, set()).add(id(module))
assert len(files) > 20
assert all(len(each) == 1 for each in files.values()), files
for name in {names!r}:
    assert sys.modules[name].__spec__.name == sys.modules[name].__name__
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


ENVIRONMENT = """
from rlweights.environments import CartPole
from rlweights.environments.base import Environment
from rlweights import draws

assert issubclass(CartPole, Environment)


class Long(CartPole):
    def __init__(self):
        super().__init__(length=2.0)
"""

RULE = """
import rlweights.interventions as family
from rlweights.interventions.strength import OverBudget
from rlweights.interventions.base import Intervention
from rlweights.diagnostics import weight_norm
from rlweights.selection import kind


class Halving(Intervention):
    def update(self, weight, step):
        return 0.5 * weight
"""


def test_files_that_import_by_the_old_names_work(tmp_path):
    (tmp_path / "long.py").write_text(ENVIRONMENT)
    (tmp_path / "halving.py").write_text(RULE)
    assembly = assembled(
        "environment.backend=tensorflow",
        "environment.id=long.py:Long",
        folder=tmp_path,
        rules=[{"rule": "halving.py:Halving", "on": "kind('kernel')"}],
    )
    assert assembly.environments.tensorflow.length == 2.0
    assert type(assembly.rules[0]).__name__ == "Halving"
    assert isinstance(sys.modules["rlweights.interventions"], types.ModuleType)
