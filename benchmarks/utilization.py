"""The share of the machine's own matrix-product rate that the compiled update reaches.

    python benchmarks/utilization.py [--repetitions 9]

Counts the floating-point operations of the matrix products in forward and backward pass of both networks,
and nothing else, and divides by the time of an update: that of eight epochs less that of four, so that
rollout and preparation cancel out. The machine's own rate is that of one large product of float32 matrices,
on all cores. All three run in turn. Prints medians and the range of the share over repetitions.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from rlweights.backend import configure

configure()

import numpy as np
import tensorflow as tf

from rlweights.learning.loops.device import GraphPrograms
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file
from rlweights.weights.compilation import compiled

ENVS, STEPS, BATCH, SIZE, CALLS = 64, 128, 2_048, 2_048, 8


def iterations(n_epochs: int, rules: bool) -> tuple[Callable[[], object], int]:
    """Returns what runs CALLS iterations, and the operations of the matrix products of one epoch."""
    path = agent_file.find("cartpole_xla")
    changes = [f"environment.num_envs={ENVS}", f"algorithm.n_steps={STEPS}", f"algorithm.batch_size={BATCH}"]
    changes += [f"algorithm.n_epochs={n_epochs}", "budget.total_timesteps=1_000_000_000"]
    agent = agent_file.load(path, [*changes, *([] if rules else ["interventions=[]"])])
    assembly = Assembly(agent, str(path), path.parent)
    programs = GraphPrograms(assembly.learner, assembly.environments.tensorflow, ENVS, agent.seed)
    operations = 0
    for network in (assembly.networks.policy, assembly.networks.value):
        kernels = [v for v in network.trainable_variables if len(v.shape) == 2]
        # Forward, gradient of the weights, gradient of the inputs, which the first layer does not need.
        operations += sum(2 * int(np.prod(k.shape)) * (2 if i == 0 else 3) for i, k in enumerate(kernels))
    return lambda: programs.iterate(CALLS), operations * ENVS * STEPS


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=9)
    repetitions = parser.parse_args().repetitions
    matrix = tf.random.stateless_uniform((SIZE, SIZE), (0, 0))
    product = compiled(lambda x: tf.matmul(x, x), tf.TensorSpec((SIZE, SIZE)))
    for label, rules in (("plain", False), ("clipping and noise", True)):
        (four, operations), (eight, _) = iterations(4, rules), iterations(8, rules)
        runs = (four, eight, lambda: product(matrix).numpy())
        for run in runs:
            run()
        rows = [[timed(run) for run in runs] for _ in range(repetitions)]
        machine = [2 * SIZE**3 / row[2] for row in rows]
        update = [4 * operations * CALLS / (row[1] - row[0]) for row in rows]
        shares = [u / m for u, m in zip(update, machine, strict=True)]
        print(
            f"{label}: update {statistics.median(update) / 1e9:.0f} GFLOP/s, the machine "
            f"{statistics.median(machine) / 1e9:.0f} GFLOP/s, share {statistics.median(shares):.2f} "
            f"({min(shares):.2f} to {max(shares):.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
