"""Permuted digits in `model.fit`: is a network still able to learn after hundreds of tasks?

    pip install scikit-learn
    python benchmarks/permuted_digits.py --tasks 300 --seeds 10

Each task shows the 1,797 digits of scikit-learn once, in a new order, with their 64 pixels permuted anew. The
online accuracy is measured: that of each batch before the network is updated by it (Kumar et al. 2023,
https://arxiv.org/abs/2308.11958; Elsayed et al. 2024, https://arxiv.org/abs/2407.01704). A network that keeps
its plasticity is as good at the last task as at the first one.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from rlweights.backend import configure

configure()

import keras
import numpy as np

import rlweights as rw
from rlweights.learning.intervals import bootstrap_interval, comparison_interval, difference

Arm = Callable[[], tuple[Any, list[Any], bool]]
"""Makes an inner optimizer and rules, and says whether there are layer norms."""


def adam(rate: float = 1e-3, **arguments: Any) -> Any:
    return keras.optimizers.Adam(rate, **arguments)


ARMS: dict[str, Arm] = {
    "plain": lambda: (adam(), [], False),
    "clipping_1.5": lambda: (adam(), [rw.Clipping(1.5)], False),
    "clipping_3": lambda: (adam(), [rw.Clipping(3.0)], False),
    "l2_init_1e-4": lambda: (adam(), [rw.Shrinkage(1e-4, towards="initial")], False),
    "l2_init_1e-3": lambda: (adam(), [rw.Shrinkage(1e-3, towards="initial")], False),
    "soft_shrink_and_perturb": lambda: (adam(), [rw.Shrinkage(1e-4, towards="fresh")], False),
    "projection": lambda: (adam(), [rw.Projection("norm")], False),
    "recycling": lambda: (adam(), [rw.Recycling(0.025)], False),
    "rate_3e-4": lambda: (adam(3e-4), [], False),
    "adamw_0.1": lambda: (keras.optimizers.AdamW(1e-3, weight_decay=0.1), [], False),
    "layer_norm": lambda: (adam(), [], True),
    "equal_betas": lambda: (adam(beta_1=0.9, beta_2=0.9), [], False),
}


def network(inputs: int, classes: int, layer_norm: bool, seed: int) -> Any:
    """Two hidden layers of 64 units."""
    keras.utils.set_random_seed(seed)
    layers: list[Any] = [keras.Input((inputs,))]
    for i in range(2):
        layers.append(keras.layers.Dense(64, name=f"hidden_{i}"))
        if layer_norm:
            layers.append(keras.layers.LayerNormalization(name=f"norm_{i}"))
        layers.append(keras.layers.Activation("relu", name=f"relu_{i}"))
    return keras.Sequential([*layers, keras.layers.Dense(classes, name="head")], name="classifier")


def online_accuracies(x: np.ndarray, y: np.ndarray, arm: str, tasks: int, seed: int) -> np.ndarray:
    """Trains on permuted tasks, one epoch each.

    Args:
        x: Inputs [B, I].
        y: Labels [B].
        arm: A key of ARMS.
        tasks: How many tasks.
        seed: Of weights, permutations and order: the tasks are the same for all arms.

    Returns:
        Accuracy [tasks] over each task, measured before each update.
    """
    inner, rules, layer_norm = ARMS[arm]()
    model = network(x.shape[1], int(y.max()) + 1, layer_norm, seed)
    model.compile(
        rw.InterventionOptimizer(inner, rules),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True,
    )
    rng = np.random.default_rng(seed)
    monitor = [rw.WeightMonitor(probe=x[:256])] if arm == "recycling" else []  # it measures dormant units
    accuracies = []
    for _ in range(tasks):
        pixels, order = rng.permutation(x.shape[1]), rng.permutation(len(x))
        history = model.fit(
            x[order][:, pixels], y[order], batch_size=32, shuffle=False, verbose=0, callbacks=monitor
        )
        accuracies.append(history.history["accuracy"][0])
    return np.array(accuracies)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The digits of scikit-learn: pixels in [0, 1], and labels."""
    from sklearn.datasets import load_digits  # pyright: ignore[reportMissingImports]

    found = load_digits()
    return (found.data / 16.0).astype(np.float32), found.target.astype(np.int32)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 0 on")
    parser.add_argument("--arms", default=",".join(ARMS), help="some of them, joined by commas")
    options = parser.parse_args(arguments)
    arms = options.arms.split(",")
    for arm in arms:
        if arm not in ARMS:
            parser.error(f"--arms {arm}: must be some of {', '.join(ARMS)}")
    if options.tasks < 1 or options.seeds < 1:
        parser.error("--tasks and --seeds take 1 or more")
    try:
        x, y = digits()
    except ImportError:
        print("error: scikit-learn is not installed; pip install scikit-learn", file=sys.stderr)
        return 2
    print("| arm | first tasks | last third | difference to plain | each seed | seconds |")
    print("|---|---|---|---|---|---|")
    last = -(-options.tasks // 3)
    plain: list[float] = []
    for arm in arms:
        began = time.monotonic()
        found = [online_accuracies(x, y, arm, options.tasks, seed) for seed in range(options.seeds)]
        ends = [float(each[-last:].mean()) for each in found]
        first = np.mean([each[:3].mean() for each in found])
        plain = ends if arm == "plain" else plain
        mean = bootstrap_interval(ends)
        gap = ""
        if plain and arm != "plain":
            between = comparison_interval(ends, plain, difference)
            gap = f"{between.estimate:+.3f} [{between.low:+.3f}, {between.high:+.3f}]"
        each = ", ".join(f"{end:.3f}" for end in ends)
        shown = f"{mean.estimate:.3f} [{mean.low:.3f}, {mean.high:.3f}]"
        seconds = time.monotonic() - began
        print(f"| {arm} | {first:.3f} | {shown} | {gap} | {each} | {seconds:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
