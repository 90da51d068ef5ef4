"""Rules belong to one optimizer, act on what its step is given, and come back from files unchanged."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

import rlweights as rw
from rlweights.weights.interventions import RULES
from support.keras_models import assert_same, data, small_model, weights

MAKE = {"projection": lambda: rw.Projection(keras.constraints.NonNeg), "increment": lambda: rw.Increment(0.1)}
MAKE |= {"noise": lambda: rw.Noise(0.1), "pruning": lambda: rw.Pruning(0.5, end=1)}


def made(name):
    return MAKE.get(name, RULES[name])()


def optimizer_of(*rules, rate=0.1):
    return rw.InterventionOptimizer(keras.optimizers.SGD(rate), rules)


# Selections -----------------------------------------------------------------------------------------


def nested():
    keras.utils.set_random_seed(0)
    x = keras.Input((3,))
    encoder = keras.Model(x, keras.layers.Dense(4, name="dense")(x), name="encoder")
    y = keras.layers.Dense(2, name="middle")(encoder(x))
    return keras.Model(x, keras.layers.Dense(2, name="head")(y)), encoder


@pytest.mark.filterwarnings("ignore:Skipping variable loading")  # as of any optimizer that was not built
@pytest.mark.filterwarnings("ignore:A total of 1 objects could not be loaded")
@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize(("inverted", "count"), [(False, 2), (True, 4)])
def test_a_layer_that_selects_survives_saving(inverted, count, built, tmp_path):
    model, encoder = nested()
    rule = rw.Clipping(on=~rw.layers(encoder) if inverted else encoder)
    model.compile(optimizer_of(rule), "mse")
    if built:
        model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.optimizer.build(loaded.trainable_variables)
    assert len(loaded.optimizer.interventions[0].selected()) == count
    assert any("dense/" in path for path in loaded.optimizer.interventions[0].selected()) != inverted


@pytest.mark.parametrize(
    "on", ["~layers('typo')", "path('typo') | kind('bias')", "kind('kernel') & ~depth(7)"]
)
def test_a_part_that_matches_nothing_complains(on):
    with pytest.raises(ValueError, match=r"a part of .* selects none of the weights: hidden/kernel"):
        rw.select(on)(small_model().trainable_variables)


def test_patterns_match_from_any_slash_on():
    model = small_model("sequential")
    assert [v.path for v in rw.path("hidden/.*")(model.trainable_variables)] == [
        "net/hidden/kernel",
        "net/hidden/bias",
    ]
    with pytest.raises(ValueError, match="selects none"):
        rw.path("idden/.*")(model.trainable_variables)


# One rule, one optimizer ----------------------------------------------------------------------------


def test_one_rule_in_two_optimizers_of_other_weights_is_refused():
    rule = rw.Clipping()
    optimizer_of(rule).build(small_model().trainable_variables)
    with pytest.raises(ValueError, match="clipping belongs to another optimizer already"):
        optimizer_of(rule).build(small_model(seed=1).trainable_variables)


def test_a_rule_that_was_taken_over_does_not_act_in_its_first_optimizer():
    model, rule = small_model(), rw.Clipping()
    first, second = optimizer_of(rule), optimizer_of(rule)
    first.build(model.trainable_variables[:2])
    second.build(model.trainable_variables)  # after unfreezing
    assert len(rule.selected()) == 4
    with pytest.raises(RuntimeError, match="clipping belongs to another optimizer by now"):
        first.apply([tf.zeros(v.shape) for v in model.trainable_variables[:2]])


@pytest.mark.parametrize("rule", [rw.Increment(0.5), rw.Noise(0.5), rw.Shrinkage(0.5, towards="zero")])
@pytest.mark.parametrize("recompiled", ["the same optimizer", "in a loop"])
def test_frozen_layers_stay(rule, recompiled):
    model = small_model()
    rule = copy.deepcopy(rule)
    model.compile(optimizer_of(rule), "mse")
    model.optimizer.build(model.trainable_variables)
    model.get_layer("hidden").trainable = False
    before = weights(model.get_layer("hidden")) | {"hidden/kernel": model.get_layer("hidden").kernel.numpy()}
    if recompiled == "in a loop":
        model.optimizer.apply(
            [tf.zeros(v.shape) for v in model.trainable_variables], model.trainable_variables
        )
        model.optimizer.end_iteration()
    else:
        model.compile(model.optimizer, "mse")
        model.fit(*data(), verbose=0, callbacks=[rw.WeightMonitor()])
    np.testing.assert_array_equal(model.get_layer("hidden").kernel.numpy(), before["hidden/kernel"])


def test_rules_act_on_what_the_step_was_given():
    model = small_model()
    optimizer = optimizer_of(rw.Increment(0.5), rate=0.0)
    optimizer.build(model.trainable_variables)
    first = weights(model)
    head = model.get_layer("head").trainable_variables
    optimizer.apply([tf.zeros(v.shape) for v in head], head)
    for path, value in weights(model).items():
        np.testing.assert_allclose(value - first[path], 0.5 if "head" in path else 0.0, atol=1e-6)


# Slots ----------------------------------------------------------------------------------------------


class Zeros(rw.Intervention):
    def update(self, weight, step):
        return weight

    def update_slot(self, weight, slot, step):
        return keras.ops.zeros_like(slot)


INNER = [keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.Ftrl, keras.optimizers.Adagrad]


@pytest.mark.parametrize("inner", [*INNER, keras.optimizers.Muon, keras.optimizers.Adadelta])
@pytest.mark.parametrize("count", [1, 2])
def test_slots_are_never_the_step_count_or_the_learning_rate(inner, count):
    variables = [keras.Variable(np.ones((2, 2), np.float32), name=f"kernel_{i}") for i in range(count)]
    optimizer = rw.InterventionOptimizer(inner(0.25), [Zeros()])
    optimizer.build(variables)
    optimizer.apply([tf.ones((2, 2))] * count)
    assert float(optimizer.learning_rate) == 0.25
    assert int(optimizer.iterations) == 1


@pytest.mark.parametrize("inner", INNER)
def test_recycling_sets_slots_back_to_what_they_began_with(inner):
    model = small_model()
    optimizer = rw.InterventionOptimizer(inner(0.1), [rw.Recycling()])
    optimizer.build(model.trainable_variables)
    slots = {v.path: [slot.numpy() for slot in optimizer.slots(v)] for v in model.trainable_variables}
    for _ in range(3):
        optimizer.feedback["dormant_score/hidden"] = [0.0, 1.0, 1.0, 1.0]
        optimizer.begin_iteration()
        optimizer.apply([tf.ones(v.shape) for v in model.trainable_variables])
        optimizer.end_iteration()
        kernel = model.trainable_variables[0]
        for slot, first in zip(optimizer.slots(kernel), slots[kernel.path], strict=True):
            np.testing.assert_array_equal(slot.numpy()[:, 0], first[:, 0])
    assert all(np.isfinite(value).all() for value in weights(model).values())


# Saving and copying ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("way", [copy.deepcopy, copy.copy, lambda rule: pickle.loads(pickle.dumps(rule))])
def test_rules_are_copied_by_their_arguments(way, name):
    rule = made(name)
    again = way(rule)
    assert type(again) is type(rule)
    assert again is not rule
    assert again.get_config() == rule.get_config()
    assert again.owner is None


def test_a_constraint_class_is_saved(tmp_path):
    model = small_model()
    model.compile(optimizer_of(rw.Projection(keras.constraints.NonNeg)), "mse")
    model.fit(*data(), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.fit(*data(), verbose=0)
    assert min(value.min() for path, value in weights(loaded).items() if "kernel" in path) >= 0.0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rule", [rw.Clipping(0.5, unit="init"), rw.Noise(0.1)])
def test_legacy_hdf5_files_load(rule, tmp_path):
    def trained(model):
        model.fit(*data(), verbose=0, shuffle=False, callbacks=[rw.WeightMonitor()])
        return weights(model)

    model = small_model()
    model.compile(optimizer_of(copy.deepcopy(rule)), keras.losses.MeanSquaredError())
    trained(model)
    model.save(tmp_path / "model.h5")
    loaded = keras.saving.load_model(tmp_path / "model.h5")
    assert_same(weights(model), weights(loaded))
    assert_same(trained(model), trained(loaded))


def test_a_bound_in_units_of_a_kernel_that_began_at_zero_is_refused():
    model = small_model(kernel_initializer="zeros")
    with pytest.raises(ValueError, match="the kernel of hidden/kernel began at 0"):
        optimizer_of(rw.Clipping(unit="init")).build(model.trainable_variables)


def test_the_seed_of_keras_reaches_the_rules():
    def noise(global_seed, **arguments):
        keras.utils.set_random_seed(global_seed)
        rule = rw.Noise(1.0, **arguments)
        kernel = keras.Variable(np.zeros(5), name="kernel")
        optimizer_of(rule).build([kernel])
        return np.asarray(rule.delta(kernel, 0)), rule.get_config()

    assert not np.array_equal(noise(1)[0], noise(2)[0])
    np.testing.assert_array_equal(noise(1)[0], noise(1)[0])
    np.testing.assert_array_equal(noise(1, seed=7)[0], noise(2, seed=7)[0])
    assert noise(3)[1]["seed"] == 3  # what is saved goes on with the same numbers


# Delegation -----------------------------------------------------------------------------------------


def test_what_is_said_to_the_wrapper_reaches_the_inner_optimizer():
    def trained(wrap):
        kernel, bias = keras.Variable([1.0], name="kernel"), keras.Variable([1.0], name="bias")
        optimizer = wrap(keras.optimizers.AdamW(0.1, weight_decay=0.5))
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        optimizer.build([kernel, bias])
        count = optimizer.apply_gradients([(tf.zeros(1), kernel), (tf.zeros(1), bias)])
        return int(count), kernel.numpy(), bias.numpy()

    assert_same(trained(rw.InterventionOptimizer), trained(lambda inner: inner))
    assert trained(rw.InterventionOptimizer)[2] == [1.0]


@pytest.mark.parametrize(
    "name", ["clipnorm", "clipvalue", "global_clipnorm", "weight_decay", "loss_scale_factor"]
)
def test_settings_are_those_of_the_inner_optimizer(name):
    optimizer = rw.InterventionOptimizer(keras.optimizers.Adam())
    setattr(optimizer, name, 0.25)
    assert getattr(optimizer.inner, name) == getattr(optimizer, name) == 0.25


def test_loss_scaling_takes_over_the_scale_of_the_inner_optimizer():
    inner = keras.optimizers.SGD(0.1, loss_scale_factor=4.0)
    keras.optimizers.LossScaleOptimizer(rw.InterventionOptimizer(inner))
    assert inner.loss_scale_factor is None


@pytest.mark.parametrize("name", RULES)
def test_the_state_and_the_weights_share_nothing(name):
    model = small_model()
    inner = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer = rw.InterventionOptimizer(inner, [made(name)])
    optimizer.build(model.trainable_variables)
    assert not {id(v) for v in optimizer.variables} & {id(v) for v in model.weights}
