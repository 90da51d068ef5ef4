"""What a reader has to open: modules reached through imports, and the way from a command to PPO's loss.

    python benchmarks/structure.py
    python benchmarks/structure.py --tree CHECKOUT    # another one, of any version

*Modules reached* are those of the package that a module imports, directly or through others, inside of
functions too; a package counts as what it imports. The *reading path* begins at the command `train`, and
follows every function of its files that a function on the way names; other files are taken at their word.
"""

import argparse
import ast
from pathlib import Path

REACHED = {
    "vector adapter": ("learning.environments.vector", "adapter"),
    "rollout": ("learning.rollout", "rollout"),
    "video": ("running.video", "film"),
    "run folder": ("running.saving.run_folder", "runs"),
    "guard": ("running.guard", "guard"),
    "trained agent": ("running.trained", "trained"),
}
"""Modules by what they are, with their names now and in version 0.1."""

READ = (
    ("train",),
    ("running.session", "session"),
    ("running.config.schema", "schema"),
    ("running.building.policy",),
    ("running.building.assembly", "assembly"),
    ("running.trainer", "trainer"),
    ("learning.loops.host", "loops", "compiled"),
    ("learning.rollout", "rollout"),
    ("learning.learner", "learner"),
    ("learning.returns", "returns"),
    ("learning.algorithms.base", "algorithms.base"),
    ("learning.algorithms.ppo", "algorithms.ppo"),
    ("running.records.records", "records"),
)
"""Files from the command to the loss, with their names now and in version 0.1."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--tree", type=Path, default=Path(__file__).parent.parent, help="the checkout to read"
    )
    package = parser.parse_args().tree / "rlweights"
    files = {_name(path, package): path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
    trees = {name: ast.parse(text) for name, text in files.items()}
    print(f"{len(trees)} modules\n\nmodules reached through imports")
    for what, names in REACHED.items():
        (module,) = [name for name in names if name in trees]
        print(f"  {what:16} {len(reached(module, trees)):4}")
    path = [name for names in READ for name in names if name in trees]
    print("\nreading path, lines (by function, whole file)")
    functions = on_the_way({name: trees[name] for name in path})
    whole = {name: len(files[name].splitlines()) for name in path}
    for name in path:
        print(f"  {name:28} {functions[name]:6} {whole[name]:6}")
    print(f"  {'in all':28} {sum(functions.values()):6} {sum(whole.values()):6}")


def reached(module: str, trees: dict[str, ast.Module]) -> set[str]:
    """Returns the modules that a module imports, directly or through others."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        new = _imports(trees[waiting.pop()], trees) - found - {module}
        found |= new
        waiting += new
    return found


def on_the_way(trees: dict[str, ast.Module]) -> dict[str, int]:
    """Returns how many lines of each file a reader passes who begins at the function `train`."""
    pieces: dict[str, list[tuple[str, ast.AST]]] = {}
    for module, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                pieces.setdefault(node.name, []).append((module, node))
            elif isinstance(node, ast.ClassDef):
                fields = [each for each in node.body if not isinstance(each, ast.FunctionDef)]
                pieces.setdefault(node.name, []).extend((module, each) for each in [*fields, *node.bases])
                for each in [each for each in node.body if isinstance(each, ast.FunctionDef)]:
                    name = node.name if each.name == "__init__" else each.name
                    pieces.setdefault(name, []).append((module, each))
    lines = dict.fromkeys(trees, 0)
    seen: set[str] = set()
    waiting = ["train"]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in pieces:
            continue
        seen.add(name)
        for module, node in pieces[name]:
            lines[module] += node.end_lineno - node.lineno + 1  # pyright: ignore[reportAttributeAccessIssue]
            waiting += [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
            waiting += [n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)]
    return lines


def _name(path: Path, package: Path) -> str:
    return ".".join(path.relative_to(package).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def _imports(tree: ast.Module, known: dict[str, ast.Module]) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "rlweights":
            home = str(node.module).removeprefix("rlweights").removeprefix(".")
            names = {f"{home}.{alias.name}".removeprefix(".") for alias in node.names}
            found |= {name if name in known else home for name in names}
    return found & known.keys() - {""}


if __name__ == "__main__":
    main()
