"""Branches that write variables; and what they are for: rules under gradient accumulation."""

import itertools

import keras
import numpy as np
import pytest

import rlweights as rw
from rlweights.weights.branches import either, only_if
from support.keras_models import MODES, assert_same, data, in_mode, small_model, state, train_step, weights


@pytest.mark.parametrize("mode", MODES)
def test_a_branch_writes_if_its_condition_holds(mode):
    first, second = keras.Variable(1.0), keras.Variable([1.0, 2.0])

    def act():
        first.assign_add(1.0)
        second.assign(second * first)  # reads what was written in the branch
        only_if(first > 2.5, lambda: second.assign(second + 100.0))

    run = in_mode(lambda on: only_if(on, act), mode)
    for on in (False, True, False, True):
        run(keras.ops.convert_to_tensor(on))
    assert float(first) == 3.0
    np.testing.assert_array_equal(second.numpy(), [106.0, 112.0])


@pytest.mark.parametrize("mode", MODES)
def test_one_of_two_branches_writes(mode):
    number = keras.Variable(1.0)
    add, double = lambda: number.assign_add(1.0), lambda: number.assign(2.0 * number)
    run = in_mode(lambda on: either(on, add, double), mode)
    for on in (True, True, False):
        run(keras.ops.convert_to_tensor(on))
    assert float(number) == 6.0


# Gradient accumulation ------------------------------------------------------------------------------


def sgd(accumulates):
    return keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=4 if accumulates else None)


def rules_of_all_kinds():
    return [
        rw.Increment(lambda step: keras.ops.multiply(keras.ops.cast(step, "float32"), 0.01)),
        rw.Noise(0.1, placement="after_step", name="kept"),
        rw.Noise(0.1, placement="during_iteration"),
        rw.Shrinkage(0.1, "initial"),
        rw.Projection("norm"),
        rw.Clipping(0.5),
        rw.Averaging(0.5),
    ]


def accumulated(rules, accumulates, mode="graph"):
    """Four updates from batches of 16, or of four micro batches of 4 each."""
    model = small_model()
    inner = sgd(accumulates)
    optimizer = inner if rules is None else rw.InterventionOptimizer(inner, rules)
    step = train_step(model, optimizer, mode)
    getattr(optimizer, "begin_iteration", lambda: None)()
    for i in range(4):
        x, y = data(size=16, seed=i)
        batch = 4 if accumulates else 16
        for j in range(0, 16, batch):
            step(x[j : j + batch], y[j : j + batch])
    getattr(optimizer, "end_iteration", lambda: None)()
    return model, optimizer


@pytest.mark.filterwarnings("ignore:the norm of projection does not survive clipping")
@pytest.mark.parametrize("mode", MODES)
def test_four_micro_batches_are_one_batch(mode):
    many, one = (accumulated(rules_of_all_kinds(), accumulates, mode) for accumulates in (True, False))
    for path, value in weights(many[0]).items():
        np.testing.assert_allclose(value, weights(one[0])[path], atol=2e-6, err_msg=path)
    assert int(many[1].iterations) == int(one[1].iterations) == 4
    for a, b in zip(many[1].interventions, one[1].interventions, strict=True):
        assert int(a._applications) == int(b._applications) > 0
        assert {k: float(v) for k, v in a.metrics.items()} == pytest.approx(
            {k: float(v) for k, v in b.metrics.items()}, abs=1e-5
        )


def test_without_rules_accumulation_is_keras_own():
    bare, wrapped = accumulated(None, True), accumulated([], True)
    assert_same(weights(bare[0]), weights(wrapped[0]))
    assert_same(state(bare[1]), state(wrapped[1].inner))


def test_between_two_updates_no_rule_writes():
    model = small_model()
    optimizer = rw.InterventionOptimizer(sgd(True), [rw.Increment(1.0)])
    step, first = train_step(model, optimizer), weights(model)
    for _ in range(3):
        step(*data())
        assert_same(weights(model), first)
    step(*data())
    assert all(np.all(np.abs(value - first[path] - 1.0) < 0.9) for path, value in weights(model).items())


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_noise_of_single_gradients_is_drawn_for_each_micro_batch(mode):
    model = small_model()
    optimizer = rw.InterventionOptimizer(sgd(True), [rw.Noise(0.5), rw.Clipping(0.3)])
    step, live = train_step(model, optimizer, mode), []
    optimizer.begin_iteration()
    for _ in range(4):
        live.append(weights(model)["hidden/kernel"])
        step(*data())
    noise, clipping = optimizer.interventions
    assert (int(noise._applications), int(clipping._applications)) == (5, 1)
    assert all(not np.allclose(a, b) for a, b in itertools.pairwise(live))
    with optimizer.clean():
        assert np.abs(weights(model)["hidden/kernel"]).max() == np.float32(0.3 * 3**-0.5)


def test_fit_accumulates_and_goes_on_after_loading(tmp_path):
    def compiled():
        model = small_model()
        rules = [rw.Noise(0.1), rw.Clipping(0.3), rw.Averaging(0.5)]
        optimizer = rw.InterventionOptimizer(sgd(True), rules, on_nonfinite="skip", metrics_every=2)
        model.compile(optimizer, "mse", jit_compile=False)
        return model

    def fit(model, *epochs):
        arguments = {"batch_size": 4, "shuffle": False, "verbose": 0, "callbacks": [rw.WeightMonitor()]}
        return model.fit(*data(size=24), initial_epoch=epochs[0], epochs=epochs[1], **arguments)

    straight, saved = compiled(), compiled()
    history = fit(straight, 0, 4).history
    fit(saved, 0, 1)  # six micro batches: the epoch ends in the middle of an update
    saved.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    fit(loaded, 1, 4)
    assert int(straight.optimizer.iterations) == 6
    assert 0.0 < history["intervention/clipping/saturated"][-1] <= 1.0
    assert_same(weights(straight), weights(loaded))
    assert_same(state(straight.optimizer), state(loaded.optimizer))


def test_a_micro_batch_that_is_not_finite_is_left_out():
    model = small_model()
    optimizer = rw.InterventionOptimizer(sgd(True), [rw.Clipping(0.3)], on_nonfinite="skip")
    step = train_step(model, optimizer)
    x, y = data()
    for i in range(5):
        step(x * np.float32(np.nan if i == 1 else 1.0), y)
    assert int(optimizer.iterations) == 1
    assert int(optimizer.metrics()["skipped_updates"]) == 1
    assert all(np.isfinite(value).all() for value in weights(model).values())


def test_recycling_reaches_what_is_accumulated():
    model = small_model()
    optimizer = rw.InterventionOptimizer(sgd(True), [rw.Recycling(0.1)])
    step = train_step(model, optimizer)
    optimizer.begin_iteration()
    step(*data())
    optimizer.feedback["dormant_score/hidden"] = [1.0, 0.0, 1.0, 1.0]
    optimizer.end_iteration()
    pending = {slot.name: slot.numpy() for slot in optimizer.slots(model.get_layer("hidden").kernel)}
    [of_gradients] = [value for name, value in pending.items() if "accumulator" in name]
    assert np.any(of_gradients, axis=0).tolist() == [True, False, True, True]
