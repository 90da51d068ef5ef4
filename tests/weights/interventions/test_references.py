"""Rules against what other libraries make of the same gradients: optax and Keras' own, executed."""

import keras
import numpy as np
import optax
import pytest
from optax.contrib import schedule_free, schedule_free_eval_params

import rlweights as rw
from support.dense import built, model
from support.keras_models import data, small_model

TARGET = np.linspace(-1.0, 1.0, 6, dtype=np.float32).reshape(3, 2)
STEPS = 25


def gradient(w):
    """Of a quadratic that curves otherwise along each weight."""
    return np.linspace(0.2, 2.0, 6, dtype=np.float32).reshape(3, 2) * (np.asarray(w) - TARGET)


def ours(rule, inner):
    """The weights where gradients are taken and those of evaluations, step by step."""
    network = model(2, inputs=3)
    kernel = network.trainable_variables[0]
    kernel.assign(np.ones((3, 2)))
    optimizer = built([rule], network, inner)
    optimizer.begin_iteration()
    live, shown = [], []
    for _ in range(STEPS):
        optimizer.apply([gradient(kernel.numpy()), np.zeros(2, np.float32)])
        live.append(kernel.numpy())
        with optimizer.evaluation():
            shown.append(kernel.numpy())
    return np.array(live), np.array(shown)


def test_lookahead_is_that_of_optax():
    live, shown = ours(rw.Lookahead(4, 0.3), keras.optimizers.SGD(0.1))
    reference = optax.lookahead(optax.sgd(0.1), sync_period=4, slow_step_size=0.3)
    params = optax.LookaheadParams.init_synced(np.ones((3, 2), np.float32))
    state, fast, slow = reference.init(params), [], []
    for _ in range(STEPS):
        updates, state = reference.update(gradient(params.fast), state, params)
        params = optax.apply_updates(params, updates)
        fast.append(np.asarray(params.fast))
        slow.append(np.asarray(params.slow))
    np.testing.assert_allclose(live, fast, atol=2e-6)
    np.testing.assert_allclose(shown, slow, atol=2e-6)


@pytest.mark.parametrize("power", [0.0, 2.0])
def test_schedule_free_is_that_of_optax(power):
    live, shown = ours(rw.ScheduleFree(0.9, power), keras.optimizers.SGD(0.2))
    reference = schedule_free(optax.sgd(0.2), 0.2, b1=0.9, weight_lr_power=power)
    params = np.ones((3, 2), np.float32)
    state, taken, evaluated = reference.init(params), [], []
    for _ in range(STEPS):
        updates, state = reference.update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        taken.append(np.asarray(params))
        evaluated.append(np.asarray(schedule_free_eval_params(state, params)))
    np.testing.assert_allclose(live, taken, atol=5e-6)
    np.testing.assert_allclose(shown, evaluated, atol=5e-6)


def test_averaging_is_that_of_keras_swap_ema_weights():
    """The same average, and what validation sees of it. Keras begins it after the first step, `begin=1`."""
    logs = []
    for averaged in (True, False):
        network = small_model()
        inner = keras.optimizers.SGD(0.1, use_ema=not averaged, ema_momentum=0.9)
        rules = [rw.Averaging(0.9, begin=1)]
        network.compile(rw.InterventionOptimizer(inner, rules) if averaged else inner, "mse")
        callback = rw.WeightMonitor() if averaged else keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
        history = network.fit(
            *data(), epochs=3, shuffle=False, verbose=0, validation_data=data(), callbacks=[callback]
        )
        logs.append(history.history["val_loss"])
    np.testing.assert_allclose(logs[0], logs[1], rtol=1e-6)
