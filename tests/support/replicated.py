"""A process of its own for `tf.distribute`: logical devices can be made only before TensorFlow begins."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import rlweights as rw
from rlweights.testing import check_replicas
from rlweights.weights.keras_internals import trainable_variables
from weights.interventions.test_all_rules import EXAMPLES

DEVICES = 3
X, Y = (np.random.default_rng(0).normal(size=(24, k)).astype("float32") for k in (3, 2))


def rules() -> list[rw.Intervention]:
    return [
        rw.Increment(keras.optimizers.schedules.PolynomialDecay(0.01, 5, 0.001)),
        rw.Shrinkage(0.01),
        rw.Projection("norm"),
        rw.Noise(0.05, "factorised"),
        rw.Noise(0.02, placement="after_step", name="kept"),
        rw.AdaptiveNoise(0.01, 0.05),
        rw.Recycling(0.6),
        rw.Clipping(1.0),
        rw.Averaging(0.9),
    ]


def mirrored(count: int) -> tf.distribute.Strategy:
    # Collective operations wait for each other, and would need a thread for each device.
    one_after_the_other = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)], one_after_the_other)


def compiled(chosen: list[rw.Intervention], **kwargs) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, "relu", name="hidden"), keras.layers.Dense(2, name="head")]
    model = keras.Sequential([keras.Input((3,)), *layers], name="net")
    inner = keras.optimizers.SGD(0.1, momentum=0.9, name="sgd")
    model.compile(rw.InterventionOptimizer(inner, chosen, **kwargs, name="rules"), "mse")
    return model


def trained(model: keras.Model, epochs: int = 2) -> dict[str, list[float]]:
    settings = {"batch_size": 12, "epochs": epochs, "shuffle": False, "verbose": 0}
    return model.fit(X, Y, **settings, validation_data=(X, Y), callbacks=[rw.WeightMonitor(X)]).history  # pyright: ignore[reportArgumentType]


def found(model: keras.Model, strategy: tf.distribute.Strategy) -> dict:
    """Weights and state of the first replica, and which of them another one has otherwise."""
    variables = [*model.trainable_variables, *model.optimizer.variables]
    values = [[each.numpy() for each in strategy.experimental_local_results(v.value)] for v in variables]
    differ = [
        v.path
        for v, (first, *others) in zip(variables, values, strict=True)
        if not all(first.tobytes() == each.tobytes() for each in others)
    ]
    return {
        "replicas": max(len(each) for each in values),
        "differ": differ,
        "values": {
            v.path: np.asarray(each[0], float).tolist() for v, each in zip(variables, values, strict=True)
        },
        "applications": [int(rule._applications.numpy()) for rule in model.optimizer.interventions],
    }


def refused(act) -> str:
    try:
        act()
    except ValueError as error:
        return str(error)
    return ""


def refusals(strategy: tf.distribute.Strategy) -> dict[str, str]:
    def with_mean():
        model = compiled([rw.Clipping(1.0)])
        model.add(Averaged(name="averaged"))
        model.optimizer.build(model.trainable_variables)

    def made_outside():
        optimizer = rw.InterventionOptimizer(keras.optimizers.SGD())
        with strategy.scope():
            optimizer.build(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]).trainable_variables)

    with strategy.scope():
        told = {
            "on_nonfinite": refused(lambda: trained(compiled([], on_nonfinite="skip"))),
            "aggregation": refused(with_mean),
        }
    return told | {"outside": refused(made_outside)}


class Averaged(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(), aggregation="mean")

    def call(self, x):
        return x * self.scale


def main(folder: Path) -> None:
    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * DEVICES)
    results: dict = {}
    for count in range(1, DEVICES + 1):
        strategy = mirrored(count) if count > 1 else tf.distribute.get_strategy()
        with strategy.scope():
            model = compiled(rules(), metrics_every=2)
        history = trained(model)
        results[str(count)] = found(model, strategy) | {"history": history}
        if count == 2:
            model.save(folder / "model.keras")
            loaded = keras.saving.load_model(folder / "model.keras")
            for each in (model, loaded):
                trained(each, 1)
            ends = [[v.numpy() for v in trainable_variables(each.optimizer)] for each in (model, loaded)]
            results["loaded"] = max(float(np.max(np.abs(a - b))) for a, b in zip(*ends, strict=True))
            results["refused"] = refusals(strategy)
    for name in ("noise", "pruning", "recycling", "averaging"):
        make, feedback = EXAMPLES[name][0]
        check_replicas(make(), feedback)
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
