"""What a backend of Keras makes of the rules: a process of its own, `python -m support.on_backend FOLDER`."""

import re
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

import rlweights as rw
from weights.interventions.test_all_rules import EXAMPLES

X, Y = (np.random.default_rng(0).normal(size=(24, k)).astype("float32") for k in (4, 2))


def pulled(weight, step, feedback):
    return -ops.cast(feedback["rate"], weight.dtype) * weight


SETS: dict[str, Any] = {
    "none": lambda: [],
    "kept": lambda: [
        rw.Increment(keras.optimizers.schedules.PolynomialDecay(0.01, 9, 0.001)),
        rw.Increment(pulled, feedback={"rate": 0.1}, name="pulled"),
        rw.Shrinkage(0.05, "initial"),
        rw.Shrinkage(0.01, "fresh", perturb=0.1, name="fresh"),
        rw.Noise(0.02, "factorised", placement="after_step"),
        rw.Projection(keras.constraints.MaxNorm(1.0)),
        rw.Pruning(0.3, end=10, every=3, initial=0.2, regrowth=0.3),
        rw.Clipping(1.0, per_layer=True),
        rw.Averaging(0.9),
    ],
    "undone": lambda: [
        rw.Noise(0.05),
        rw.AdaptiveNoise(0.01, 0.05),
        rw.Projection("unit_norm", placement="during_iteration"),
        rw.Clipping(0.7, unit="init", name="reach"),
    ],
    "between": lambda: [
        rw.Recycling(0.6),
        rw.Shrinkage(0.4, "zero", perturb=0.2, placement="after_iteration"),
        rw.Recycling(0.9, every=2, placement="after_step", name="often"),
        rw.Projection("norm"),
    ],
    "slow": lambda: [
        rw.ContinualBackpropagation(0.047, maturity=2, every=2),
        rw.Orthogonal(on="second/kernel"),
        rw.HareAndTortoise(4, 0.8, on="head/.*"),
        rw.Lookahead(3, 0.5, on="first/.*"),
        rw.SpectralNorm(2.0, on="first/kernel"),
        rw.Freezing(5, on="second/bias"),
    ],
    "moved": lambda: [
        rw.DropConnect(0.2),
        rw.SharpnessAware(0.05),
        rw.Quantization(4, on="first/kernel"),
        rw.Clustering(3, on="second/kernel"),
        rw.Binarization(on="head/kernel"),
    ],
    "free": lambda: [rw.ScheduleFree()],
}
"""Every rule, and all four placements."""


IN_THE_BATTERY = ("clipping", "noise", "adaptive_noise", "shrinkage", "recycling", "pruning", "averaging")
"""One rule of each kind: JAX compiles each operation of purity and eager checks by itself, seconds a rule."""


def network(chosen: list[Any], **kwargs: Any) -> Any:
    def dense(units: int, name: str, seed: int) -> Any:
        start = np.random.default_rng(seed).uniform(-0.7, 0.7, (8 if seed else 4, units)).astype("float32")
        fixed = keras.initializers.Constant(start)  # pyright: ignore[reportArgumentType]
        return keras.layers.Dense(units, "relu" if units > 2 else None, kernel_initializer=fixed, name=name)

    layers = [dense(8, "first", 0), dense(8, "second", 1), dense(2, "head", 2)]
    model = keras.Sequential([keras.Input((4,)), *layers], name="net")
    inner = keras.optimizers.SGD(0.1, momentum=0.9, name="sgd")
    optimizer: Any = (
        rw.InterventionOptimizer(inner, chosen, name="rules", **kwargs) if chosen is not None else inner
    )
    model.compile(optimizer, "mse")
    return model


def fit(model: Any, epochs: int = 3, **kwargs: Any) -> Any:
    settings = {"batch_size": 6, "shuffle": False, "verbose": 0, "validation_data": (X, Y)} | kwargs
    callbacks = [rw.WeightMonitor(X), *settings.pop("callbacks", [])]
    return model.fit(X, Y, epochs=epochs, callbacks=callbacks, **settings).history


def values(model: Any) -> dict[str, np.ndarray]:
    found = [*model.trainable_variables, *model.optimizer.variables]
    return {v.path: np.array(ops.convert_to_numpy(v)) for v in found}


def trained(name: str) -> dict[str, np.ndarray]:
    """Weights, state and history of a set of rules, by "<set>/<path>"."""
    model = network(SETS[name](), metrics_every=2 if name == "kept" else 1)
    history = fit(model)
    found = values(model) | {f"history/{k}": np.array(v) for k, v in history.items()}
    return {f"{name}:{key}": value for key, value in found.items()}


def with_nan(choice: str) -> dict[str, np.ndarray]:
    """What a batch with a NaN leaves behind, skipped or the end of training."""
    model = network([rw.Clipping(1.0)], on_nonfinite=choice)
    x = X.copy()
    x[7] = np.nan
    stopped = 0
    try:
        settings: dict[str, Any] = {"batch_size": 6, "shuffle": False, "verbose": 0}
        model.fit(x, Y, callbacks=[rw.WeightMonitor()], **settings)
    except rw.TrainingStopped:
        stopped = 1
    found = {v.path: np.array(ops.convert_to_numpy(v)) for v in model.trainable_variables}
    found |= {"stopped": np.array(stopped), "skipped": values(model)["rules/skipped_updates"]}
    return {f"{choice}:{key}": value for key, value in found.items()}


def everything() -> dict[str, np.ndarray]:
    found = with_nan("skip") | with_nan("raise")
    for name in SETS:
        found |= trained(name)
    return found


def battery() -> None:
    for name in IN_THE_BATTERY:
        make, feedback = EXAMPLES[name][0]
        rw.testing.check(make(), feedback)


def page() -> None:
    """The block of the page that says how it is done."""
    text = (Path(__file__).parents[2] / "docs" / "keras.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text.partition("## JAX and PyTorch")[2], re.DOTALL)
    exec(block, {})


def main(folder: Path) -> None:
    np.savez(folder / f"{keras.backend.backend()}.npz", **everything())  # pyright: ignore[reportArgumentType]
    page()
    assert "tensorflow" not in sys.modules, "ring 1 needs no TensorFlow"
    battery()  # Keras itself looks for TensorFlow when it saves a model


if __name__ == "__main__":
    main(Path(sys.argv[1]))
