"""What a session ran on is told in full, and sessions add up."""

import json

import pytest

from rlweights.errors import RecordsError
from rlweights.running.records import provenance
from support.smallruns import small_run


def test_a_run_says_what_it_ran_on():
    (facts,) = json.loads((small_run() / provenance.FILE).read_text())["sessions"]
    assert {"rlweights", "tensorflow", "keras", "gymnasium", "numpy"} >= set(facts["versions"]) - {
        *("mujoco", "ale-py", "minigrid", "envpool")
    }
    assert facts["versions"]["tensorflow"].startswith("2.")
    assert facts["cores"] >= 1
    assert facts["device"].startswith(("CPU", "GPU"))
    assert facts["started"][:2] == "20"


def test_the_text_for_tensorboard_is_a_table():
    lines = provenance.markdown(provenance.provenance()).splitlines()
    assert lines[:2] == ["| | |", "|---|---|"]
    assert all(line.count("|") == 3 for line in lines if "|" not in line.strip("| "))
    assert any(line.startswith("| tensorflow | 2.") for line in lines)


def test_sessions_add_up_and_a_damaged_file_begins_anew(tmp_path):
    for _ in range(2):
        provenance.write(tmp_path, {"python": "3"})
    assert json.loads((tmp_path / provenance.FILE).read_text()) == {"sessions": [{"python": "3"}] * 2}
    (tmp_path / provenance.FILE).write_text("[")
    provenance.write(tmp_path, {"python": "3"})
    assert len(json.loads((tmp_path / provenance.FILE).read_text())["sessions"]) == 1
    with pytest.raises(RecordsError, match=r"run\.json: cannot be written: "):
        provenance.write(tmp_path / "nowhere", {})
