"""Small run folders: trained ones, shared by all tests of a session, and ones that only hold weights."""

import atexit
import contextlib
import functools
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np

from rlweights.running import session
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file
from rlweights.running.recipe import Recipe
from rlweights.running.saving import checkpoint_file, run_folder

EPISODES = 8
"""Episodes of a small run's final evaluation."""

TINY = (
    "budget.total_timesteps=1024",
    f"evaluation.final_episodes={EPISODES}",
    "evaluation.every=512",
    "evaluation.episodes=2",
    "logging.every=256",
    "logging.diagnostics_every=2",
    "logging.histograms_every=4",
)


@functools.cache
def small_run(agent: str = "cartpole", *overrides: str) -> Path:
    """Trains an agent for four iterations, as the command line does; returns the run folder."""
    folder = Path(tempfile.mkdtemp(prefix="rlweights-small-run-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with contextlib.redirect_stdout(io.StringIO()):
        outcome = Recipe(agent, [*TINY, *overrides]).begin(folder, quiet=True)
    assert session.exit_code(outcome) == 0
    (run,) = folder.glob("*/*")
    return run


def untrained_run(folder: Path, data: dict, seed: int = 0) -> Path:
    """Makes a run folder whose weights, normaliser statistics included, are random and far from trivial."""
    agent = agent_file.parse(data, "test")
    assembly = Assembly(agent, "test")
    rng = np.random.default_rng(seed)
    for variable in assembly.networks.variables:
        noise = rng.normal(size=variable.shape)
        positive = variable.path.endswith("variance")
        variable.assign(np.exp(noise) if positive else variable.numpy() + 0.3 * noise)
    run = run_folder.create(folder, "untrained", agent, "test", assembly.files.loaded)
    (run / "latest").mkdir()
    tensors = {v.path: v.numpy() for v in assembly.networks.variables}
    checkpoint_file.save(run / "latest" / "weights.safetensors", tensors, {"env_steps": 0})
    return run
