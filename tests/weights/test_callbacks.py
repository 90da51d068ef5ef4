"""`WeightMonitor` in `model.fit`: iterations, clean weights, metrics, dormant scores."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf

from rlweights.weights.attachment import optimizers_of
from rlweights.weights.callbacks import WeightMonitor
from rlweights.weights.diagnostics import dormant_scores
from rlweights.weights.interventions import Averaging, Clipping, Increment, Intervention, Noise, Recycling
from rlweights.weights.optimizer import InterventionOptimizer
from support.keras_models import STYLES, assert_same, data, small_model, state, weights


class Look(keras.callbacks.Callback):
    """Notes the weights that the hooks of other callbacks would see."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def note(self, when):
        self.seen.setdefault(when, []).append(weights(self.model))

    def on_epoch_begin(self, epoch, logs=None):
        self.note("epoch begin")

    def on_test_batch_end(self, batch, logs=None):
        self.note("validation")

    def on_test_end(self, logs=None):
        self.note("after validation")

    def on_epoch_end(self, epoch, logs=None):
        self.note("epoch end")


def compiled(rules, style="functional", rate=0.1, **arguments):
    model = small_model(style)
    model.compile(InterventionOptimizer(keras.optimizers.SGD(rate), rules), "mse", **arguments)
    return model


def fit(model, *callbacks, epochs=2, **arguments):
    """Trains without shuffling; returns the history."""
    arguments = {"batch_size": 4, "shuffle": False, "verbose": 0} | arguments
    return model.fit(*data(), epochs=epochs, callbacks=[WeightMonitor(), *callbacks], **arguments).history


def noisy():
    return [
        Clipping(0.5),
        Noise(0.1),
        Noise(0.1, placement="during_iteration", name="exploration"),
        Increment(0.01, placement="after_iteration"),
    ]


WAYS = [
    ("functional", {"jit_compile": True, "steps_per_execution": 2}),
    ("sequential", {"steps_per_execution": 2}),
    ("subclassed", {"jit_compile": True}),
    ("subclassed", {"run_eagerly": True}),
]


@pytest.mark.parametrize(("style", "arguments"), WAYS)
def test_every_kind_of_model_trains_and_ends_clean(style, arguments):
    model = compiled(noisy(), style, **arguments)
    look = Look()
    history = fit(model, look, validation_data=data(seed=1))
    assert np.isfinite(history["loss"] + history["val_loss"]).all()
    assert history["intervention/exploration/stddev"] == [pytest.approx(0.1)] * 2
    assert history["intervention/increment/relative_change"][0] > 0.0
    assert_same(weights(model), look.seen["epoch end"][-1])
    for path, kernel in weights(model).items():
        bound = 0.5 / np.sqrt(3 if "hidden" in path else 4)
        assert np.abs(kernel).max() <= bound + 0.01 + 1e-6  # after the last clip the increment acted once


def test_all_ways_of_compiling_train_the_same():
    def trained(**arguments):
        model = compiled([Clipping(0.5), Noise(0.1)], **arguments)
        fit(model)
        return weights(model)

    expected = trained()
    for arguments in ({"jit_compile": True, "steps_per_execution": 2}, {"run_eagerly": True}):
        for path, value in trained(**arguments).items():
            np.testing.assert_allclose(value, expected[path], atol=1e-6)


def test_an_epoch_is_an_iteration():
    model = compiled([Noise(0.1, placement="during_iteration")], rate=0.0)
    look = Look()
    losses = fit(model, look, epochs=3, shuffle=False)["loss"]
    assert len(set(losses)) == 3  # each epoch has noise of its own
    initial = weights(small_model())["hidden/kernel"]
    for each in [*look.seen["epoch begin"], *look.seen["epoch end"]]:
        np.testing.assert_array_equal(each["hidden/kernel"], initial)


def test_after_iteration_rules_act_once_at_the_end_of_each_epoch():
    model = compiled([Increment(0.5, placement="after_iteration", on="head/bias")], rate=0.0)
    look = Look()
    fit(model, look, epochs=3)
    for i, each in enumerate(look.seen["epoch end"]):
        assert each["head/bias"].tolist() == [0.5 * (i + 1)] * 2


@pytest.mark.parametrize("averaged", [False, True])
def test_validation_changes_nothing_bit_for_bit(averaged):
    def trained(**validation):
        model = compiled(noisy() + ([Averaging(0.5)] if averaged else []))
        history = fit(model, **validation)
        with model.optimizer.clean():
            return history["loss"], weights(model), state(model.optimizer)

    assert_same(trained(), trained(validation_data=data(seed=1)))


def test_validation_sees_clean_weights_and_training_goes_on_with_the_same_noise():
    def trained(**validation):
        model = compiled([Noise(0.1, placement="during_iteration")], rate=0.0)
        look = Look()
        return fit(model, look, **validation)["loss"], look.seen

    losses, seen = trained(validation_data=data(seed=1))
    initial = weights(small_model())
    for each in [*seen["validation"], *seen["after validation"]]:
        assert_same(each, initial)
    assert losses == trained()[0]
    assert losses[0] != compiled([]).evaluate(*data(), verbose=0)


def test_validation_evaluate_and_predict_see_the_average_if_there_is_one():
    model = compiled([Averaging(0.5)])
    look = Look()
    fit(model, look, validation_data=data(seed=1))
    average = {v.path: a.numpy() for v, a in zip(*averages(model), strict=True)}
    assert_same(look.seen["validation"][-1], average)
    assert_same(weights(model), average)  # what was judged stays in
    with model.optimizer.clean():
        assert not np.array_equal(average["head/kernel"], weights(model)["head/kernel"])

    kept = weights(model)
    x, y = data(seed=1)
    loss = model.evaluate(x, y, verbose=0, callbacks=[WeightMonitor()])
    predicted = model.predict(x, verbose=0, callbacks=[WeightMonitor()])
    assert_same(weights(model), kept)
    for variable, value in zip(*averages(model), strict=True):
        variable.assign(value)
    assert loss == pytest.approx(model.evaluate(x, y, verbose=0))
    np.testing.assert_allclose(predicted, model.predict(x, verbose=0), atol=1e-6)


def averages(model):
    rule = model.optimizer.interventions[-1]
    return rule.variables, rule.averages


def test_an_interrupted_validation_does_not_leave_the_average_in_the_weights():
    class Interrupt(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = compiled([Averaging(0.5)], rate=0.1)
    monitor, look = WeightMonitor(), Look()
    arguments = {"validation_data": data(seed=1), "verbose": 0, "shuffle": False}
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data(), callbacks=[monitor, Interrupt()], **arguments)
    once = weights(compiled_and_trained_once())
    model.fit(*data(), callbacks=[monitor, look], **arguments)
    assert_same(look.seen["epoch begin"][0], once)


def compiled_and_trained_once():
    model = compiled([], rate=0.1)
    model.fit(*data(), verbose=0, shuffle=False)
    return model


# Logs -----------------------------------------------------------------------------------------------


def test_metrics_and_weight_norms_are_in_the_history():
    model = compiled([Clipping(0.1)])
    history = fit(model)
    assert set(history) == {
        "loss",
        "intervention/clipping/relative_change",
        "intervention/clipping/clipped",
        "intervention/clipping/saturated",
        *(f"weights/{layer}/{what}" for layer in ("hidden", "head") for what in ("norm", "rms", "max")),
    }
    kernel = weights(model)["hidden/kernel"]
    assert history["weights/hidden/norm"][-1] == pytest.approx(np.linalg.norm(kernel))
    assert history["weights/hidden/rms"][-1] == pytest.approx(np.sqrt(np.mean(kernel**2)))
    assert history["weights/hidden/max"][-1] == pytest.approx(np.abs(kernel).max())
    assert all(isinstance(value, float) for values in history.values() for value in values)


def test_the_kernels_of_one_layer_are_measured_together():
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, keras.layers.GRU(4, name="memory")(inputs))
    model.compile(InterventionOptimizer(keras.optimizers.SGD(0.1)), "mse")
    history = model.fit(np.ones((2, 5, 3)), np.ones((2, 4)), verbose=0, callbacks=[WeightMonitor()]).history
    [name] = {name.rpartition("/")[0] for name in history if name.startswith("weights/")}
    kernels = [v.numpy().ravel() for v in model.trainable_variables if "kernel" in v.name]
    assert len(kernels) == 2
    assert history[f"{name}/norm"][0] == pytest.approx(np.linalg.norm(np.concatenate(kernels)))


def test_tensorboard_and_csv_receive_them(tmp_path):
    model = compiled([Clipping(0.1)])
    history = fit(
        model, keras.callbacks.TensorBoard(tmp_path), keras.callbacks.CSVLogger(tmp_path / "log.csv")
    )
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    clipped = history["intervention/clipping/clipped"]
    assert [float(row["intervention/clipping/clipped"]) for row in rows] == pytest.approx(clipped)
    [events] = (tmp_path / "train").glob("events*")
    scalars = {
        value.tag: float(tf.make_ndarray(value.tensor))
        for record in tf.data.TFRecordDataset(str(events))
        for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value
        if value.tag.startswith("epoch_")
    }
    assert scalars["epoch_weights/head/norm"] == pytest.approx(history["weights/head/norm"][-1])
    assert "epoch_intervention/clipping/saturated" in scalars


# Saving ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["functional", "subclassed"])
def test_a_checkpoint_at_the_end_of_an_epoch_is_clean_and_continues_the_run(style, tmp_path):
    def callbacks():
        return keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")

    straight = compiled(noisy(), style)
    look = Look()
    fit(straight, callbacks(), look, epochs=3)
    resumed = keras.saving.load_model(tmp_path / "2.keras")
    assert_same(weights(resumed), look.seen["epoch end"][1])
    fit(resumed, epochs=3, initial_epoch=2)
    assert_same((weights(straight), state(straight.optimizer)), (weights(resumed), state(resumed.optimizer)))


def test_early_stopping_restores_clean_weights():
    model = compiled([Noise(0.5), Noise(0.5, placement="during_iteration", name="exploration")], rate=0.5)
    look = Look()
    stop = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    history = fit(model, look, stop, epochs=30, validation_data=data(seed=1))
    assert len(history["loss"]) < 30
    best = int(np.argmin(history["val_loss"]))
    assert_same(weights(model), look.seen["epoch end"][best])


# Loss scaling ---------------------------------------------------------------------------------------


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(noisy(), jit_compile=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    look = Look()
    history = fit(model, look, validation_data=data(seed=1), epochs=2)
    [inside] = optimizers_of(model).values()
    assert inside is model.optimizer.inner_optimizer
    assert history["intervention/noise/stddev"] == [pytest.approx(0.1)] * 2
    assert_same(weights(model), look.seen["epoch end"][-1])
    assert int(inside.iterations) > 0


# The optimizer --------------------------------------------------------------------------------------


def test_an_optimizer_without_interventions_is_refused_before_training():
    model = small_model()
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"carries no interventions.*Found: Adam"):
        fit(model)
    assert int(model.optimizer.iterations) == 0
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), "mse")
    with pytest.raises(ValueError, match="Found: LossScaleOptimizer"):
        fit(model)


def test_evaluation_before_any_training_sees_the_weights_as_they_are():
    model = compiled([Noise(0.1), Averaging(0.5)])
    x, y = data()
    assert model.evaluate(x, y, verbose=0, callbacks=[WeightMonitor()]) == model.evaluate(x, y, verbose=0)


# Dormant scores -------------------------------------------------------------------------------------


class ReadScores(Intervention):
    """Notes the scores that it was given, in its metrics: the lowest of the hidden layer."""

    placement = "after_iteration"
    metric_names = ("lowest",)

    def build(self, variables):
        [layer] = {v.path.rpartition("/")[0] for v in variables}
        self.scores = self.feedback(f"dormant_score/{layer}", np.full(variables[0].shape[-1], np.nan))

    def update(self, weight, step):
        return keras.ops.copy(weight)

    def observe(self, before, after, step):
        return {"lowest": keras.ops.min(self.scores(step))}


@pytest.mark.parametrize("style", STYLES)
def test_dormant_scores_are_measured_on_the_probe_with_clean_weights(style):
    rules = [ReadScores(on=".*hidden/.*"), Noise(0.5, placement="during_iteration")]
    model = compiled(rules, style)
    probe = data(size=64, seed=5)[0]
    look = Look()
    history = model.fit(*data(), verbose=0, callbacks=[WeightMonitor(probe), look]).history
    [kernel, bias] = [v for path, v in look.seen["epoch end"][0].items() if "hidden" in path]
    expected = dormant_scores(np.maximum(probe @ kernel + bias, 0.0)).numpy()
    [scores] = model.optimizer.feedback.values()
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4)
    assert history["intervention/read_scores/lowest"] == [pytest.approx(expected.min(), rel=1e-4)]
    assert "call" not in vars(model.get_layer("hidden"))  # the spy is gone


def test_recycling_finds_the_dead_unit_of_a_dense_layer_in_fit():
    model = compiled([Recycling(0.1)], rate=0.0)
    model.get_layer("hidden").bias.assign([0.0, -100.0, 0.0, 0.0])
    before = weights(model)
    history = model.fit(*data(), verbose=0, callbacks=[WeightMonitor(data(size=64)[0])]).history
    after = weights(model)
    changed = np.any(after["hidden/kernel"] != before["hidden/kernel"], axis=0)
    assert changed.tolist() == [False, True, False, False]
    assert after["hidden/bias"][1] == 0.0
    assert np.all(after["head/kernel"][1] == 0.0)
    assert history["intervention/recycling/recycled"] == [0.25]


@pytest.mark.parametrize("style", ["functional", "subclassed"])
def test_without_a_probe_a_rule_that_needs_scores_is_refused_in_words(style):
    model = compiled([ReadScores(on=".*hidden/.*")], style)
    with pytest.raises(ValueError, match=r"dormant scores of (net/)?hidden: .*WeightMonitor\(probe="):
        fit(model)
    # A subclassed model has no weights before its first step, and so no rules that could be asked.
    assert int(model.optimizer.iterations) == (2 if style == "subclassed" else 0)


def test_a_probe_that_does_not_reach_the_layer_is_refused():
    class Elsewhere(Intervention):
        def build(self, variables):
            self.feedback("dormant_score/nowhere", np.zeros(4))

        def update(self, weight, step):
            return keras.ops.copy(weight)

    model = compiled([Elsewhere()])
    with pytest.raises(ValueError, match="does not pass through nowhere"):
        model.fit(*data(), verbose=0, callbacks=[WeightMonitor(data()[0])])


def test_a_layer_that_is_called_twice_is_scored_on_all_its_outputs():
    shared = keras.layers.Dense(4, "relu", name="hidden")
    a, b = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([a, b], keras.layers.Dense(2, name="head")(shared(a) + shared(b)))
    model.compile(InterventionOptimizer(keras.optimizers.SGD(0.0), [ReadScores(on="hidden/.*")]), "mse")
    x, y = data(seed=2), data()[1]
    inputs = [x[0], data(seed=3)[0]]
    model.fit(inputs, y, verbose=0, callbacks=[WeightMonitor(inputs)])
    expected = dormant_scores(tf.concat([shared(each) for each in inputs], axis=0))
    np.testing.assert_allclose(model.optimizer.feedback["dormant_score/hidden"].numpy(), expected, rtol=1e-5)
