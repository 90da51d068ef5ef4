"""What each rule of the catalogue costs in a step, with few weights and with many.

    python benchmarks/rules.py [--weights 1 12 100] [--repetitions 9] [--write]

A step is the gradient of a squared loss of a chain of square layers, without biases, on a batch of 256, and
SGD with momentum; 32 steps are one compiled function. The cost of a rule is how much longer they take with it
than with the wrapper alone, in percent: the median over repetitions, in each of which all variants run in
turn, so that a drift of the machine hits all alike. With few weights a layer has 256 units, with many 64.
With --write the gallery gets the numbers (docs/rules/costs.json): run it when the machine is idle.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlweights.backend import configure

configure()

import keras
import numpy as np
import tensorflow as tf

from rlweights.weights import gallery
from rlweights.weights.compilation import compiled
from rlweights.weights.interventions import RULES, Intervention
from rlweights.weights.optimizer import InterventionOptimizer

STEPS, BATCH = 32, 256
COSTS = Path(__file__).parents[1] / "docs" / "rules" / "costs.json"


def example(name: str) -> Intervention:
    """The rule of the gallery's card, as it costs in the long run."""
    return gallery.Card(name).made()


def steps(count: int, rules: list[Intervention], xla: bool) -> Callable[[], Any]:
    """Compiles the steps of a network of `count` kernels; rules placed by iteration get one of them."""
    keras.utils.set_random_seed(0)
    units = 256 if count <= 12 else 64
    layers = [keras.layers.Dense(units, "relu", use_bias=False, name=f"layer_{i}") for i in range(count)]
    model = keras.Sequential([keras.Input((units,)), *layers], name="model")
    weights = model.trainable_variables
    optimizer = InterventionOptimizer(keras.optimizers.SGD(1e-4, momentum=0.9), rules, metrics_every=STEPS)
    optimizer.build(weights)
    x = tf.constant(np.random.default_rng(0).normal(size=(BATCH, units)), tf.float32)

    def step(i: Any) -> Any:
        with tf.GradientTape() as tape:
            loss: Any = tf.reduce_mean(tf.square(model(x) - 1.0))
        optimizer.apply(tape.gradient(loss, [v.value for v in weights]), weights)
        return i + 1

    def run() -> Any:
        optimizer.begin_iteration()
        tf.while_loop(lambda i: i < STEPS, lambda i: [step(i)], [tf.constant(0)])
        optimizer.end_iteration()
        return weights[0].value[0, 0]

    return compiled(run, xla=xla)


def measured(count: int, xla: bool, repetitions: int, names: list[str]) -> dict[str, float]:
    """Returns the cost of each rule in percent of the step without rules; of those that the network takes."""
    runs = {"": steps(count, [], xla)}
    for name in names:
        try:
            runs[name] = steps(count, [example(name)], xla)
        except ValueError as error:  # recycling needs a layer behind another one
            print(f"{name}: {error}")
    seconds = {name: np.zeros(repetitions) for name in runs}
    for repetition in range(-2, repetitions):
        for name, run in runs.items():
            started = time.perf_counter()
            run().numpy()
            if repetition >= 0:
                seconds[name][repetition] = time.perf_counter() - started
    bare = seconds.pop("")
    return {name: float(np.median(each / bare - 1.0)) * 100.0 for name, each in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", type=int, nargs="+", default=[1, 12, 100])
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES), metavar="NAME")
    parser.add_argument("--write", action="store_true", help="write docs/rules/costs.json")
    arguments = parser.parse_args()
    found: dict[str, list[str]] = {name: [] for name in arguments.rules}
    print(
        f"{'rule':<26}"
        + "".join(f"{f'{n} weights, {m}':>18}" for n in arguments.weights for m in ("XLA", "graph"))
    )
    for count in arguments.weights:
        pair = [measured(count, xla, arguments.repetitions, arguments.rules) for xla in (True, False)]
        for name, cells in found.items():
            cells += [f"{each[name]:+.0f} %" if name in each else "-" for each in pair]
    for name, cells in found.items():
        print(f"{name:<26}" + "".join(f"{cell:>18}" for cell in cells))
    if arguments.write:
        where = ", ".join(map(str, arguments.weights))
        words = {
            name: f"{', '.join(each[::2])} of a step of {where} kernels; without XLA {', '.join(each[1::2])}"
            for name, each in found.items()
        }
        COSTS.parent.mkdir(exist_ok=True)
        COSTS.write_text(json.dumps(words, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
