"""Speed of whole training loops, against peers, in one run on one machine.

    python benchmarks/speed.py --peers PEERS_PYTHON [--cleanrl CHECKOUT] [--repetitions 5] [--only NAME ...]
    python benchmarks/speed.py --earlier CHECKOUT [--repetitions 5] [--only NAME ...]

PEERS_PYTHON is a Python with stable-baselines3, sbx-rl, rejax and mujoco installed (they need other versions
than ours: give them an environment of their own), and with tyro and tensorboard for a checkout of CleanRL.
Every figure is a process of its own; repetitions are interleaved, so that a machine that drifts, drifts for
all. Prints median, range, and the ratio to the peer named in the heading. Runs nothing else meanwhile, and
neither should you.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EARLIER = "earlier:"
"""Begins the contenders that an earlier version of this repository measures."""

EQUAL = {"env": "CartPole-v1", "n_epochs": 4, "zoo": False, "warm_up": 20_000, "iterations_per_call": 16}
MUJOCO = {"env": "HalfCheetah-v5", "batch_size": 64, "n_epochs": 10, "zoo": False, "warm_up": 4_096}
ZOO = {
    "env": "CartPole-v1",
    "num_envs": 8,
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 20,
    "zoo": True,
    "warm_up": 5_120,
    "iterations_per_call": 20,
}
ONE_PROGRAM = [("rejax", "rejax"), ("rlweights, plain", "tensorflow"), ("rlweights", "tensorflow+rules")]
VECTORISED = [
    ("Stable-Baselines3", "sb3"),
    ("Stable-Baselines3, SubprocVecEnv", "sb3:async"),
    ("rlweights in Gymnasium", "gymnasium"),
    ("rlweights in envpool", "envpool"),
]
SCENES: dict[str, tuple[str, dict[str, Any], list[tuple[str, str]]]] = {
    "64 x 128": (
        "speed",
        EQUAL | {"num_envs": 64, "n_steps": 128, "batch_size": 2048, "env_steps": 2_000_000},
        ONE_PROGRAM,
    ),
    "4 x 128": (
        "speed",
        EQUAL | {"num_envs": 4, "n_steps": 128, "batch_size": 128, "env_steps": 1_000_000},
        ONE_PROGRAM,
    ),
    "rl-zoo settings": (
        "speed",
        ZOO | {"env_steps": 60_000},
        [
            ("Stable-Baselines3", "sb3"),
            ("SBX", "sbx"),
            ("rlweights in Gymnasium", "gymnasium+rules"),
            ("rlweights in Gymnasium, sync", "gymnasium+rules:sync"),
            ("rlweights, one program", "tensorflow+rules"),
        ],
    ),
    "8 x 128 in Gymnasium": (
        "speed",
        EQUAL | {"num_envs": 8, "n_steps": 128, "batch_size": 256, "env_steps": 200_000},
        [
            ("CleanRL", "cleanrl"),
            ("rlweights, plain", "gymnasium"),
            ("rlweights", "gymnasium+rules"),
        ],
    ),
    "HalfCheetah-v5, one environment": (
        "speed",
        MUJOCO | {"num_envs": 1, "n_steps": 2_048, "env_steps": 20_480},
        [("Stable-Baselines3", "sb3"), ("rlweights in Gymnasium", "gymnasium")],
    ),
    "HalfCheetah-v5, 8 environments": (
        "speed",
        MUJOCO | {"num_envs": 8, "n_steps": 256, "env_steps": 20_480},
        VECTORISED,
    ),
    "HalfCheetah-v5, 32 environments": (
        "speed",
        MUJOCO | {"num_envs": 32, "n_steps": 64, "env_steps": 40_960},
        VECTORISED,
    ),
    "process start to solved": (
        "solve",
        ZOO | {"env_steps": 100_000},
        [
            ("Stable-Baselines3", "sb3"),
            ("SBX", "sbx"),
            ("rejax, by its own evaluations", "rejax"),
            ("rlweights in Gymnasium", "gymnasium+rules"),
            ("rlweights, one program", "tensorflow+rules"),
        ],
    ),
}


def _pair(settings: dict[str, Any], vectorization: str) -> tuple[str, dict[str, Any], list[tuple[str, str]]]:
    """A scene of two versions of this repository."""
    contender = f"gymnasium:{vectorization}"
    return "speed", settings, [("the earlier version", f"{EARLIER}{contender}"), ("this one", contender)]


CARTPOLE = EQUAL | {"num_envs": 8, "n_steps": 128, "batch_size": 256, "env_steps": 200_000}
CHEETAH = MUJOCO | {"num_envs": 8, "n_steps": 256, "env_steps": 40_960}
VERSIONS: dict[str, tuple[str, dict[str, Any], list[tuple[str, str]]]] = {
    "CartPole-v1, sync": _pair(CARTPOLE, "sync"),
    "CartPole-v1, its vector version": _pair(CARTPOLE, "vector_entry_point"),
    "HalfCheetah-v5, sync": _pair(CHEETAH, "sync"),
    "HalfCheetah-v5, async": _pair(CHEETAH, "async"),
}


def measure(contender: str, what: str, settings: dict[str, Any], peers: str, earlier: Path) -> float | None:
    """Runs one contender once, in its own process; after a colon stands another vectorization."""
    checkout = earlier if contender.startswith(EARLIER) else HERE.parent
    contender, _, vectorization = contender.removeprefix(EARLIER).partition(":")
    settings = settings | ({"vectorization": vectorization} if vectorization else {})
    ours = contender.startswith(("tensorflow", "gymnasium", "envpool"))
    script, python = ("ours.py", sys.executable) if ours else ("peers.py", peers)
    environment = os.environ | {"BENCHMARK_START": str(time.time()), "TF_CPP_MIN_LOG_LEVEL": "3"}
    if ours:
        environment["PYTHONPATH"] = str(checkout)
    process = subprocess.run(
        [python, str(checkout / "benchmarks" / script), contender, what, json.dumps(settings)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise SystemExit(f"{contender}: {process.stderr[-2000:]}")
    result = json.loads(process.stdout.strip().splitlines()[-1])
    return result["seconds" if what == "solve" else "steps_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    against = parser.add_mutually_exclusive_group(required=True)
    against.add_argument("--peers", default="", help="Python of an environment with the peers")
    against.add_argument("--earlier", type=Path, help="a checkout of an earlier version of this repository")
    parser.add_argument("--cleanrl", help="a checkout of CleanRL; without it, it is left out")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=[*SCENES, *VERSIONS])
    arguments = parser.parse_args()
    scenes = SCENES if arguments.peers else VERSIONS
    earlier = (arguments.earlier or HERE.parent).resolve()
    for scene in arguments.only or scenes:
        if scene not in scenes:
            parser.error(f"--only: {scene!r} is no scene of these; there are: {', '.join(scenes)}")
        what, settings, contenders = scenes[scene]
        settings = settings | {"cleanrl": arguments.cleanrl}
        if arguments.cleanrl is None:
            contenders = [each for each in contenders if each[1] != "cleanrl"]
        figures: dict[str, list[float | None]] = {name: [] for name, _ in contenders}
        for repetition in range(arguments.repetitions):
            for name, contender in contenders:
                given = settings | {"seed": repetition}
                figures[name].append(measure(contender, what, given, arguments.peers, earlier))
        report(scene, what, figures)


def report(scene: str, what: str, figures: dict[str, list[float | None]]) -> None:
    """Prints one scene as a Markdown table."""
    unit = "seconds" if what == "solve" else "env steps/s"
    first = next(iter(figures))
    print(f"\n### {scene}\n\n| | median {unit} | range | ratio to {first}, pair by pair |\n|---|---|---|---|")
    for name, values in figures.items():
        reached = [value for value in values if value is not None]
        if not reached:
            print(f"| {name} | not reached | | |")
            continue
        pairs = [
            (base / value if what == "solve" else value / base)
            for value, base in zip(values, figures[first], strict=True)
            if value and base
        ]
        digits = 1 if what == "solve" else 0
        missed = f" ({len(values) - len(reached)} of {len(values)} not reached)" * (
            len(reached) < len(values)
        )
        print(
            f"| {name} | {statistics.median(reached):,.{digits}f}{missed} "
            f"| {min(reached):,.{digits}f} to {max(reached):,.{digits}f} "
            f"| {statistics.median(pairs):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
