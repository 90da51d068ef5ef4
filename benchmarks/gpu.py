"""What a GPU must do, in about ten minutes: one table of checks, one of speeds.

    python benchmarks/gpu.py [--device gpu:0] [--steps 4_000_000]

Where TensorFlow finds no GPU it says so in one line and ends. With `--device cpu` the same programme runs on
the processor, to try it out: the checks compare the processor with itself then.

* every variable lies on the GPU, where compiled programs find it
* draws: uniform numbers and permutations equal those of the processor, normal ones within 4 units in the
  last place
* one update from the same rollout equals the processor's within 1e-5, without TF32
* the same seed gives the same bits twice, and when it is killed and resumed
* two trainings share the GPU
* environment steps a second of the whole-loop program, with and without rules
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parent))
import checksums

from rlweights.backend import configure, device
from rlweights.errors import BackendError

TREE = Path(__file__).parent.parent
SIZES = (64, 512, 2_048, 16_384)
"""Numbers of environments."""

RULES = {"plain": ["interventions=[]"], "clipping and noise": []}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="gpu", help="gpu, gpu:1, or cpu to try the programme")
    parser.add_argument("--steps", type=int, default=4_000_000, help="of each measurement of speed")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="numbers of environments")
    options = parser.parse_args(arguments)
    try:
        configure(options.device)
    except BackendError as error:
        print(f"nothing to do: {error}")
        return 0
    print(f"device: {device()}\n\n| check | holds | measured |\n|---|---|---|")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, check in CHECKS.items():
            try:
                holds, measured = check(options.device, Path(folder) / name.replace(" ", "_"))
            except Exception as error:  # the table is worth more than the first failure
                holds, measured = False, f"{type(error).__name__}: {error}".splitlines()[0]
            failed += not holds
            print(f"| {name} | {'yes' if holds else 'NO'} | {measured} |", flush=True)
        if options.sizes:
            print(
                f"\n| environments x 128 steps | {' | '.join(RULES)} | cost of the rules |\n|---|---|---|---|"
            )
        for size in options.sizes:
            rates = [
                speed(options.device, Path(folder) / f"{name} {size}", size, options.steps, changes)
                for name, changes in RULES.items()
            ]
            cells = [f"{rate:,.0f} steps/s" for rate in rates]
            print(f"| {size:,} | {' | '.join(cells)} | {1 - rates[1] / rates[0]:.0%} |", flush=True)
    return 1 if failed else 0


# Checks: each returns whether it holds, and what was measured ---------------------------------------


def places(chosen: str, folder: Path) -> tuple[bool, str]:
    from rlweights.learning.loops.device import GraphPrograms
    from rlweights.running.building.assembly import Assembly
    from rlweights.running.config import agent_file

    wanted, elsewhere, count = chosen[:3].upper(), set(), 0
    for name in ("cartpole", "cartpole_xla", "chain"):
        whole = Assembly(agent_file.load(agent_file.find(name)), name)
        variables = list(whole.learner.variables)
        if whole.environments.tensorflow is not None:
            size = whole.agent.environment.num_envs
            variables += GraphPrograms(whole.learner, whole.environments.tensorflow, size, 0).variables
        count += len(variables)
        elsewhere |= {f"{name}: {v.path}" for v in variables if f":{wanted}:" not in v.value.device}
    return not elsewhere, f"{count} variables; elsewhere: {', '.join(sorted(elsewhere)[:3]) or 'none'}"


def draws(chosen: str, folder: Path) -> tuple[bool, str]:
    import tensorflow as tf

    from rlweights.learning.shuffling import permutation
    from rlweights.weights import prng

    def drawn(where: str) -> list[np.ndarray]:
        with tf.device(where):
            uniform = prng.uniform([100_000], 1, "stream", 2)
            return [
                each.numpy()
                for each in (uniform, permutation(1_000, 1, "x", 2), prng.normal([100_000], 1, "y", 2))
            ]

    here, there = drawn("/CPU:0"), drawn(f"/{chosen[:3].upper()}:0")
    units = np.abs(here[2] - there[2]) / np.spacing(np.maximum(np.abs(here[2]), 1e-3).astype(np.float32))
    equal = [bool((a == b).all()) for a, b in zip(here[:2], there[:2], strict=True)]
    text = f"uniform equal: {equal[0]}, permutation equal: {equal[1]}, normal: {units.max():.1f} units apart"
    return all(equal) and float(units.max()) <= 4, text


def update(chosen: str, folder: Path) -> tuple[bool, str]:
    one_update = ["algorithm.n_epochs=1", "budget.total_timesteps=256"]
    found = []
    for where in ("cpu", chosen):
        trained(where, "cartpole", folder / where, one_update, NVIDIA_TF32_OVERRIDE="0")
        found.append(load_file(newest(folder / where)))
    # The first rollout is acted by the processor in either case, so both learn from the same one.
    worst = max(
        float(np.abs(found[0][name] - found[1][name]).max() / max(np.abs(found[0][name]).max(), 1e-3))
        for name in found[0]
        if name.startswith(("policy/", "value/"))
    )
    return worst <= 1e-5, f"{worst:.1e} relative"


def same_bits(chosen: str, folder: Path) -> tuple[bool, str]:
    sums = [checksums.trained(TREE, "cartpole_xla", folder / each, chosen) for each in ("one", "two")]
    sums.append(checksums.killed(TREE, "cartpole_xla", folder / "killed", chosen))
    return len(set(sums)) == 1, ", ".join(sums)


def shared(chosen: str, folder: Path) -> tuple[bool, str]:
    both = [
        subprocess.Popen(
            command(chosen, "cartpole_xla", folder / each, []), cwd=TREE, stdout=subprocess.DEVNULL
        )
        for each in ("one", "two")
    ]
    codes = [each.wait() for each in both]
    return codes == [0, 0], f"exit codes {codes[0]} and {codes[1]}"


CHECKS: dict[str, Callable[[str, Path], tuple[bool, str]]] = {
    "variables lie on the device": places,
    "draws are the processor's": draws,
    "one update is the processor's": update,
    "same seed, same bits, killed too": same_bits,
    "two trainings at once": shared,
}


# Trainings ------------------------------------------------------------------------------------------


def speed(chosen: str, folder: Path, num_envs: int, steps: int, changes: list[str]) -> float:
    """Environment steps per second of the whole-loop program, compilation left out."""
    from rlweights.running.records.event_file import read_scalars

    rollout = num_envs * 128
    settings = [
        *(
            f"environment.num_envs={num_envs}",
            "algorithm.n_steps=128",
            f"algorithm.batch_size={rollout // 4}",
        ),
        *("algorithm.n_epochs=4", f"budget.total_timesteps={max(steps, 8 * rollout)}"),
        *(f"logging.every={rollout}", "logging.diagnostics_every=0", "logging.histograms_every=0"),
    ]
    trained(chosen, "cartpole_xla", folder, [*settings, *changes])
    (run,) = folder.glob("*/*")
    return statistics.median(rate for _, rate in read_scalars(run)["time/fps"])


def trained(chosen: str, agent: str, runs: Path, changes: list[str], **environment: str) -> None:
    """Trains an agent in a process of its own."""
    subprocess.run(
        command(chosen, agent, runs, changes),
        cwd=TREE,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def command(chosen: str, agent: str, runs: Path, changes: list[str]) -> list[str]:
    settings = ["evaluation.every=0", "evaluation.final_episodes=0", "checkpoint.every=0", *changes]
    return [
        *(sys.executable, "-m", "rlweights.train", agent, "--device", chosen, "--quiet", "--runs", str(runs)),
        *(word for each in settings for word in ("--set", each)),
    ]


def newest(runs: Path) -> Path:
    return max(runs.glob("*/*/checkpoints/step-*.safetensors"))


if __name__ == "__main__":
    raise SystemExit(main())
