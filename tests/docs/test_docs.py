"""The documentation: complete, and it builds without a warning."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rlweights
from rlweights.cli import app
from support.commandline import invoke
from support.smallruns import small_run

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_every_public_name_is_in_the_reference():
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    assert len(set(shown)) == len(shown)
    homes = {f"{home}.{name}" for home, names in rlweights._HOMES.items() for name in names}
    assert homes | {f"rlweights.{name}" for name in rlweights._MODULES} <= set(shown)


def test_every_page_and_every_image_is_used():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.name: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
    assert set(re.findall(r": (\S+\.md)$", navigation, re.MULTILINE)) == set(pages)
    texts = [*pages.values(), (ROOT / "README.md").read_text(encoding="utf-8")]
    used = {name for text in texts for name in re.findall(r"\(\S*images/([\w.-]+)\)", text)}
    images = {path.name: path.stat().st_size for path in (DOCS / "images").iterdir()}
    assert used == set(images)
    assert max(images.values()) < 200_000


def test_the_code_of_the_page_on_python_runs(tmp_path):
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    for code in reversed(re.findall(r"```python\n(.*?)```", page, re.DOTALL)):
        folder = tmp_path if "agent.predict" in code else tmp_path / "callbacks"
        folder.mkdir(exist_ok=True)
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert re.search(r"^\d+\.\d \+- \d+\.\d\n\[[01] [01]\]$", done.stdout, re.MULTILINE)
    (run,) = (tmp_path / "runs" / "cartpole").iterdir()
    assert "gamma = 0.99" in (run / "agent.toml").read_text()


def test_the_quick_start_runs(tmp_path):
    page = (DOCS / "quick-start.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        assert command in readme, "the README's test runs it"
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    mean, action, length = (line for line in done.stdout.splitlines() if re.fullmatch(r"[\d.]+", line))
    assert float(mean) > 9.0
    assert action in ("0", "1")
    assert 10.0 <= float(length) <= 100.0


def test_the_figures_of_the_page_on_rules_stand_in_the_tables_of_studies():
    page = (DOCS / "choosing-a-rule.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if "| `" in line]
    assert len(rows) >= 6
    for _, _, study, arm, reached, base, before, verdict in rows:
        table = (DOCS / "studies" / study.strip("`") / "table.md").read_text(encoding="utf-8")
        first = table.split("\n## ")[1].splitlines()  # the measure that the study was made for
        lines = {line.split("|")[1].strip(): line for line in first if line.startswith("| ")}
        assert f"| {reached} |" in lines[arm]
        assert f"| {before} |" in lines[base]
        assert ("| better |" in lines[arm]) == (verdict == "better")


def test_the_commands_of_the_page_on_diagnoses_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "diagnosing.md").read_text(encoding="utf-8")
    for line in "".join(re.findall(r"```console\n(.*?)```", page, re.DOTALL)).splitlines():
        module, *words = line.replace("RUN", str(small_run())).removeprefix("python -m rlweights.").split()
        code, output, error = invoke(app, module.replace("_", "-"), *words)
        assert (code, error) == (0, ""), line
        assert output


def test_the_site_builds_without_a_warning(tmp_path):
    for needed in ("material", "mkdocstrings_handlers"):
        pytest.importorskip(needed, reason="needs rlweights[docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference.html").read_text(encoding="utf-8")
    for name in ("rlweights.running.recipe.Recipe.train", "rlweights.running.config.schema.Evaluation"):
        assert f'id="{name}"' in reference
