"""A run of version 0.1 with a rule that is undone: it acts as it acted there, and is trained to its end."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from rlweights.running import session
from rlweights.running.saving import checkpoint_file
from rlweights.running.trained import TrainedAgent

RUN = Path(__file__).parents[1] / "support" / "data" / "run_version_0_1"
"""384 steps of CartPole as version 0.1 left them, but for the last checkpoint: a kill may cost it."""

RETURNS = [18.0, 29.0, 17.0, 21.0, 18.0, 23.0, 22.0, 19.0]
"""What `TrainedAgent(RUN).evaluate(8, seed=10_000)` returned in version 0.1, for either weights."""


@pytest.mark.parametrize("which", ["best", "latest"])
def test_it_evaluates_as_it_did(which):
    assert TrainedAgent(RUN, which).evaluate(8, seed=10_000).returns.tolist() == RETURNS


def test_it_is_resumed_and_ends_as_it_ended(tmp_path):
    run = shutil.copytree(RUN, tmp_path / "run")
    weights = Path("latest") / "weights.safetensors"
    (run / weights).unlink()
    outcome = session.resume(run, [], quiet=True)
    assert (outcome.env_steps, session.exit_code(outcome)) == (384, 0)
    found, _ = checkpoint_file.load(run / weights)
    expected, _ = checkpoint_file.load(RUN / weights)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # Near, and no more: since then a rule draws once for all its weights, and so draws other numbers.
        np.testing.assert_allclose(found[name], value, rtol=0, atol=0.1, err_msg=name)
    rows, before = ((each / "progress.csv").read_text().splitlines() for each in (run, RUN))
    assert [row.partition(",")[0] for row in rows] == [row.partition(",")[0] for row in before]
