"""What each rule costs in a step of training.

    python benchmarks/interventions.py [--repetitions 11] [--cpu]

A step is one minibatch of 2,048 samples through a policy and a value network, the gradient of a squared loss,
and Adam. As in the trainer, the 16 steps of an iteration are one compiled function, which begins and ends the
iteration, and metrics are measured once an iteration. The cost of a rule is how much longer the steps take
with it than with the bare optimizer, in percent of the bare step; a rule runs at its own placement.

All variants run in turn, repetition by repetition, so that a drift of the machine hits all alike: each
repetition compares a rule with the bare step of the same repetition. Printed are the median and the range
over repetitions, after two runs of each to warm up. With --cpu it is the processor time of all threads that
counts and not the time on the clock: for a machine that has other things to do.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from typing import Any

from rlweights.backend import configure

configure()

import keras
import numpy as np
import tensorflow as tf

from rlweights.weights.compilation import compiled
from rlweights.weights.interventions import (
    RULES,
    Intervention,
)
from rlweights.weights.optimizer import InterventionOptimizer

STEPS, BATCH, OBSERVATION, ACTIONS = 16, 2_048, 8, 4
HIDDEN_SIZES = ((64, 64), (256, 256))

ARGUMENTS: dict[str, dict[str, Any]] = {
    "projection": {"constraint": "max_norm"},
    "noise": {"stddev": 0.01},
    "increment": {"amount": 1e-6},
    "pruning": {"sparsity": 0.9, "end": 1_000_000},
}
"""What a rule cannot do without; all others run with their defaults."""


def variants() -> dict[str, list[Intervention]]:
    """The rules of each variant by its label: none, each registered one, and two together."""
    made = {name: rule(**ARGUMENTS.get(name, {})) for name, rule in RULES.items()}
    single = {f"{name} ({rule.placement})": [rule] for name, rule in made.items()}
    both = [RULES["clipping"](), RULES["adaptive_noise"]()]
    return {"no rules": [], **single, "clipping and adaptive_noise": both}


def networks(hidden_sizes: tuple[int, ...]) -> list[Any]:
    """A policy and a value network."""

    def network(name, outputs):
        hidden = [keras.layers.Dense(n, "tanh", name=f"hidden_{i}") for i, n in enumerate(hidden_sizes)]
        layers = [keras.Input((OBSERVATION,)), *hidden, keras.layers.Dense(outputs, name="head")]
        return keras.Sequential(layers, name=name)

    return [network("policy", ACTIONS), network("value", 1)]


def iteration(hidden_sizes: tuple[int, ...], optimizer: Any, xla: bool) -> Callable[[], Any]:
    """Compiles one iteration of 16 steps."""
    keras.utils.set_random_seed(0)
    both = networks(hidden_sizes)
    weights = [v for network in both for v in network.trainable_variables]
    optimizer.build(weights)
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(BATCH, OBSERVATION)), tf.float32)
    targets = [tf.constant(rng.normal(size=(BATCH, n)), tf.float32) for n in (ACTIONS, 1)]

    def step(i):
        with tf.GradientTape() as tape:
            losses = [tf.reduce_mean((f(x) - y) ** 2) for f, y in zip(both, targets, strict=True)]
            loss = tf.add_n(losses)
        optimizer.apply(tape.gradient(loss, weights), weights)
        return i + 1

    def run():
        if isinstance(optimizer, InterventionOptimizer):
            optimizer.begin_iteration()
        tf.while_loop(lambda i: i < STEPS, lambda i: [step(i)], [tf.constant(0)])
        if isinstance(optimizer, InterventionOptimizer):
            optimizer.end_iteration()
        return weights[0].value[0, 0]

    return compiled(run, xla=xla)


def measure(
    hidden_sizes: tuple[int, ...], xla: bool, repetitions: int, clock: Callable[[], float]
) -> tuple[float, dict[str, np.ndarray]]:
    """Returns the median time of a bare step in seconds, and the cost of each variant [repetitions]."""

    def adam():
        return keras.optimizers.Adam(1e-3)

    runs = {"bare": iteration(hidden_sizes, adam(), xla)}
    for label, rules in variants().items():
        wrapped = InterventionOptimizer(adam(), rules, metrics_every=STEPS)
        runs[label] = iteration(hidden_sizes, wrapped, xla)
    seconds = {label: np.zeros(repetitions) for label in runs}
    for repetition in range(-2, repetitions):
        for label, run in runs.items():
            started = clock()
            run().numpy()
            if repetition >= 0:
                seconds[label][repetition] = clock() - started
    bare = seconds.pop("bare")
    return float(np.median(bare)) / STEPS, {label: each / bare - 1.0 for label, each in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=11)
    parser.add_argument("--cpu", action="store_true")
    given = parser.parse_args()
    clock = time.process_time if given.cpu else time.perf_counter
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores, TensorFlow {tf.__version__}, {clock.__name__}")
    columns = [(sizes, xla) for sizes in HIDDEN_SIZES for xla in (True, False)]
    results = [measure(sizes, xla, given.repetitions, clock) for sizes, xla in columns]
    titles = [f"{'x'.join(map(str, sizes))}, {'XLA' if xla else 'graph'}" for sizes, xla in columns]
    print(f"\n| | {' | '.join(titles)} |\n|---{'|---' * len(titles)}|")
    print(f"| bare step | {' | '.join(f'{bare * 1e6:,.0f} us' for bare, _ in results)} |")
    for label in variants():
        costs = [cost[label] for _, cost in results]
        cells = [f"{np.median(c):+.1%} [{c.min():+.1%}, {c.max():+.1%}]" for c in costs]
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
