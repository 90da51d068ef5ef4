"""Checksums of what training computes: equal before and after a change that must change nothing.

Every agent is trained from the command line for 8,192 steps with seed 0 on one thread, and one of each
backend is killed and resumed. A checksum covers every tensor of the newest checkpoint: weights, optimizer,
rules, statistics.

    python benchmarks/checksums.py > before.txt
    python benchmarks/checksums.py --tree OTHER_CHECKOUT > after.txt
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.numpy import load_file

STEPS = 8_192
LIMIT = 180.0
"""Seconds after which an agent is given up."""

KILLED = ("cartpole", "cartpole_xla")
"""Agents that are also killed and resumed, one of each backend."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("agents", nargs="*", help="which agents; all shipped ones if none is named")
    parser.add_argument("--tree", type=Path, default=Path(__file__).parent.parent, help="the checkout to run")
    options = parser.parse_args()
    tree = options.tree.resolve()
    agents = options.agents or sorted(path.stem for path in (tree / "agents").glob("*.toml"))
    with tempfile.TemporaryDirectory() as folder:
        for agent in agents:
            print(f"{agent:24} {trained(tree, agent, Path(folder) / agent)}", flush=True)
        for agent in [each for each in KILLED if each in agents]:
            name = f"{agent}, killed"
            print(f"{name:24} {killed(tree, agent, Path(folder) / name)}", flush=True)


def trained(tree: Path, agent: str, runs: Path, device: str = "cpu") -> str:
    """Trains an agent and returns its checksum."""
    try:
        _train(tree, [agent, *_settings(runs)], device).wait(LIMIT)
    except subprocess.TimeoutExpired as error:
        return f"not within {error.timeout:.0f} s"
    return checksum(runs)


def killed(tree: Path, agent: str, runs: Path, device: str = "cpu") -> str:
    """Trains an agent, kills it at its first checkpoint, resumes it, and returns its checksum."""
    process = _train(tree, [agent, *_settings(runs), "--set", "checkpoint.every=2048"], device)
    while process.poll() is None and not list(runs.glob("*/*/checkpoints/step-*.safetensors")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (run,) = runs.glob("*/*")
    _train(tree, ["--resume", str(run), "--quiet"], device).wait(LIMIT)
    return checksum(runs)


def checksum(runs: Path) -> str:
    """The checksum of every tensor of the newest checkpoint of the one run in a folder."""
    newest = max(runs.glob("*/*/checkpoints/step-*.safetensors"))
    total = hashlib.sha256()
    for name, tensor in sorted(load_file(newest).items()):
        if name.endswith("#2"):  # version 0.1 held weights with offsets a second time
            continue
        total.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + tensor.tobytes())
    return f"{total.hexdigest()[:16]} {newest.stem}"


def _settings(runs: Path) -> list[str]:
    quick = ("evaluation.final_episodes=2", "evaluation.film_frames=0", "evaluation.every=0")
    return [
        *("-n", str(STEPS), "--seed", "0", "--quiet", "--runs", str(runs)),
        *(word for each in quick for word in ("--set", each)),
    ]


def _train(tree: Path, words: list[str], device: str) -> "subprocess.Popen[bytes]":
    threads = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    # Not by --device: older checkouts have none.
    place = {"CUDA_VISIBLE_DEVICES": device.partition(":")[2] or ("0" if device != "cpu" else "-1")}
    return subprocess.Popen(
        [sys.executable, "-m", "rlweights.train", *words],
        cwd=tree,
        env={**os.environ, **threads, **place, "PYTHONPATH": str(tree)},
        stdout=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    main()
