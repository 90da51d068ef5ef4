"""Every command and every code block of the README runs."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rlweights.running.config import agent_file

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    """The lines of the console blocks."""
    return [line for block in blocks("console") for line in block.strip().splitlines()]


OURS = [line for line in commands() if line.startswith("python -m rlweights.")]
OTHERS = [line for line in commands() if line not in OURS]


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_block(number, tmp_path):
    script = tmp_path / "block.py"
    script.write_text(blocks("python")[number], encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_agent_file_is_valid():
    for block in blocks("toml"):
        agent_file.parse(tomllib.loads(block), "README.md")


def test_other_commands_are_known():
    known = {"make train", "make test", "source .venv/bin/activate", "tensorboard --logdir runs"}
    assert set(OTHERS) <= known, OTHERS
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\ntrain:" in makefile
    assert "\ntest:" in makefile


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A short run for the commands that take one."""
    folder = tmp_path_factory.mktemp("readme")
    command = "-m rlweights.train cartpole -n 2048 --runs runs --set evaluation.final_episodes=5 -q"
    subprocess.run([sys.executable, *command.split()], cwd=folder, check=True, capture_output=True)
    return next((folder / "runs" / "cartpole").iterdir())


@pytest.mark.parametrize("line", OURS)
def test_command(line, run, tmp_path):
    words = shlex.split(line.replace("RUN", str(run)))[1:]
    if "rlweights.train" in words and "--resume" not in words:
        words += ["-n", "4096", "--set", "evaluation.final_episodes=5"]  # last one wins: only shorter
    if "rlweights.study" in words:
        words += ["--seeds", "1", "--scale", "0.02", "--workers", "1"]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip().startswith("error"), done.stderr


def test_figures_are_filled_in():
    assert "AGENTS_TABLE" not in README
    assert "SPEED_TABLE" not in README
    for image in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / image).is_file(), image
