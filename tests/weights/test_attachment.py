"""Rules in Keras' own training: clean weights on every way out; what is written between steps survives."""

import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import rlweights as rw
from rlweights.weights.attachment import attach, optimizers_of
from rlweights.weights.interventions import Averaging, Clipping, Increment, Noise
from support.keras_models import assert_same, data, small_model, weights

MODES = ({"jit_compile": True}, {"jit_compile": False}, {"run_eagerly": True})


def exploration():
    return Noise(0.5, placement="during_iteration")


def compiled(*rules, rate=1e-4, **arguments):
    model = small_model()
    model.compile(rw.InterventionOptimizer(keras.optimizers.SGD(rate), rules), "mse", **arguments)
    return model


def fit(model, *callbacks, **arguments):
    arguments = {"batch_size": 4, "shuffle": False, "verbose": 0, "epochs": 2} | arguments
    return model.fit(*data(), callbacks=callbacks, **arguments)


def distance(model, other=None):
    """How far the weights are from the first ones, or from others: noise of 0.5 goes further than 0.5."""
    other = weights(small_model()) if other is None else other
    return max(float(np.abs(value - other[path]).max()) for path, value in weights(model).items())


class At(keras.callbacks.Callback):
    """Does something at one hook."""

    def __init__(self, hook, action):
        super().__init__()
        setattr(self, hook, lambda *args, **kwargs: action(self.model))


# Ways out -------------------------------------------------------------------------------------------

HOOKS = ["on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on_test_end", "on_epoch_end"]


@pytest.mark.parametrize("arguments", MODES)
def test_callbacks_see_clean_weights_in_any_order(arguments):
    seen = []
    looks = [At(hook, lambda model: seen.append(distance(model))) for hook in HOOKS]
    for callbacks in ([rw.WeightMonitor(), *looks], [*looks, rw.WeightMonitor()]):
        fit(compiled(exploration(), **arguments), *callbacks, validation_data=data(seed=1))
    assert len(seen) == 2 * 2 * (4 * 1 + 2 * 1 + 1)
    assert 0.0 < max(seen) < 0.01


@pytest.mark.parametrize("monitor_first", [True, False])
def test_early_stopping_and_checkpoints_keep_clean_weights_in_any_order(monitor_first, tmp_path):
    model, ends = compiled(exploration(), rate=0.1), []
    callbacks = [
        keras.callbacks.EarlyStopping("loss", restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}-{batch}.keras", save_freq=1),
        At("on_train_batch_end", lambda model: ends.append(weights(model))),
    ]
    callbacks.insert(0 if monitor_first else len(callbacks), rw.WeightMonitor())
    fit(model, *callbacks, epochs=3)
    assert any(all(np.array_equal(a[p], b) for p, b in weights(model).items()) for a in ends)
    for path, clean in zip(sorted(tmp_path.iterdir()), ends, strict=False):
        assert_same(weights(keras.saving.load_model(path)), clean)


def test_an_evaluation_in_the_middle_of_an_epoch_judges_clean_weights():
    found = []
    model = compiled(exploration(), rate=0.0)
    expected = compiled().evaluate(*data(), verbose=0)
    judge = At("on_train_batch_end", lambda model: found.append(model.evaluate(*data(), verbose=0)))
    fit(model, judge, rw.WeightMonitor())
    assert found == pytest.approx([expected] * 4)


def failing(when):
    def action(model):
        raise when("here")

    return action


@pytest.mark.parametrize("arguments", MODES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("where", ["callback", "data", "step"])
def test_an_error_or_an_interrupt_leaves_clean_weights(where, error, arguments):
    model = compiled(exploration(), **arguments)
    callbacks, arguments = [rw.WeightMonitor()], {}
    x, y = data()
    if where == "callback":
        callbacks.append(At("on_train_batch_end", failing(error)))
        with pytest.raises(error):
            fit(model, *callbacks)
    elif where == "data":

        def batches():
            yield x, y
            raise error("here")

        with pytest.raises(BaseException, match=r"here"):
            model.fit(batches(), verbose=0, shuffle=False, callbacks=callbacks)
    else:
        original = model.train_step

        def train_step(batch):
            original(batch)
            model.steps = getattr(model, "steps", 0) + 1
            raise error("here")

        model.train_step = train_step
        with pytest.raises(BaseException, match=r"here"):
            fit(model, *callbacks)
    assert distance(model) < 0.01
    model.predict(x, verbose=0)


def test_a_graph_that_fails_in_the_middle_leaves_clean_weights():
    class Checked(keras.layers.Layer):
        def call(self, x):
            return tf.debugging.check_numerics(x, "not finite")

    keras.utils.set_random_seed(0)
    layers = [keras.Input((3,)), keras.layers.Dense(4, name="hidden"), Checked(), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    first = weights(model)
    model.compile(
        rw.InterventionOptimizer(keras.optimizers.SGD(0.0), [exploration()]), "mse", jit_compile=False
    )
    x, y = data()
    x[5] = np.nan
    with pytest.raises(tf.errors.InvalidArgumentError, match="not finite"):
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[rw.WeightMonitor()])
    assert_same(weights(model), first)


def test_stopping_in_mid_epoch_leaves_clean_weights():
    model = compiled(exploration())
    stop = At("on_train_batch_end", lambda model: setattr(model, "stop_training", True))
    fit(model, stop, rw.WeightMonitor())
    assert distance(model) < 0.01


# What is written between two steps ------------------------------------------------------------------


@pytest.mark.parametrize("noise", [exploration, lambda: Noise(0.5)])
@pytest.mark.parametrize("write", ["set_weights", "assign"])
def test_what_a_callback_writes_survives(write, noise):
    model = compiled(noise(), rate=0.0)

    def seven(model):
        if write == "assign":
            for variable in model.trainable_variables:
                variable.assign(np.full(variable.shape, 7.0))
        else:
            model.set_weights([np.full(w.shape, 7.0) for w in model.get_weights()])

    fit(model, At("on_train_batch_end", seven), rw.WeightMonitor())
    assert all(np.all(value == 7.0) for value in weights(model).values())


def test_weights_that_are_loaded_after_an_interrupt_are_trained_on():
    model = compiled(exploration(), Increment(1.0, placement="after_iteration"), rate=0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(model, At("on_train_batch_end", failing(KeyboardInterrupt)), rw.WeightMonitor())
    model.set_weights([np.full(w.shape, 7.0) for w in model.get_weights()])
    fit(model, rw.WeightMonitor(), epochs=1)
    # One finished epoch, one increment: the iteration that was interrupted ended without.
    assert all(np.all(value == 8.0) for value in weights(model).values())


@pytest.mark.parametrize("jit", [False, True])
def test_what_is_written_in_a_loop_of_the_users_own_survives(jit):
    kernel = keras.Variable(np.ones((2, 2)), name="kernel")
    optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(0.0), [exploration()])
    optimizer.build([kernel])
    step = tf.function(lambda: optimizer.apply([tf.zeros((2, 2))]), jit_compile=jit)
    optimizer.begin_iteration()
    step()
    value = kernel.numpy()
    value[0, 0] = 7.0  # the others stay live
    kernel.assign(value)
    step()
    optimizer.end_iteration()
    np.testing.assert_array_equal(kernel.numpy(), [[7.0, 1.0], [1.0, 1.0]])


def test_a_look_keeps_what_is_written_while_it_lasts():
    kernel = keras.Variable(np.ones(2), name="kernel")
    optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(0.0), [exploration()])
    optimizer.build([kernel])
    optimizer.begin_iteration()
    with optimizer.clean():
        kernel.assign([7.0, 1.0])
    optimizer.end_iteration()
    np.testing.assert_array_equal(kernel.numpy(), [7.0, 1.0])


# The average and the best epoch ---------------------------------------------------------------------


@pytest.mark.parametrize("monitor_first", [True, False])
@pytest.mark.parametrize("patience", [1, 10])
def test_early_stopping_restores_the_average_that_was_judged(patience, monitor_first):
    model = compiled(Averaging(0.7), rate=0.9)
    stop = keras.callbacks.EarlyStopping("val_loss", patience=patience, restore_best_weights=True)
    callbacks = [rw.WeightMonitor(), stop] if monitor_first else [stop, rw.WeightMonitor()]
    x, y = data(seed=1)
    history = fit(model, *callbacks, epochs=5, validation_data=(x, y)).history
    assert model.evaluate(x, y, verbose=0) == pytest.approx(min(history["val_loss"]), rel=1e-6)


def test_checkpoints_keep_the_average_that_was_judged_and_training_goes_on_exactly(tmp_path):
    def callbacks():
        path = tmp_path / "{epoch}.keras"
        return rw.WeightMonitor(), keras.callbacks.ModelCheckpoint(path)

    x, y = data(seed=1)
    straight = compiled(Averaging(0.7), rate=0.1)
    history = fit(straight, *callbacks(), epochs=4, validation_data=(x, y)).history
    resumed = keras.saving.load_model(tmp_path / "2.keras")
    assert resumed.evaluate(x, y, verbose=0) == pytest.approx(history["val_loss"][1], rel=1e-6)
    fit(resumed, rw.WeightMonitor(), epochs=4, initial_epoch=2, validation_data=(x, y))
    assert_same(weights(straight), weights(resumed))
    for model in (straight, resumed):
        model.optimizer.release()
    assert_same(weights(straight), weights(resumed))


def test_keeping_what_was_judged_can_be_switched_off():
    model = compiled(Averaging(0.7), rate=0.1)
    fit(model, rw.WeightMonitor(keep_judged=False), validation_data=data(seed=1))
    plain = compiled(rate=0.1)
    fit(plain)
    assert_same(weights(model), weights(plain))


# Several optimizers, and none that is told ----------------------------------------------------------


class Twofold(keras.Model):
    """Two layers, each with an optimizer of its own, in one compiled step."""

    def __init__(self):
        super().__init__()
        self.a, self.b = keras.layers.Dense(2, name="a"), keras.layers.Dense(2, name="b")
        self.build((None, 3))

    def build(self, shape):
        self.a.build(shape)
        self.b.build((None, 2))
        self.built = True

    def compile(self, a, b, **arguments):
        super().compile(optimizer=a, loss="mse", **arguments)
        self.b_optimizer = b

    def call(self, x):
        return self.b(self.a(x))

    def train_step(self, batch):
        x, y = batch
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        for optimizer, layer in ((self.optimizer, self.a), (self.b_optimizer, self.b)):
            optimizer.apply(tape.gradient(loss, layer.trainable_variables), layer.trainable_variables)
        return {"mine": loss}


def test_a_model_with_two_optimizers_has_undone_rules_in_both():
    model = Twofold()
    first = weights(model)
    a, b = (rw.InterventionOptimizer(keras.optimizers.SGD(0.0), [exploration()]) for _ in "ab")
    a.build(model.a.trainable_variables)
    b.build(model.b.trainable_variables)
    model.compile(a, b)
    history = fit(model, rw.WeightMonitor()).history
    assert_same(weights(model), first)
    assert history["mine"][0] != history["mine"][1]
    assert {name for name in history if name.endswith("stddev")} == {
        "intervention/optimizer/noise/stddev",
        "intervention/b_optimizer/noise/stddev",
    }


def test_optimizers_are_found_in_loss_scaling_and_in_a_multi_optimizer():
    a, b = (rw.InterventionOptimizer(keras.optimizers.SGD(), [], name=name) for name in "ab")
    model = small_model()
    model.compile(keras.optimizers.LossScaleOptimizer(a), "mse")
    assert list(optimizers_of(model).values()) == [a]
    model.compile(keras.optimizers.MultiOptimizer(lambda v: a if "hidden" in v.path else b), "mse")
    fit(model, epochs=1)
    assert list(optimizers_of(model).items()) == [("optimizer_0", a), ("optimizer_1", b)]


@pytest.mark.parametrize("arguments", MODES)
def test_noise_of_single_gradients_needs_no_iteration_in_train_on_batch(arguments):
    model = compiled(Noise(0.5), rate=0.0, **arguments)
    attach(model)
    losses = [model.train_on_batch(*data()) for _ in range(3)]
    model.reset_metrics()
    assert len(set(losses)) == 3
    assert distance(model) == 0.0
    assert losses[0] != model.evaluate(*data(), verbose=0)


def test_noise_of_single_gradients_needs_no_iteration_in_a_loop():
    kernel = keras.Variable(np.ones((2, 2)), name="kernel")
    optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(0.0), [Noise(0.5)])
    optimizer.build([kernel])
    live = []
    for _ in range(3):
        optimizer.apply([tf.zeros((2, 2))])
        live.append(kernel.numpy())
    assert not np.allclose(live[0], live[1])
    assert not np.allclose(live[1], live[2])
    optimizer.end_iteration()
    np.testing.assert_array_equal(kernel.numpy(), np.ones((2, 2)))


def test_training_in_which_nothing_undoes_the_noise_is_refused():
    model = compiled(Noise(0.5))
    with pytest.raises(RuntimeError, match=r"WeightMonitor\(\)\]` to `fit`, or call `rlweights.attach"):
        fit(model)
    with pytest.raises(RuntimeError, match=r"attach\(model\)` once before `train_on_batch`"):
        compiled(Noise(0.5)).train_on_batch(*data())


def test_rules_that_undo_nothing_need_no_attachment():
    model = compiled(Clipping(0.1))
    model.train_on_batch(*data())
    assert not model.optimizer.attached


def test_the_progress_line_of_many_layers_is_short_unless_each_is_wanted():
    def names(**arguments):
        layers = [keras.layers.Dense(3, name=f"l{i}") for i in range(20)]
        model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(2)])
        model.compile(rw.InterventionOptimizer(keras.optimizers.SGD(), []), "mse")
        history = fit(model, rw.WeightMonitor(**arguments), epochs=1).history
        return [name for name in history if name.startswith("weights/")]

    assert names() == ["weights/norm", "weights/rms", "weights/max"]
    assert len(names(per_layer=True)) == 63


# Stripping ------------------------------------------------------------------------------------------


def test_a_stripped_model_is_what_was_evaluated_and_loads_without_rules(tmp_path):
    model = compiled(
        rw.Pruning(0.5, end=2, every=1), Averaging(0.9), exploration(), rate=0.1, jit_compile=True
    )
    fit(model, rw.WeightMonitor(), validation_data=data(seed=1))
    with model.optimizer.evaluation():
        evaluated = weights(model)
    with model.optimizer.clean():
        assert any(np.any(value != weights(model)[path]) for path, value in evaluated.items())
    assert rw.strip(model) is model
    assert_same(weights(model), evaluated)
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    assert all(np.mean(v.numpy() == 0) == 0.5 for v in kernels)
    model.save(tmp_path / "plain.keras")
    with zipfile.ZipFile(tmp_path / "plain.keras") as file:
        assert b"rlweights" not in file.read("config.json")
    loaded = keras.saving.load_model(tmp_path / "plain.keras")
    assert_same(weights(loaded), evaluated)
    assert type(loaded.optimizer) is keras.optimizers.SGD
    fit(model)  # goes on without rules: what was held is free
    assert all(np.mean(v.numpy() == 0) < 0.5 for v in kernels)
    with pytest.raises(ValueError, match="carries no interventions"):
        rw.strip(model)
