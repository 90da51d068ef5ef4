"""`on_nonfinite`: a step whose gradients are not finite is left out, counted, or the end of training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import rlweights as rw
from support.keras_models import MODES, assert_same, data, in_mode, small_model, state, weights

WAYS = [{"jit_compile": True}, {"jit_compile": False}, {"run_eagerly": True}]


def spoiled():
    x, y = data()
    x[5] = np.nan
    return x, y


def compiled(on_nonfinite, *rules, **arguments):
    model = small_model()
    optimizer = rw.InterventionOptimizer(keras.optimizers.Adam(0.1), rules, on_nonfinite=on_nonfinite)
    model.compile(optimizer, "mse", **arguments)
    return model


def fit(model, x, y):
    return model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[rw.WeightMonitor()]).history


@pytest.mark.parametrize("arguments", WAYS)
def test_a_step_that_is_not_finite_is_skipped_and_counted(arguments):
    rules = rw.Clipping(0.5), rw.Noise(0.1)
    model = compiled("skip", *rules, **arguments)
    history = fit(model, *spoiled())
    assert history["intervention/skipped_updates"] == [1.0]
    assert int(model.optimizer.iterations) == 1
    x, y = data()
    other = compiled("skip", rw.Clipping(0.5), rw.Noise(0.1), **arguments)
    fit(other, x[:4], y[:4])
    assert_same(weights(model), weights(other))


def test_without_it_every_weight_is_lost_as_in_keras():
    model = compiled(None)
    fit(model, *spoiled())
    assert any(np.isnan(value).all() for value in weights(model).values())
    assert "skipped_updates" not in model.optimizer.metrics()


@pytest.mark.parametrize("arguments", WAYS)
def test_it_may_end_the_training(arguments):
    model = compiled("raise", rw.Noise(0.5, placement="during_iteration"), **arguments)
    with pytest.raises(rw.TrainingStopped, match=r"not finite; the weights are those before it"):
        fit(model, *spoiled())
    assert all(np.isfinite(value).all() for value in weights(model).values())
    fit(model, *data())  # and training may go on


def test_a_training_that_could_not_be_ended_is_refused():
    with pytest.raises(RuntimeError, match="on_nonfinite='raise' cannot end a graph"):
        compiled("raise").fit(*data(), verbose=0)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_changes_in_a_loop_of_the_users_own(mode):
    weight = keras.Variable([1.0, 2.0], name="kernel")
    optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(0.1), [rw.Increment(1.0)], on_nonfinite="skip")
    optimizer.build([weight])
    apply = in_mode(lambda gradient: optimizer.apply([gradient]), mode)
    before = weight.numpy(), state(optimizer)
    apply(tf.constant([1.0, np.inf]))
    skipped = optimizer.metrics()["skipped_updates"]
    assert int(skipped) == 1
    assert_same(before[0], weight.numpy())
    assert sum(not np.array_equal(a, b) for a, b in zip(before[1], state(optimizer), strict=True)) == 1
    apply(tf.constant([1.0, 1.0]))
    np.testing.assert_allclose(weight.numpy(), [1.9, 2.9])


def test_loss_scaling_outside_of_it():
    inner = rw.InterventionOptimizer(keras.optimizers.SGD(0.1), [], on_nonfinite="skip")
    model = small_model()
    model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse")
    history = fit(model, *spoiled())
    assert all(np.isfinite(value).all() for value in weights(model).values())
    assert history["intervention/skipped_updates"] == [0.0]  # loss scaling has skipped it before


def test_it_is_saved_and_a_typing_error_is_refused():
    optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(), on_nonfinite="skip")
    assert type(optimizer).from_config(optimizer.get_config()).on_nonfinite == "skip"
    with pytest.raises(ValueError, match=r"`on_nonfinite` takes None, 'skip', 'raise'. Received: 'skpi'"):
        rw.InterventionOptimizer(keras.optimizers.SGD(), on_nonfinite="skpi")
