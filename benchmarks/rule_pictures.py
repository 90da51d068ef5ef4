"""Draws what each rule makes of a kernel, for docs/catalogue.md.

    python benchmarks/rule_pictures.py [NAME ...]

A network of 8 inputs, 16 units and 1 output learns a line for 60 steps with the rule, from the same
weights and data each time. Shown are the entries of the first kernel, in the order that they have without the
rule: without it (grey), with it as evaluations see them (blue), and live, as losses see them, where that is
something else (dots).
"""

import argparse
from pathlib import Path
from typing import Any

from rlweights.backend import configure

configure()

import keras
import numpy as np
import tensorflow as tf

import rlweights as rw
from rlweights.weights import gallery
from rlweights.weights.interventions import RULES

IMAGES = Path(__file__).parents[1] / "docs" / "images"
STRONGER = {
    "pruning": "Pruning(0.7, end=40, every=10)",
    "clipping": "Clipping(0.8)",
    "noise": "Noise(0.05)",
    "adaptive_noise": "AdaptiveNoise(0.01, 0.05)",
    "increment": "Increment(0.005)",
    "shrinkage": 'Shrinkage(0.05, towards="initial")',
    "freezing": "Freezing(until=30)",
    "quantization": "Quantization(bits=3)",
    "clustering": "Clustering(5)",
    "hare_and_tortoise": "HareAndTortoise(20, 0.9)",
    "averaging": "Averaging(0.95)",
    "sharpness_aware": "SharpnessAware(0.5)",
    "recycling": "Recycling(0.6)",
    "continual_backpropagation": "ContinualBackpropagation(0.01, maturity=10)",
}
"""Examples with which something is seen in 60 steps."""


def trained(rules: list[rw.Intervention]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first kernel as evaluations see it, and live."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 8)).astype("float32")
    y = (x @ rng.normal(size=(8, 1))).astype("float32")
    layers = [keras.layers.Dense(16, "relu", name="hidden"), keras.layers.Dense(1, name="head")]
    model = keras.Sequential([keras.Input((8,)), *layers], name="model")
    optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(0.02, momentum=0.9), rules)
    model.compile(optimizer, "mse", run_eagerly=True)
    optimizer.build(model.trainable_variables)
    kernel = model.trainable_variables[0]
    for _ in range(6):
        optimizer.begin_iteration()
        for name in optimizer.feedback:
            if name.startswith("dormant_score/"):
                optimizer.feedback[name] = np.linspace(0.1, 2.0, 16)
            elif name == "policy_distance":
                optimizer.feedback[name] = 0.0
        for i in range(10):
            batch = slice(i * 25, i * 25 + 25)
            with tf.GradientTape() as tape:
                loss = keras.ops.mean(keras.ops.square(model(x[batch]) - y[batch]))
            weights = model.trainable_variables
            gradients: Any = tape.gradient(loss, [v.value for v in weights])  # pyright: ignore[reportCallIssue]
            optimizer.apply(gradients, weights)
        live = kernel.numpy().ravel()
        optimizer.end_iteration()
    with optimizer.evaluation():
        return kernel.numpy().ravel(), live


def draw(name: str) -> Path:
    """Draws one picture and returns its path."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rule = eval(f"rw.{STRONGER.get(name, RULES[name].example)}", {"rw": rw})
    bare, _ = trained([])
    judged, live = trained([rule])
    order, places = np.argsort(bare), np.arange(bare.size)
    figure, axes = pyplot.subplots(figsize=(4.2, 1.5), dpi=80, layout="constrained")
    axes.axhline(0.0, color="0.85", linewidth=0.8)
    axes.plot(places, bare[order], color="0.6", linewidth=1.0)
    if not np.allclose(live, judged, atol=1e-6):
        axes.plot(places, live[order], ".", color="tab:orange", markersize=2.5)
    axes.plot(places, judged[order], color="tab:blue", linewidth=1.2)
    axes.set_xticks([])
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    path = IMAGES / f"rule_{name}.png"
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="rules; none: all of the gallery")
    names = parser.parse_args().names or [row[0] for row in gallery.rows()]
    for name in names:
        print(draw(name))


if __name__ == "__main__":
    main()
