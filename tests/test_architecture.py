"""The shape of the package: who may import whom, what lies where, and that everything says what it is."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

import rlweights

ROOT = Path(__file__).parent.parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "rlweights").rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}

WEIGHTS = {"callbacks", "diagnostics", "draws", "interventions", "optimizer", "selection"}
"""Ring 1: knows Keras, nothing of reinforcement learning."""

LEARNING = {
    *("adapter", "algorithms", "compiled", "distributions", "environments", "learner", "networks"),
    *("normalization", "reseeded", "returns", "rollout", "spaces", "stepper"),
}
"""Ring 2: arrays in, arrays out. What is in neither of these is ring 3: files, clocks, commands."""

LONGEST = 450
"""Lines of a file, at most; about 250 is what a reader likes."""


def ring(module: str) -> int:
    """The ring of a module of the package."""
    name = module.split(".")[1]
    return 1 if name in WEIGHTS else 2 if name in LEARNING else 3


def imports(module: str) -> set[str]:
    """All modules that a module imports, at the top or inside of functions."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else str(node.module) for name in names}
    return found


def own_imports(module: str) -> set[str]:
    """The modules of this package that a module imports; of the package itself everybody may."""
    return {each for each in imports(module) if each.startswith("rlweights.")}


MODULES = [module for module in FILES if module != "rlweights"]


def test_the_rings_are_not_empty_names():
    top = {module.split(".")[1] for module in MODULES}
    assert top >= WEIGHTS | LEARNING
    assert not WEIGHTS & LEARNING


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_the_rings(module):
    up = [each for each in own_imports(module) if ring(each) > ring(module)]
    assert not up, f"{module} is in ring {ring(module)}"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_goes_round_by_the_public_names(module):
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and node.module == "rlweights":
            names = {alias.name for alias in node.names if f"rlweights.{alias.name}" not in FILES}
            assert names <= {"BackendError", "check_backend"}


@pytest.mark.parametrize("module", [m for m in MODULES if ring(m) == 1])
def test_ring_1_knows_nothing_of_reinforcement_learning(module):
    outside = {each.split(".")[0] for each in imports(module)}
    known = {"keras", "numpy", "rlweights", "scipy", "tensorflow"}
    assert outside - sys.stdlib_module_names <= known


@pytest.mark.parametrize("module", [m for m in MODULES if ring(m) <= 2])
def test_rings_1_and_2_touch_no_files_and_print_nothing(module):
    outside = {each.split(".")[0] for each in imports(module)}
    assert not outside & {"csv", "json", "logging", "os", "pathlib", "rich", "shutil", "tempfile", "typer"}
    called = {
        n.func.id for n in ast.walk(TREES[module]) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    assert not called & {"input", "open", "print"}


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("rlweights.interventions.")])
def test_rules_do_not_import_each_other(module):
    shared = {"rlweights.interventions.base", "rlweights.interventions.strength"}
    assert {each for each in own_imports(module) if each.startswith("rlweights.interventions")} <= shared


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("rlweights.algorithms")])
def test_algorithms_are_hyper_parameters_and_a_loss(module):
    assert all(each.startswith("rlweights.algorithms") for each in own_imports(module))


@pytest.mark.parametrize("module", ["rlweights.rollout", "rlweights.evaluation", "rlweights.stepper"])
def test_who_steps_environments_is_handed_what_acts(module):
    acting = {"rlweights.compiled", "rlweights.networks", "rlweights.assembly"}
    assert not own_imports(module) & acting


def test_only_one_file_makes_graphs():
    makers = {
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if ast.unparse(node) in ("tf.function", "tensorflow.function")
    }
    assert makers == {"rlweights.compiled"}
    assert not any("tensorflow.function" in imports(module) for module in MODULES)


# Names and files ----------------------------------------------------------------------------------


def test_agents_are_data():
    assert {path.suffix for path in (ROOT / "agents").iterdir()} == {".toml"}
    assert not (ROOT / "agents" / "__init__.py").exists()


@pytest.mark.parametrize("module", MODULES)
def test_no_module_takes_a_name_that_says_nothing_or_is_taken(module):
    name = module.split(".")[-1]
    assert name not in sys.stdlib_module_names
    assert not re.search(r"util|common|helper|misc", name)


def test_tests_are_found_by_their_names():
    tests = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(set(tests)) == len(tests)
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("module", FILES)
def test_files_are_short(module):
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= LONGEST


def undocumented(tree: ast.Module) -> list[str]:
    """Public modules, classes, functions and methods without a docstring."""
    missing = [] if ast.get_docstring(tree) else ["the module"]

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                setter = any(ast.unparse(each).endswith(".setter") for each in child.decorator_list)
                if child.name.startswith("_") or setter:
                    continue
                if not ast.get_docstring(child):
                    missing.append(prefix + child.name)
                if isinstance(child, ast.ClassDef):
                    visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.If | ast.Try | ast.With):
                visit(child, prefix)

    visit(tree, "")
    return missing


@pytest.mark.parametrize("module", FILES)
def test_everything_public_says_what_it_is(module):
    assert undocumented(TREES[module]) == []


def test_what_is_undocumented_is_found():
    source = "class A:\n  def b(self): pass\n  def _c(self): pass\nif True:\n  def d(): 'It is.'"
    assert undocumented(ast.parse(source)) == ["the module", "A", "A.b"]


# The public names ---------------------------------------------------------------------------------


def test_public_names_can_be_imported():
    for name in rlweights.__all__:
        found = getattr(rlweights, name)
        home = getattr(found, "__module__", None) or found.__name__
        assert home.startswith("rlweights."), name
    assert sorted(set(rlweights.__all__)) == list(rlweights.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = rlweights.nothing  # pyright: ignore[reportAttributeAccessIssue]


def test_type_checkers_see_the_same_names():
    (block,) = [n for n in TREES["rlweights"].body if isinstance(n, ast.If)]
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(rlweights.__all__)


@pytest.mark.parametrize(
    "module", ["rlweights.interventions", "rlweights.environments", "rlweights.algorithms"]
)
def test_packages_export_what_they_say(module):
    package = importlib.import_module(module)
    for name in package.__all__:
        assert getattr(package, name) is not None


# What is committed --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Makefile", "constraints.txt", "pyproject.toml", ".ci/run"])
def test_packages_come_from_wherever_the_user_gets_them(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"index[-_]?url|find[-_]links|trusted[-_]host|\bhttps?://|\bfile://", text)


def test_constraints_are_exact():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins
    for line in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+]*( ;.*)?", line), line
