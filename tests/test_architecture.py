"""The shape of the package: who may import whom, what lies where, and that everything says what it is."""

import ast
import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import rlweights
from support.docstrings import undocumented

ROOT = Path(__file__).parent.parent
FILES = {
    ".".join(path.relative_to(ROOT / "rlweights").with_suffix("").parts)
    .removesuffix("__init__")
    .rstrip("."): path
    for path in sorted((ROOT / "rlweights").rglob("*.py"))
}
"""Every module by its name without "rlweights.": "weights.optimizer", "weights" for a package, "" for all."""

TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}
MODULES = [module for module in FILES if module]

GROUND = {"errors", "backend", "renamed"}
"""Modules that everything may import, and that import nothing but each other."""

ALLOWED: dict[str, set[str]] = {
    # Ring 1: Keras and TensorFlow, nothing of reinforcement learning.
    "weights": {"weights"},
    "weights.interventions": {
        *("weights.interventions.base", "weights.interventions.feedback", "weights.interventions.schedules"),
        *("weights.interventions.configuration", "weights.interventions.context"),
        *("weights.interventions.units", "weights.cadence"),
        *("weights.arrays", "weights.backend", "weights.branches", "weights.keras_internals", "weights.prng"),
        *("weights.ranking", "weights.selection"),
    },
    # Ring 2: arrays in, arrays out.
    "learning": {"learning", "weights"},
    "learning.algorithms": {"learning.algorithms.base", "learning.batch", "weights.arrays"},
    "learning.environments": {
        *("learning.environments", "weights.arrays", "weights.prng", "weights.compilation"),
    },
    # Ring 3: one run. `building` and `records` and `saving` are beside each other, over `config`.
    "running": {"running", "learning", "weights"},
    "running.config": {"running.config", "learning.algorithms"},
    "running.building": {
        *("running.building", "running.config", "running.files", "running.interrupts", "learning", "weights"),
    },
    "running.records": {
        *("running.records", "running.files", "running.leash", "running.config", "running.notebooks"),
        *("learning", "weights.arrays"),
    },
    "running.saving": {
        *("running.saving", "running.files", "running.config", "running.guard", "learning", "weights.arrays"),
    },
    # Ring 4: many runs.
    "experiments": {"experiments", "running", "learning", "weights"},
    # The doors: one command each; and the battery for rules, which knows ring 1 alone.
    "": {"running", "experiments", "learning", "weights", ""},
    "testing": {"weights"},
}
"""What the modules of a folder may import of the package: folders, or modules; the ground comes with them.

The longest entry that fits counts: "weights.interventions.clipping" is in "weights.interventions".
"""

HANDED_WHAT_ACTS = ("learning.rollout", "learning.evaluation", "learning.stepper")
"""Modules that step environments and are handed what acts in them."""

BACKENDS_OF = {"weights.backend": {"tensorflow", "jax", "torch"}, "weights.compilation": {"tensorflow"}}
"""Modules of ring 1 that know a backend of Keras: what differs, and what ring 2 compiles with."""

LONGEST = 450
"""Lines of a file, at most; about 250 is what a reader likes."""


def imports(tree: ast.Module, known: Mapping[str, object] = FILES) -> set[str]:
    """All modules that a module imports, at its top or inside of functions; ours without "rlweights."."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            ours = {each.removeprefix("rlweights.") for each in names}
            found |= {f"rlweights.{each}" if each in known else str(node.module) for each in ours}
    return found


def own_imports(tree: ast.Module, known: Mapping[str, object] = FILES) -> set[str]:
    """The modules of this package that a module imports, without "rlweights."; the package itself is ""."""
    ours = {each for each in imports(tree, known) if each.partition(".")[0] == "rlweights"}
    return {each.removeprefix("rlweights").removeprefix(".") for each in ours}


def within(module: str, place: str) -> bool:
    """Whether a module is a place, or in it; "" are the doors, which lie in no folder."""
    return module == place or module.startswith(f"{place}.") or (not place and "." not in module)


def rule_of(module: str) -> str:
    """The entry of ALLOWED that counts for a module."""
    return max((place for place in ALLOWED if within(module, place)), key=len)


def forbidden(module: str, tree: ast.Module, known: Mapping[str, object] = FILES) -> set[str]:
    """What a module imports of the package and may not."""
    ground = GROUND if module in GROUND else GROUND - {"renamed"}
    allowed = ground if module in GROUND else ALLOWED[rule_of(module)] | ground
    return {each for each in own_imports(tree, known) if not any(within(each, place) for place in allowed)}


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """All groups of modules that import each other, directly or by a detour (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in graph[module] & graph.keys():
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1 or module in graph[module]:
                found.append(sorted(group))

    for module in graph:
        if module not in index:
            visit(module)
    return found


# Imports ------------------------------------------------------------------------------------------


def test_every_folder_has_its_rule():
    folders = {module.rpartition(".")[0] for module in MODULES}
    covered = {place for place in folders if not place or place.partition(".")[0] in ALLOWED}
    assert folders == covered
    assert all(place in FILES or not place for place in ALLOWED)


@pytest.mark.parametrize("module", [m for m in MODULES if FILES[m].name != "__init__.py"])
def test_imports_are_those_of_the_table(module):
    assert not forbidden(module, TREES[module]), f"rule of {rule_of(module)!r}"


@pytest.mark.parametrize("module", [m for m in MODULES if FILES[m].name == "__init__.py"])
def test_packages_import_only_what_is_in_them(module):
    assert {each for each in own_imports(TREES[module]) if not within(each, module)} == set()


def test_there_is_no_circle_of_modules():
    graph = {module: own_imports(TREES[module]) for module in MODULES}
    # A package is what its modules import it for; those that it collects know nothing of it.
    assert circles(graph) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("weights.optimizer", "from rlweights.learning.learner import Learner"),
        ("weights.optimizer", "from rlweights.train import train"),
        ("weights.interventions.clipping", "from rlweights.weights.interventions.noise import Noise"),
        ("weights.interventions.clipping", "from rlweights.weights.optimizer import InterventionOptimizer"),
        ("learning.rollout", "from rlweights.running.interrupts import shielded"),
        ("learning.algorithms.ppo", "from rlweights.learning.networks import Trunk"),
        ("learning.algorithms.ppo", "from rlweights.learning.algorithms.a2c import A2C"),
        ("learning.environments.cartpole", "from rlweights.learning.learner import Learner"),
        ("running.config.schema", "from rlweights.running.trainer import Trainer"),
        ("running.building.policy", "from rlweights.running.records.records import Records"),
        ("running.records.records", "from rlweights.running.building.policy import Policy"),
        ("running.saving.checkpoints", "from rlweights.running.building.assembly import Assembly"),
        ("running.trainer", "from rlweights.experiments.seeds import train_seeds"),
        ("experiments.seeds", "from rlweights.train import train"),
        ("testing", "from rlweights.learning.learner import Learner"),
        ("errors", "from rlweights.weights.prng import uniform"),
        ("weights.prng", "def f():\n    from rlweights.learning import learner"),
    ],
)
def test_each_broken_rule_is_found(module, line):
    assert module in FILES
    assert forbidden(module, ast.parse(line))


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set(), "e": {"e"}}
    assert circles(graph) == [["a", "b", "c"], ["e"]]


@pytest.mark.parametrize("module", MODULES)
def test_nothing_goes_round_by_the_public_names(module):
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and node.module == "rlweights":
            assert {alias.name for alias in node.names} <= FILES.keys()


@pytest.mark.parametrize("module", [m for m in MODULES if within(m, "weights")])
def test_ring_1_knows_nothing_of_reinforcement_learning(module):
    outside = {each.split(".")[0] for each in imports(TREES[module])}
    assert outside - sys.stdlib_module_names <= {"keras", "numpy", "rlweights", "scipy"} | BACKENDS_OF.get(
        module, set()
    )


@pytest.mark.parametrize("module", [m for m in MODULES if within(m, "weights") or within(m, "learning")])
def test_rings_1_and_2_touch_no_files_and_print_nothing(module):
    outside = {each.split(".")[0] for each in imports(TREES[module])}
    assert not outside & {"csv", "logging", "os", "pathlib", "rich", "shutil", "tempfile", "typer"}
    called = {
        n.func.id for n in ast.walk(TREES[module]) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    assert not called & {"input", "open", "print"}


@pytest.mark.parametrize("module", HANDED_WHAT_ACTS)
def test_modules_that_step_environments_are_handed_what_acts(module):
    acting = {"learning.acting", "learning.networks", "learning.loops.host", "learning.loops.device"}
    assert not own_imports(TREES[module]) & acting


def test_only_one_file_makes_graphs():
    makers = {
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if ast.unparse(node) in ("tf.function", "tensorflow.function")
    }
    assert makers == {"weights.compilation"}
    assert not any("tensorflow.function" in imports(tree) for tree in TREES.values())


def test_only_one_file_touches_private_attributes_of_keras():
    """A private attribute is known by its absence from ours: none of our classes sets or defines it."""
    ours = {"_asdict", "_replace", "_fields", "_exit"}  # of named tuples, and of the module `os`
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                ours.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                ours.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                ours.add(node.id)
    touched = {
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and re.match(r"_[a-z]", node.attr)
        and node.attr not in ours
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }
    assert touched == {"weights.keras_internals"}


# Names and files ----------------------------------------------------------------------------------


def test_agents_are_data():
    assert {path.suffix for path in (ROOT / "agents").iterdir()} == {".toml"}
    assert not (ROOT / "agents" / "__init__.py").exists()


@pytest.mark.parametrize("module", MODULES)
def test_no_module_takes_a_name_that_says_nothing_or_is_taken(module):
    name = module.split(".")[-1]
    assert name not in sys.stdlib_module_names
    assert not re.search(r"util|common|helper|misc", name)


def test_classes_have_names_of_their_own():
    names = [
        node.name
        for tree in TREES.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_tests_are_found_by_their_names():
    tests = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(set(tests)) == len(tests)
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("module", MODULES)
def test_files_are_short(module):
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= LONGEST


TESTED_ELSEWHERE = {
    # Types and protocols: what uses them tests them.
    "learning.batch": "learning/test_rollout.py",
    "learning.loops.base": "learning/loops/test_host.py",
    # What all of a family have in common, and that each of them does: one battery.
    "weights.interventions.base": "weights/interventions/test_all_rules.py",
    "weights.interventions.configuration": "weights/interventions/test_all_rules.py",
    "weights.interventions.context": "weights/interventions/test_all_rules.py",
    # What recycling and continual backpropagation have in common.
    "weights.interventions.units": "weights/interventions/test_recycling.py",
    # There is another test_rules.py, of agent files.
    "rules": "commands/test_rule_cards.py",
    # Seen in what a killed run leaves behind.
    "running.leash": "running/records/test_tensorboard_server.py",
    # Seen in what pruning holds.
    "weights.masks": "weights/interventions/test_pruning.py",
    "learning.algorithms.base": "learning/test_algorithms.py",
    "learning.algorithms.a2c": "learning/test_algorithms.py",
    "learning.algorithms.ppo": "learning/test_algorithms.py",
    "learning.algorithms.reinforce": "learning/test_algorithms.py",
    "learning.environments.acrobot": "learning/environments/test_twins.py",
    "learning.environments.cartpole": "learning/environments/test_twins.py",
    "learning.environments.mountain_car": "learning/environments/test_twins.py",
    "learning.environments.pendulum": "learning/environments/test_twins.py",
    "learning.environments.vector": "learning/environments/test_environment_battery.py",
    # Seen in what a whole run records and does.
    "learning.inspection": "running/records/test_layout.py",
    "learning.rule_signals": "learning/test_parameter_noise.py",
    "learning.loops.device": "running/saving/test_run_state.py",
    "running.evaluator": "running/test_trainer.py",
    "experiments.curves": "commands/test_compare.py",
    "running.outcome": "running/test_trainer.py",
    "running.diagnosis.advice": "running/diagnosis/test_judgement.py",
    "running.diagnosis.causes": "running/diagnosis/test_judgement.py",
    "running.diagnosis.courses": "running/diagnosis/test_judgement.py",
    "running.diagnosis.record": "running/diagnosis/test_judgement.py",
    "running.diagnosis.table": "running/diagnosis/test_judgement.py",
    "check_env": "commands/test_diagnose.py",
    "running.announcement": "running/test_session.py",
    # Seen in what is built of them.
    "learning.parts": "learning/test_spaces.py",
    "learning.tables": "running/test_parts_of_observations.py",
    "learning.environments.rescaled": "running/test_parts_of_observations.py",
    "learning.heads": "learning/test_masking.py",
    "learning.environments.wrapper": "learning/environments/test_drift.py",
    "learning.environments.masked": "running/building/test_building_action_masks.py",
    "learning.environments.conformity": "running/building/test_user_environments.py",
    "learning.environments.processes": "running/building/test_user_environments.py",
    "running.building.singles": "running/building/test_user_environments.py",
    "running.config.objects": "running/building/test_user_environments.py",
    "weights.threaded_state": "weights/test_weights_backend.py",
    "weights.delegation": "weights/test_optimizer.py",
    "weights.exchange": "weights/test_attachment.py",
    "weights.slots": "weights/test_rule_identity.py",
}
"""Modules whose tests lie at another place, by the reason for it."""

HAS_CODE = [
    module
    for module in MODULES
    if any(isinstance(node, ast.ClassDef | ast.FunctionDef) for node in TREES[module].body)
    and FILES[module].name != "__init__.py"
]


def mirrored(module: str) -> list[str]:
    """Where the tests of a module may lie: file names are unique, so a folder's name may stand before."""
    *folders, name = module.split(".")
    if not folders:
        return [f"test_{name}.py", f"commands/test_{name}.py"]
    folder = "/".join(folders)
    return [f"{folder}/test_{name}.py", f"{folder}/test_{folders[-1]}_{name}.py"]


@pytest.mark.parametrize("module", HAS_CODE)
def test_every_module_has_its_tests_at_the_mirrored_place(module):
    at_home = [each for each in mirrored(module) if (ROOT / "tests" / each).is_file()]
    if module in TESTED_ELSEWHERE:
        assert not at_home, "is no exception any more"
        assert (ROOT / "tests" / TESTED_ELSEWHERE[module]).is_file()
    else:
        assert len(at_home) == 1, f"one of {mirrored(module)}"


def test_exceptions_are_modules():
    assert TESTED_ELSEWHERE.keys() <= set(HAS_CODE)


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_files_of_tests_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


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
    (block,) = [n for n in TREES[""].body if isinstance(n, ast.If)]
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(rlweights.__all__)


@pytest.mark.parametrize("module", ["weights.interventions", "learning.environments", "learning.algorithms"])
def test_packages_export_what_they_say(module):
    package = importlib.import_module(f"rlweights.{module}")
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
