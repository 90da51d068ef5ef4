"""The examples, and the code of the page on weights in a compiled step, run as they are."""

import re
import runpy
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGE = ROOT / "docs" / "weights-in-a-compiled-step.md"
TEXT = PAGE.read_text(encoding="utf-8")
TRAPS = (ROOT / "tests" / "weights" / "test_traps.py").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def fresh_names():
    """Layers are named as in a process of their own."""
    keras.backend.clear_session()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_its_own_assertions_hold(example, tmp_path, monkeypatch):
    assert "\nassert " in (text := example.read_text(encoding="utf-8")) or "\n    assert " in text
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind"


def test_every_block_of_the_page_runs():
    """In order and in one namespace; line numbers in a traceback are those of the page."""
    namespace = {"__name__": "page"}
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
    assert len(blocks) == TEXT.count("```python") >= 15
    for block in blocks:
        source = "\n" * TEXT.count("\n", 0, block.start(1)) + block.group(1)
        exec(compile(source, str(PAGE), "exec"), namespace)


def test_every_test_that_the_page_names_exists():
    named = set(re.findall(r"`(?:tests/([\w/]+)\.py::)?(test_\w+)`", TEXT))
    assert len(named) >= 25
    for file, test in named:
        text = (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8") if file else TRAPS
        assert f"def {test}(" in text, test


def test_every_test_of_a_trap_is_named_by_the_page():
    assert set(re.findall(r"^def (test_\w+)", TRAPS, re.MULTILINE)) <= set(re.findall(r"test_\w+", TEXT))
