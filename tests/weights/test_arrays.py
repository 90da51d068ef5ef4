"""The glossary of what flows, and the annotations of the package that are made of it."""

import ast
from pathlib import Path

import pytest

import rlweights

PACKAGE = Path(rlweights.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def unannotated(tree: ast.Module) -> list[str]:
    """Parameters without an annotation, as "function(parameter)"."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [
        f"{function.name}({each.arg})"
        for function in functions
        if function.name == "__init__" or not function.name.startswith("__")
        for each in [
            *function.args.posonlyargs,
            *function.args.args,
            *function.args.kwonlyargs,
            *filter(None, [function.args.vararg, function.args.kwarg]),
        ]
        if each.annotation is None and each.arg not in ("self", "cls")
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_parameter_is_annotated(path):
    assert unannotated(ast.parse(path.read_text(encoding="utf-8"))) == []


def test_what_is_not_annotated_is_found():
    source = "def f(a, b: int, *c, **d):\n  def g(self, e): pass\n"
    assert unannotated(ast.parse(source)) == ["f(a)", "f(c)", "f(d)", "g(e)"]
