"""Real processes of real agents, killed by real signals: what `benchmarks/soak.py` counts."""

import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


# Real processes -----------------------------------------------------------------------------------


@pytest.fixture
def soak(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    yield __import__("soak")
    sys.modules.pop("soak")


def test_an_agent_whose_package_is_missing_is_left_out_aloud(soak, capsys, monkeypatch):
    monkeypatch.setattr(soak, "NEEDS", {"pooled": "no_such_package"})
    assert set(soak.trainable()) == soak.AGENTS.keys() - {"pooled"}
    assert capsys.readouterr().out == "`pooled` is left out: no_such_package is not installed\n"


def test_killed_for_real(soak, capsys):
    assert soak.main(["--kills", "3", "--agents", "clipped", "compiled"]) == 0
    assert "3 kills, 0 differences, 0 unreadable checkpoints" in capsys.readouterr().out


@pytest.mark.slow
def test_killed_for_real_thirty_times(soak):
    assert soak.main([]) == 0
