"""The benchmark of permuted digits: its table, on a data set that needs no package."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "permuted_digits.py"


@pytest.fixture
def benchmark(monkeypatch):
    """The benchmark as a module, with 64 points of two classes that one pixel tells apart."""
    spec = importlib.util.spec_from_file_location("benchmark_permuted_digits", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    y = np.arange(512, dtype=np.int32) % 2
    x = np.random.default_rng(0).uniform(size=(512, 4)).astype(np.float32) * 0.1
    x[:, 0] += 3.0 * y
    monkeypatch.setattr(module, "digits", lambda: (x, y))
    return module


def test_the_table_has_a_row_for_each_arm(benchmark, capsys):
    assert benchmark.main(["--tasks", "2", "--seeds", "1", "--arms", "plain,layer_norm"]) == 0
    *_, plain, norm = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()]
    assert (plain[0].strip(), norm[0].strip()) == ("plain", "layer_norm")
    first, last = float(plain[1]), float(plain[4])
    # Measured before each update: the first batches of a task count, too.
    assert 0.5 < first < 1.0
    assert 0.5 < last <= 1.0
    assert plain[3].strip() == ""
    assert float(norm[3].split()[0]) == pytest.approx(float(norm[4]) - float(plain[4]), abs=2e-3)


def test_mistakes_are_named(benchmark, capsys):
    for arguments, says in (
        (["--arms", "plane"], "must be some of plain"),
        (["--tasks", "0"], "take 1 or more"),
    ):
        with pytest.raises(SystemExit):
            benchmark.main(arguments)
        assert says in capsys.readouterr().err


def test_every_arm_says_what_it_is_made_of(benchmark):
    for arm, make in benchmark.ARMS.items():
        inner, rules, layer_norm = make()
        assert inner.get_config()["learning_rate"] == pytest.approx(3e-4 if "3e-4" in arm else 1e-3)
        assert len(rules) <= 1
        assert layer_norm is (arm == "layer_norm")
