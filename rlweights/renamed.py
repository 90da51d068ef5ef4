"""Module names of version 0.1, for the imports of rule and environment files beside old runs."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

RENAMED = {
    "rlweights.diagnostics": "rlweights.weights.diagnostics",
    "rlweights.draws": "rlweights.weights.prng",
    "rlweights.environments": "rlweights.learning.environments",
    "rlweights.interventions": "rlweights.weights.interventions",
    "rlweights.interventions.strength": "rlweights.weights.interventions.schedules",
    "rlweights.selection": "rlweights.weights.selection",
}
"""The modules that the documentation of version 0.1 names for such files: old name to new name."""


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a module under its old name: the same object, so that classes are the same too."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if _present(fullname) else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(str(_present(spec.name)))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state  # Python has just written the old name's into it


def _present(name: str) -> str | None:
    """The present name of a module of version 0.1, of those in a package included; None: it is none."""
    if name in RENAMED:
        return RENAMED[name]
    parent, _, child = name.rpartition(".")
    return f"{RENAMED[parent]}.{child}" if parent in RENAMED else None


def install() -> None:
    """Makes the old names work, once in a process."""
    if not any(isinstance(each, _Finder) for each in sys.meta_path):
        sys.meta_path.insert(0, _Finder())  # first: a package finds its modules by its present path, twice
