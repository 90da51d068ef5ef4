"""One rule, three backends of Keras: the same numbers, each in a process of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support import on_backend

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module", params=["jax", "torch"])
def elsewhere(request, tmp_path_factory):
    """What another backend makes of the sets of rules; its process also runs the battery of `on_backend`."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    environment = os.environ | {
        "KERAS_BACKEND": request.param,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "support.on_backend", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(np.load(folder / f"{request.param}.npz"))


@pytest.fixture(scope="module")
def here():
    return on_backend.everything()


def test_every_backend_trains_to_the_same_weights_state_and_history(here, elsewhere):
    assert elsewhere.keys() == here.keys()
    assert here["raise:stopped"] == 1
    assert (here["skip:skipped"], here["raise:skipped"]) == (1, 0)
    assert here["between:history/intervention/recycling/recycled_units"].sum() > 0
    for key, value in here.items():
        np.testing.assert_allclose(elsewhere[key], value, rtol=2e-6, atol=1e-6, err_msg=key)
