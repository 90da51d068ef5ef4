"""Interventions in an ordinary `model.fit`: clipping, weight noise, a constraint, an average for evaluation.

    python examples/fit_with_interventions.py

To see the metrics in TensorBoard, append `keras.callbacks.TensorBoard("runs/fit")` to the callbacks.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
from keras.optimizers.schedules import PolynomialDecay

import rlweights as rw

# Two interleaved spirals.
rng = np.random.default_rng(0)
keras.utils.set_random_seed(0)
radius = rng.uniform(0.2, 1.0, size=1_000)
label = rng.integers(2, size=1_000)
angle = 5.0 * radius + np.pi * label
x = (radius * [np.cos(angle), np.sin(angle)]).T + 0.02 * rng.normal(size=(1_000, 2))

model = keras.Sequential(
    [
        keras.Input((2,)),
        keras.layers.Dense(64, "relu", name="encoder"),
        keras.layers.Dense(64, "relu", name="middle"),
        keras.layers.Dense(2, name="head"),
    ],
    name="classifier",
)
encoder, head = model.get_layer("encoder"), model.get_layer("head")
model.compile(
    rw.InterventionOptimizer(
        keras.optimizers.AdamW(0.01),
        [
            rw.Noise(PolynomialDecay(0.05, 300, 0.0), on=encoder, placement="during_gradient"),
            rw.Clipping(3.0, on=rw.kind("kernel") & ~rw.layers(head)),
            rw.Projection(keras.constraints.MaxNorm(2.0), on=".*head/kernel"),
            rw.Averaging(0.95),
        ],
    ),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
    jit_compile=True,
)
history = model.fit(
    x, label, validation_split=0.2, epochs=30, batch_size=64, verbose=0, callbacks=[rw.WeightMonitor()]
).history

print(f"validation accuracy of the averaged weights: {history['val_accuracy'][-1]:.3f}")
for name in ("intervention/noise/stddev", "intervention/clipping/saturated", "weights/classifier/head/norm"):
    print(f"{name}: {history[name][0]:.3f} -> {history[name][-1]:.3f}")
assert history["val_accuracy"][-1] > 0.95
assert history["intervention/noise/stddev"][0] > history["intervention/noise/stddev"][-1]
assert np.abs(encoder.kernel.numpy()).max() <= 3.0 / np.sqrt(2.0) + 1e-6
assert np.linalg.norm(head.kernel.numpy(), axis=0).max() <= 2.0 + 1e-5

# The model is saved with its rules and their state.
with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder) / "model.keras")
    loaded = keras.saving.load_model(Path(folder) / "model.keras")
print(loaded.optimizer)
assert repr(loaded.optimizer.interventions[1]) == (
    "Clipping(bound=3.0, on=kind('kernel') & ~path('classifier/head/kernel|classifier/head/bias'))"
)
assert np.array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
