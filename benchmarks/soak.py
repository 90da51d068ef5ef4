"""Kills training runs at random moments, resumes them, and compares them with runs that were not killed.

    python benchmarks/soak.py [--kills 30] [--agents NAME ...] [--seed 0] [--at-once N]

Every agent is first trained once without interruption. Then it is trained again in processes that are sent
SIGKILL at random moments, anywhere from the start of Python to the last write, and resumed each time, until
it ends. After every kill all checkpoints are read. At the end everything that the two runs have written must
be equal: every tensor of the last checkpoint, best and latest weights, `progress.csv`, and every TensorBoard
series except times. Exits with 1 if anything differs.
"""

import argparse
import contextlib
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlweights.backend import configure

configure()

from rlweights.errors import CheckpointError
from rlweights.running.config import agent_file
from rlweights.running.records.event_file import read_scalars
from rlweights.running.saving import checkpoint_file
from rlweights.running.saving.checkpoints import Checkpoints

ROOT = Path(__file__).parents[1]

CLIPPING = {"rule": "clipping", "bound": 2.0, "on": "kind('kernel', 'bias')"}
NOISE = {"rule": "adaptive_noise", "target": 0.01, "initial_stddev": 0.05}
EVERYTHING = {"normalize_observations": True, "normalize_rewards": True}
PPO = {"name": "ppo", "n_steps": 32, "batch_size": 64, "n_epochs": 4}
LINEAR = {"from": 1e-3, "to": 0.0}

AGENTS: dict[str, dict[str, Any]] = {
    "clipped": {
        "environment": {"id": "CartPole-v1", "num_envs": 4, **EVERYTHING},
        "algorithm": PPO | {"learning_rate": LINEAR, "clip_range": {"from": 0.2, "to": 0.0}},
        "interventions": [CLIPPING, NOISE],
    },
    "compiled": {
        "environment": {"id": "CartPole-v1", "num_envs": 4, "backend": "tensorflow", **EVERYTHING},
        "algorithm": PPO | {"learning_rate": LINEAR},
        "interventions": [CLIPPING, NOISE],
    },
    "continuous": {
        "environment": {"id": "Pendulum-v1", "num_envs": 4, **EVERYTHING},
        "algorithm": {"name": "a2c", "n_steps": 16},
        "interventions": [NOISE, {"rule": "averaging"}],
    },
    "continuous_compiled": {
        "environment": {"id": "Pendulum-v1", "num_envs": 4, "backend": "tensorflow"},
        "algorithm": PPO,
        "network": {"activation": "relu"},
        "interventions": [CLIPPING, {"rule": "recycling"}, {"rule": "averaging"}],
    },
    "reinforce": {
        "environment": {"id": "Acrobot-v1", "num_envs": 4, "vectorization_mode": "async"},
        "algorithm": {"name": "reinforce", "n_steps": 64},
        "interventions": [{"rule": "noise", "stddev": 0.02, "placement": "during_gradient"}],
    },
    "drifting": {
        "environment": {"id": "DriftingCartPole-v1", "num_envs": 4, "backend": "tensorflow"},
        "algorithm": {"name": "a2c", "n_steps": 32},
        "interventions": [{"rule": "shrinkage", "rate": 1e-4}, NOISE],
    },
    "long": {  # episodes of 200 steps, where a checkpoint comes every 64 of each environment
        "environment": {"id": "MountainCar-v0", "num_envs": 4, "vectorization_mode": "sync"},
        "algorithm": PPO,
        "checkpoint": {"every": 256},
        "interventions": [CLIPPING],
    },
    "random": {  # every step draws, and episodes end at any moment
        "environment": {"id": "FrozenLake-v1", "num_envs": 4, "kwargs": {"is_slippery": True}},
        "algorithm": PPO,
        "checkpoint": {"every": 384},
        "interventions": [NOISE],
    },
    "asynchronous": {
        "environment": {
            "id": "Pendulum-v1",
            "num_envs": 2,
            "vectorization_mode": "async",
            "wrappers": ["TimeAwareObservation"],
            **EVERYTHING,
        },
        "algorithm": PPO,
        "checkpoint": {"every": 128},
        "interventions": [CLIPPING],
    },
    "wrapped": {
        "environment": {
            "id": "CartPole-v1",
            "num_envs": 4,
            "wrappers": [{"name": "FrameStackObservation", "stack_size": 3}, "FlattenObservation"],
        },
        "algorithm": PPO,
        "interventions": [CLIPPING, NOISE],
    },
    "season": {  # a user's class: two episodes of 3,000 steps each, checkpoints every 512 of them
        "environment": {"id": "support.user_simulators:Season", "num_envs": 2},
        "algorithm": PPO,
        "interventions": [NOISE],
    },
    "cheetah": {
        "environment": {"id": "HalfCheetah-v5", "num_envs": 2, **EVERYTHING},
        "algorithm": PPO | {"n_steps": 128},
        "budget": {"total_timesteps": 6_144},
        "evaluation": {"episodes": 1, "final_episodes": 1},
        "interventions": [CLIPPING, NOISE],
    },
    "atari": {  # images, learned from without XLA; evaluated by drawn actions
        "environment": {
            "id": "ALE/Breakout-v5",
            "num_envs": 2,
            "kwargs": {"frameskip": 1},
            "wrappers": ["AtariPreprocessing", {"name": "FrameStackObservation", "stack_size": 4}],
            "normalize_rewards": True,
        },
        "algorithm": PPO | {"n_epochs": 1},
        "network": {"shared": True, "activation": "relu"},
        "budget": {"total_timesteps": 1_536},
        "checkpoint": {"every": 128},
        "evaluation": {"deterministic": False, "every": 512, "episodes": 1, "final_episodes": 1}
        | {"max_episode_steps": 200},
        "interventions": [CLIPPING],
    },
    "pooled": {
        "environment": {
            "id": "CartPole-v1",
            "num_envs": 4,
            "backend": "envpool",
            "num_threads": 2,
            **EVERYTHING,
        },
        "algorithm": PPO,
        "interventions": [CLIPPING, NOISE],
    },
}
"""What is trained: all backends, all algorithms, rules with states of their own, and episodes of all kinds.

Episodes of `long`, `asynchronous`, `season`, `cheetah`, and most of `atari`, are longer than the distance of
two checkpoints.
"""

NEEDS = {"pooled": "envpool", "atari": "ale_py", "cheetah": "mujoco"}
"""Packages that agents need, and that are no part of the tests' installation."""

COMMON: dict[str, Any] = {
    "network": {"hidden_sizes": [16]},
    "budget": {"total_timesteps": 12_288},
    "evaluation": {"every": 3_072, "episodes": 2, "final_episodes": 4},
    "checkpoint": {"every": 1_024},
    "logging": {"every": 256, "diagnostics_every": 3, "histograms_every": 10},
}


@dataclass
class Report:
    """What became of one agent."""

    name: str
    kills: int = 0
    runs: int = 0
    unreadable: int = 0
    differences: list[str] | None = None
    seconds: float = 0.0

    def row(self) -> str:
        """The report as a row of a table."""
        ended = "identical" if not self.differences else f"differ: {', '.join(self.differences[:3])}"
        counts = f"| {self.kills} | {self.runs} | {self.unreadable} "
        return f"| `{self.name}` {counts}| {ended} | {self.seconds:.0f} |"


def process(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Starts a training process, in a session of its own so that its workers can be killed with it."""
    return subprocess.Popen(
        [sys.executable, "-m", "rlweights.train", *arguments, "--quiet"],
        cwd=ROOT / "tests",  # environments are imported from there
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finished(started: subprocess.Popen[str]) -> None:
    """Waits for a process that nobody kills."""
    output, _ = started.communicate()
    if started.returncode:
        raise SystemExit(f"a training process failed:\n{output}")


def killed(started: subprocess.Popen[str], runs: Path, at: float, waits: bool) -> bool:
    """Kills a process after some seconds, counted from its first row of scalars if it `waits` for that.

    Returns:
        Whether it was still running.
    """
    if waits:
        wait_for_rows(started, runs)
    try:
        started.wait(at)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
    output, _ = started.communicate()
    if started.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"a training process failed:\n{output}")
    return started.returncode != 0


def wait_for_rows(started: subprocess.Popen[str], runs: Path) -> None:
    """Waits until a process records its first row of scalars, or has ended."""
    for _ in range(2):  # the table is opened, and rewritten; seconds later comes the row
        before = table(runs)
        while started.poll() is None and table(runs) == before:
            time.sleep(0.005)


def table(runs: Path) -> tuple[int, int] | None:
    """What changes whenever the only run in a folder records a row."""
    for path in runs.glob("*/*/progress.csv"):
        with contextlib.suppress(FileNotFoundError):  # it is being replaced
            status = path.stat()
            return status.st_ino, status.st_mtime_ns
    return None


def run_of(runs: Path) -> Path | None:
    """The only run in a folder, if it has begun."""
    found = list(runs.glob("*/*/agent.toml"))
    return found[0].parent if found else None


def unreadable(run: Path) -> int:
    """Number of checkpoints and weights files that cannot be read."""
    count = 0
    for path in run.rglob("*.safetensors"):
        try:
            checkpoint_file.load(path)
        except CheckpointError as error:
            print(error)
            count += 1
    return count


def result(run: Path) -> dict[str, Any]:
    """Everything that a run has written and that must not depend on how often it was killed."""
    found: dict[str, Any] = {"progress.csv": (run / "progress.csv").read_bytes()}
    for name in ("best", "latest"):
        found[name] = (run / name / "weights.safetensors").read_bytes()
    newest = Checkpoints(run / "checkpoints").load_latest()
    assert newest is not None, run
    step, tensors, metadata = newest
    found |= {"step": step, "progress": metadata}
    found |= {f"tensor {path}": (t.dtype, t.shape, t.tobytes()) for path, t in tensors.items()}
    return found | {tag: points for tag, points in read_scalars(run).items() if tag[:5] != "time/"}


def soak(name: str, kills: int, folder: Path, seed: int) -> Report:
    """Trains one agent without and with kills, as often as it takes, and compares."""
    report, rng = Report(name, differences=[]), random.Random(f"{seed} {name}")
    started = time.monotonic()
    agent = folder / f"{name}.toml"
    agent.write_text(agent_file.parse(_merged(COMMON, AGENTS[name]), name).to_toml(), encoding="utf-8")
    whole = folder / f"{name}-whole"
    first = process([str(agent), "--runs", str(whole)])
    wait_for_rows(first, whole)
    training = time.monotonic()
    finished(first)
    lead, length = training - started, time.monotonic() - training
    reference = run_of(whole)
    assert reference is not None
    expected = result(reference)
    while report.kills < kills:
        report.runs += 1
        runs = folder / f"{name}-{report.runs}"
        while report.kills < kills:
            run = run_of(runs)
            arguments = ["--resume", str(run)] if run else [str(agent), "--runs", str(runs)]
            early = rng.random() < 0.2  # before training begins, where little can go wrong
            at = rng.uniform(0.0, lead) if early else rng.uniform(0.0, length)
            if not killed(process(arguments), runs, at, waits=not early):
                break
            report.kills += 1
            run = run_of(runs)
            report.unreadable += unreadable(run) if run else 0
        run = run_of(runs)
        if run is None:
            continue
        finished(process(["--resume", str(run)]))
        found = result(run)
        names = sorted(found.keys() | expected.keys())
        assert report.differences is not None
        report.differences += [each for each in names if found.get(each) != expected.get(each)]
        shutil.rmtree(runs)
    report.seconds = time.monotonic() - started
    return report


def trainable() -> list[str]:
    """The agents that can be trained here; says which cannot, and why."""
    missing = {name: each for name, each in NEEDS.items() if importlib.util.find_spec(each) is None}
    for name, package in missing.items():
        print(f"`{name}` is left out: {package} is not installed")
    return [name for name in AGENTS if name not in missing]


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    tables = base.keys() & changes.keys()
    return base | changes | {key: base[key] | changes[key] for key in tables}


def main(arguments: Sequence[str] | None = None) -> int:
    """Soaks the agents, some at once; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="how many, over all agents")
    parser.add_argument("--agents", nargs="+", choices=list(AGENTS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument(
        "--at-once", type=int, default=os.cpu_count(), metavar="N", help="agents, side by side"
    )
    options = parser.parse_args(arguments)
    names = options.agents or trainable()
    share, rest = divmod(options.kills, len(names))
    started = time.monotonic()
    print("| agent | kills | runs | unreadable checkpoints | results | seconds |")
    print("|---|---|---|---|---|---|", flush=True)
    reports = []
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, ThreadPoolExecutor(options.at_once) as pool:
        futures = [
            pool.submit(soak, name, share + (i < rest), Path(folder), options.seed)
            for i, name in enumerate(names)
        ]
        for future in as_completed(futures):
            reports.append(future.result())
            print(reports[-1].row(), flush=True)
    kills, bad = sum(r.kills for r in reports), sum(r.unreadable for r in reports)
    differences = sum(len(r.differences or []) for r in reports)
    print(
        f"{kills} kills, {differences} differences, {bad} unreadable checkpoints "
        f"({time.monotonic() - started:.0f} s)"
    )
    return int(bool(differences or bad))


if __name__ == "__main__":
    raise SystemExit(main())
