"""Rules in `tf.distribute.MirroredStrategy`, on two and three logical processors, in one other process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replicas")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS)))}
    command = [sys.executable, "-m", "support.replicated", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("count", [2, 3])
def test_replicas_are_equal_and_compute_what_one_device_does(results, count):
    one, several = results["1"], results[str(count)]
    assert several["replicas"] == count
    assert several["differ"] == []  # weights, offsets, draws, averages, scores: to the last bit
    assert several["applications"] == one["applications"]
    assert all(each > 0 for each in one["applications"])
    assert several["values"].keys() == one["values"].keys()
    for path, value in one["values"].items():
        np.testing.assert_allclose(several["values"][path], value, atol=2e-6, err_msg=path)
    assert several["history"].keys() == one["history"].keys()
    for name, values in one["history"].items():
        np.testing.assert_allclose(several["history"][name], values, rtol=1e-4, atol=1e-6, err_msg=name)


def test_what_two_replicas_saved_goes_on_on_one_device(results):
    assert results["loaded"] < 2e-6


def test_what_replicas_could_decide_differently_is_refused_by_name(results):
    told = results["refused"]
    assert told["aggregation"].startswith("net/averaged/scale has aggregation='mean'")
    assert told["on_nonfinite"].startswith("`on_nonfinite` asks each replica for itself")
    assert "made outside of the scope of the strategy" in told["outside"]
