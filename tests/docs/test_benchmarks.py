"""The benchmarks start: they are run by hand and would otherwise rot unseen."""

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

FOLDER = Path(__file__).parents[2] / "benchmarks"
PEERS = "peers.py"  # runs in a Python of its own, with the peers in it


def loaded(path: Path, monkeypatch) -> Any:
    """A benchmark as a module."""
    monkeypatch.setattr(sys, "argv", [str(path)])
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_finds_all_that_it_imports(path, monkeypatch):
    if path.name == PEERS:
        pytest.skip("imports the peers")
    assert callable(loaded(path, monkeypatch).main)


def test_without_a_gpu_its_benchmark_says_so_in_one_line(monkeypatch, capsys):
    gpu = loaded(FOLDER / "gpu.py", monkeypatch)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert gpu.main([]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("nothing to do: --device gpu: TensorFlow finds no such GPU; it finds none; ")


def test_what_a_gpu_must_do_holds_on_the_processor(monkeypatch, tmp_path):
    """The checks that need no process of their own; the others are commands that other tests run."""
    gpu = loaded(FOLDER / "gpu.py", monkeypatch)
    for check in (gpu.places, gpu.draws):
        holds, measured = check("cpu", tmp_path)
        assert holds, measured
    assert not gpu.places("gpu", tmp_path)[0], "all of these lie on the processor"


def test_a_variation_of_an_agent_is_measured(monkeypatch, capsys):
    learning = loaded(FOLDER / "learning.py", monkeypatch)
    changes = ["interventions=[]", "budget.total_timesteps=600", "network.hidden_sizes=[4]"]
    options = [word for text in changes for word in ("--set", text)]
    assert learning.main(["cartpole", *options, "--seeds", "7", "8", "--episodes", "3"]) == 0
    *_, row = capsys.readouterr().out.splitlines()
    _, agent, steps, expected, mean, each, seconds, _ = row.split("|")
    assert agent.split() == ["`cartpole`", *(f"`{text}`" for text in changes)]
    assert (steps.strip(), expected.strip()) == ("512", "475")
    assert len(each.split(",")) == 2
    assert 8.0 <= float(mean.split()[0]) <= 500.0
    assert float(seconds) >= 0.0


def test_a_variation_that_is_none_is_one_line(monkeypatch, capsys):
    learning = loaded(FOLDER / "learning.py", monkeypatch)
    assert learning.main(["cartpole", "--set", "algorithm.gama=0.9"]) == 2
    assert re.fullmatch(r"error: --set algorithm\.gama=0\.9: .*\n", capsys.readouterr().err)
    assert learning.main(["no_such_agent"]) == 2
    assert "'no_such_agent' is no agent." in capsys.readouterr().err
    with pytest.raises(SystemExit):
        learning.main(["cartpole", "--episodes", "0"])
    assert "--episodes: takes 1 or more, not 0" in capsys.readouterr().err


def test_an_agent_that_claims_nothing_needs_seeds(monkeypatch, capsys, tmp_path):
    (tmp_path / "mine.toml").write_text('[environment]\nid = "CartPole-v1"\n')
    assert loaded(FOLDER / "learning.py", monkeypatch).main([str(tmp_path / "mine.toml")]) == 2
    assert "mine.toml: expect is missing" in capsys.readouterr().err
