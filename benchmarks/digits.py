"""The catalogue in `model.fit`, on digits: what sparsity, bits, averages and flat minima cost or bring.

    pip install scikit-learn
    python benchmarks/digits.py [--seeds 10] [--arms NAME,NAME] [--epochs 40]

Two hidden layers of 64 units learn 1,000 of scikit-learn's 1,797 digits (batches of 50, Adam 3e-3,
or SGD 0.05 with momentum 0.9), and are judged on the other 797 by the weights that evaluations see. Beside an
arm stands what the same does to a network that was trained without it (after the fact), and the difference to
the arm "plain" or "plain_sgd" of the same seeds.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import permuted_digits

from rlweights.backend import configure

configure()

import keras
import numpy as np

import rlweights as rw
from rlweights.learning.intervals import bootstrap_interval, comparison_interval, difference

STEPS = 20
"""Steps of an epoch."""


def adam(**arguments: Any) -> Any:
    return keras.optimizers.Adam(3e-3, **arguments)


def sgd(rate: float = 0.05, momentum: float = 0.9) -> Any:
    return keras.optimizers.SGD(rate, momentum=momentum)


def pruning(sparsity: float, scope: str = "layer", **arguments: Any) -> Any:
    return rw.Pruning(sparsity, begin=100, end=500, every=50, scope=scope, **arguments)


Arm = tuple[Callable[[], Any], Callable[[], list[Any]], float]
"""Makes an inner optimizer, makes rules, and the rate of dropout."""

ARMS: dict[str, Arm] = {"plain": (adam, list, 0.0), "plain_sgd": (sgd, list, 0.0)}
for percent in (50, 80, 90, 95, 98):
    ARMS[f"pruned_{percent}"] = (adam, lambda p=percent: [pruning(p / 100)], 0.0)
    ARMS[f"pruned_{percent}_global"] = (adam, lambda p=percent: [pruning(p / 100, "global")], 0.0)
ARMS["rigl_90"] = (adam, lambda: [pruning(0.9, initial=0.9, regrowth=0.3)], 0.0)
for bits in (8, 4, 3, 2):
    ARMS[f"bits_{bits}"] = (adam, lambda b=bits: [rw.Quantization(b)], 0.0)
ARMS |= {
    "signs": (adam, lambda: [rw.Clipping(1.0, unit="absolute"), rw.Binarization()], 0.0),
    "clusters_4": (adam, lambda: [rw.Clustering(4)], 0.0),
    "drop_connect_0.2": (adam, lambda: [rw.DropConnect(0.2)], 0.0),
    "dropout_0.2": (adam, list, 0.2),
    "averaging_0.99": (adam, lambda: [rw.Averaging(0.99)], 0.0),
    "swa": (adam, lambda: [rw.Averaging(kind="uniform", begin=20 * STEPS, every=STEPS)], 0.0),
    "schedule_free_adam": (lambda: adam(beta_1=0.0), lambda: [rw.ScheduleFree()], 0.0),
    "momentum_sam_0.1": (sgd, lambda: [rw.SharpnessAware(0.1)], 0.0),
    "lookahead": (sgd, lambda: [rw.Lookahead()], 0.0),
    "schedule_free_sgd": (lambda: sgd(0.5, 0.0), lambda: [rw.ScheduleFree()], 0.0),
    "spectral_norm_4": (adam, lambda: [rw.SpectralNorm(4.0, only_above=True)], 0.0),
    "clipping_3": (adam, lambda: [rw.Clipping(3.0)], 0.0),
}


def trained(arm: Arm, data: tuple[Any, Any], epochs: int, seed: int) -> Any:
    """Trains a network and returns it, stripped."""
    inner, rules, dropout = arm
    keras.utils.set_random_seed(seed)
    layers: list[Any] = [keras.Input((data[0].shape[1],))]
    for i in range(2):
        layers.append(keras.layers.Dense(64, "relu", name=f"hidden_{i}"))
        layers += [keras.layers.Dropout(dropout)] if dropout else []
    model = keras.Sequential([*layers, keras.layers.Dense(10, name="head")], name="classifier")
    model.compile(
        rw.InterventionOptimizer(inner(), rules(), metrics_every=STEPS),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=STEPS,
        jit_compile=False,  # compiling takes longer than training here
    )
    batch = len(data[0]) // STEPS
    model.fit(*data, epochs=epochs, batch_size=batch, verbose=0, callbacks=[rw.WeightMonitor()])
    return rw.strip(model)


def judged(model: Any, data: tuple[Any, Any]) -> float:
    """Returns the accuracy."""
    return float(np.mean(np.argmax(model(data[0]), axis=-1) == data[1]))


def after_the_fact(name: str, model: Any, data: tuple[Any, Any]) -> float | None:
    """Returns the accuracy of a plain network on which an arm's rule acts once, without training."""
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    if name.startswith("pruned"):
        scope = "global" if name.endswith("global") else "layer"
        rules: list[Any] = [rw.Pruning(float(name.split("_")[1]) / 100, end=0, scope=scope)]
    elif name.startswith(("bits", "signs", "clusters")):
        rules = [rule for rule in ARMS[name][1]() if rule.name != "clipping"]
    else:
        return None
    own = [v.numpy() for v in kernels]
    optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(0.0), rules)
    optimizer.build(model.trainable_variables)
    if name.startswith("clusters"):
        optimizer.begin_iteration()  # one step of k-means from the even centroids
    optimizer.apply([np.zeros(v.shape, "float32") for v in model.trainable_variables])
    with optimizer.evaluation():
        accuracy = judged(model, data)
    optimizer.end_iteration()
    for variable, value in zip(kernels, own, strict=True):
        variable.assign(value)
    return accuracy


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The digits of scikit-learn, shuffled: pixels in [0, 1], and labels."""
    x, y = permuted_digits.digits()
    order = np.random.default_rng(0).permutation(len(y))  # writers come one after the other
    return x[order], y[order]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 0 on")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--arms", default=",".join(ARMS), help="some of them, joined by commas")
    options = parser.parse_args(arguments)
    chosen = options.arms.split(",")
    for arm in chosen:
        if arm not in ARMS:
            parser.error(f"--arms {arm}: must be some of {', '.join(ARMS)}")
    try:
        x, y = digits()
    except ImportError:
        print("error: scikit-learn is not installed; pip install scikit-learn", file=sys.stderr)
        return 2
    half = STEPS * (min(1_000, len(x) // 2) // STEPS)
    train, test = (x[:half], y[:half]), (x[half:], y[half:])
    plain = [trained(ARMS["plain"], train, options.epochs, seed) for seed in range(options.seeds)]
    bare: dict[str, list[float]] = {"plain": [judged(model, test) for model in plain]}
    print("| arm | accuracy | difference to plain | after the fact | zeros | each seed | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in dict.fromkeys(["plain", "plain_sgd", *chosen]):
        began = time.monotonic()
        make = range(options.seeds)
        models = plain if name == "plain" else [trained(ARMS[name], train, options.epochs, s) for s in make]
        found = bare.setdefault(name, [judged(model, test) for model in models])
        base = (
            "plain_sgd"
            if ARMS[name][0] is not adam and "plain_sgd" in bare and "adam" not in name
            else "plain"
        )
        gap = ""
        if name not in ("plain", "plain_sgd") and options.seeds > 1:
            between = comparison_interval(found, bare[base], difference)
            gap = f"{between.estimate:+.3f} [{between.low:+.3f}, {between.high:+.3f}]"
        after = [after_the_fact(name, model, test) for model in plain]
        late = "" if after[0] is None else f"{np.mean([each for each in after if each is not None]):.3f}"
        zeros = np.mean(
            [np.mean(v.numpy() == 0) for v in models[0].trainable_variables if v.name == "kernel"]
        )
        shown = f"{np.mean(found):.3f}"
        if options.seeds > 1:
            mean = bootstrap_interval(found)
            shown = f"{mean.estimate:.3f} [{mean.low:.3f}, {mean.high:.3f}]"
        each = ", ".join(f"{value:.3f}" for value in found)
        seconds = time.monotonic() - began
        print(f"| {name} | {shown} | {gap} | {late} | {zeros:.3f} | {each} | {seconds:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
