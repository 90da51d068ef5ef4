"""The wrapper as a Keras optimizer: what it refuses, delegates, saves, loads and skips."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rlweights.weights.interventions import Clipping, Feedback, Increment, Intervention, Noise
from rlweights.weights.optimizer import InterventionOptimizer
from rlweights.weights.selection import kind
from support.keras_models import MODES, assert_same, data, in_mode, small_model, state, train_step, weights

# What is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inner", "says"),
    [
        (lambda: keras.optimizers.Adam(use_ema=True), "Averaging"),
        (
            lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
            r"LossScaleOptimizer\(InterventionOptimizer",
        ),
        (lambda: InterventionOptimizer(keras.optimizers.Adam()), "all rules into one list"),
    ],
)
def test_inner_optimizers_that_would_go_behind_the_rules_are_refused(inner, says):
    with pytest.raises(ValueError, match=says):
        InterventionOptimizer(inner(), [])


def test_only_a_keras_optimizer_is_wrapped():
    with pytest.raises(TypeError, match="'adam'"):
        InterventionOptimizer("adam")  # pyright: ignore[reportArgumentType]


def test_two_rules_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two rules are named 'clipping'"):
        InterventionOptimizer(keras.optimizers.SGD(), [Clipping(1.0), Clipping(2.0, on="head/kernel")])


@pytest.mark.parametrize("placement", ["during_iteration", "after_iteration"])
def test_rules_that_need_an_iteration_do_not_act_without_one(placement):
    model = small_model()
    optimizer = InterventionOptimizer(keras.optimizers.SGD(0.1), [Noise(0.1, placement=placement)])
    step = train_step(model, optimizer)
    with pytest.raises(RuntimeError, match=f"noise is placed '{placement}' and no iteration has begun"):
        step(*data())


@pytest.mark.parametrize("placement", ["during_gradient", "after_iteration"])
def test_a_later_fit_without_iterations_says_so_although_it_traces_nothing(placement):
    model = small_model()
    rules = [Increment(0.1, placement=placement)]
    model.compile(InterventionOptimizer(keras.optimizers.SGD(0.1), rules), "mse")
    model.optimizer.begin_iteration()
    model.fit(*data(), verbose=0)
    with pytest.raises(RuntimeError, match="no iteration has begun"):
        model.fit(*data(), verbose=0)


def test_rules_that_need_no_iteration_do_not_ask_for_one():
    model = small_model()
    model.compile(InterventionOptimizer(keras.optimizers.SGD(0.1), [Clipping(0.1)]), "mse")
    model.fit(*data(), verbose=0)
    assert np.abs(weights(model)["hidden/kernel"]).max() <= np.float32(0.1) / np.sqrt(np.float32(3)) + 1e-7


def test_a_selector_of_nothing_fails_when_it_is_built_and_names_the_rule_and_all_paths():
    optimizer = InterventionOptimizer(keras.optimizers.SGD(), [Clipping(1.0, on="hiden/kernel", name="box")])
    with pytest.raises(
        ValueError, match=r"box: path\('hiden/kernel'\) selects none .*hidden/kernel.*head/bias"
    ):
        optimizer.build(small_model().trainable_variables)


def test_gradients_without_weights_need_a_built_optimizer():
    with pytest.raises(ValueError, match="build"):
        InterventionOptimizer(keras.optimizers.SGD()).apply([tf.ones([1])])


def unbuilt_model():
    """Keras makes these weights inside its first trace, where they have no values."""
    return keras.Sequential([keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2, name="head")])


def test_weights_without_values_are_refused_in_words():
    model = unbuilt_model()
    model.compile(InterventionOptimizer(keras.optimizers.SGD(0.1), [Clipping(0.1, unit="init")]), "mse")
    with pytest.raises(ValueError, match=r"have no values yet.*keras\.Input"):
        model.fit(*data(), verbose=0)


def test_weights_without_values_do_when_there_are_no_rules():
    model = unbuilt_model()
    model.compile(InterventionOptimizer(keras.optimizers.SGD(0.1)), "mse")
    assert np.isfinite(model.fit(*data(), verbose=0).history["loss"]).all()


# Building -------------------------------------------------------------------------------------------


def test_an_iteration_that_begins_before_building_begins_with_building():
    def live(early):
        model = small_model()
        optimizer = InterventionOptimizer(keras.optimizers.SGD(0.1), [Noise(0.1)])
        if early:
            optimizer.begin_iteration()
        optimizer.build(model.trainable_variables)
        if not early:
            optimizer.begin_iteration()
        return weights(model), state(optimizer)

    assert_same(live(early=True), live(early=False))
    assert_same(weights(small_model()).keys(), live(early=True)[0].keys())
    assert not np.array_equal(live(early=True)[0]["head/kernel"], weights(small_model())["head/kernel"])


def test_an_iteration_that_ends_before_building_was_none():
    model = small_model()
    optimizer = InterventionOptimizer(keras.optimizers.SGD(0.1), [Noise(0.1)])
    optimizer.begin_iteration()
    optimizer.end_iteration()
    optimizer.build(model.trainable_variables)
    assert_same(weights(model), weights(small_model()))


def test_building_twice_keeps_the_state():
    model = small_model()
    optimizer = InterventionOptimizer(keras.optimizers.SGD(0.1, momentum=0.9), [Noise(0.1)])
    optimizer.build(model.trainable_variables)
    before = [id(v) for v in optimizer.variables]
    optimizer.build(model.trainable_variables)
    assert [id(v) for v in optimizer.variables] == before


@pytest.mark.parametrize(
    ("inner", "slots"),
    [
        (lambda: keras.optimizers.SGD(0.1), 0),
        (lambda: keras.optimizers.SGD(0.1, momentum=0.9), 1),
        (lambda: keras.optimizers.Adam(0.1), 2),
        (lambda: keras.optimizers.Adam(0.1, amsgrad=True), 3),
        (lambda: keras.optimizers.RMSprop(0.1, momentum=0.9, centered=True), 3),
    ],
)
def test_slots_are_the_inner_state_of_one_weight(inner, slots):
    model = small_model()
    optimizer = InterventionOptimizer(inner())
    optimizer.build(model.trainable_variables)
    found = {v.path: optimizer.slots(v) for v in model.trainable_variables}
    for path, each in found.items():
        assert len(each) == slots
        assert all(path.replace("/", "_") in slot.path for slot in each)
    if slots:
        train_step(model, optimizer)(*data())
        assert all(np.any(slot.numpy()) for slot in found["hidden/kernel"])


def test_slots_of_a_model_with_one_weight_are_slots_only():
    weight = keras.Variable([[1.0]], name="kernel")
    optimizer = InterventionOptimizer(keras.optimizers.Adam(0.1))
    optimizer.build([weight])
    assert [slot.name.rpartition("_")[2] for slot in optimizer.slots(weight)] == ["momentum", "velocity"]


# Delegation -----------------------------------------------------------------------------------------


def test_the_learning_rate_is_the_inner_one():
    optimizer = InterventionOptimizer(keras.optimizers.SGD(0.1))
    optimizer.learning_rate = 0.25
    assert float(optimizer.inner.learning_rate) == float(optimizer.learning_rate) == 0.25


def test_keras_callbacks_may_set_the_learning_rate():
    model = small_model()
    model.compile(InterventionOptimizer(keras.optimizers.SGD(0.1)), "mse")
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.5**epoch)
    history = model.fit(*data(), epochs=3, verbose=0, callbacks=[schedule]).history
    assert history["learning_rate"] == [1.0, 0.5, 0.25]
    assert float(model.optimizer.inner.learning_rate) == 0.25


def test_the_step_count_is_the_inner_one_and_rules_see_it_before_the_step():
    seen = []

    class Recorder(Intervention):
        def delta(self, weight, step):
            seen.append(int(step))
            return keras.ops.zeros_like(weight)

    model = small_model()
    rules = [Recorder(on="head/bias")]  # measured rarely, it would be asked twice where it is measured
    optimizer = InterventionOptimizer(keras.optimizers.SGD(0.1), rules, metrics_every=1)
    step = train_step(model, optimizer, "eager")
    for _ in range(3):
        step(*data())
    assert seen == [0, 1, 2]
    assert int(optimizer.iterations) == int(optimizer.inner.iterations) == 3


def test_a_loss_scale_of_the_inner_optimizer_is_honoured():
    def trained(scale):
        model = small_model()
        inner = keras.optimizers.SGD(0.1, loss_scale_factor=scale)
        model.compile(InterventionOptimizer(inner, [Clipping(1.0)]), "mse")
        model.fit(*data(), shuffle=False, verbose=0)
        return weights(model)

    assert_same(trained(None), trained(4.0))


def test_its_repr_is_the_chain_of_what_acts():
    optimizer = InterventionOptimizer(keras.optimizers.Adam(), [Clipping(2.0), Noise(0.1, on="head/kernel")])
    assert repr(optimizer) == (
        "InterventionOptimizer(Adam -> Clipping(bound=2.0) -> Noise(stddev=0.1, on=path('head/kernel')))"
    )


# Metrics --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*does not survive")
@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_metrics_are_named_by_rule_and_returned_from_the_compiled_step(mode):
    model = small_model()
    rules = [Clipping(0.1), Increment(0.5, name="push", on="head/bias")]
    optimizer = InterventionOptimizer(keras.optimizers.SGD(0.0), rules)
    step = train_step(model, optimizer, "eager")

    def measured(x, y):
        step(x, y)
        return optimizer.metrics()

    metrics = in_mode(measured, mode)(*data())
    assert set(metrics) == {
        "clipping/relative_change",
        "clipping/clipped",
        "clipping/saturated",
        "push/relative_change",
    }
    assert 0.5 < float(metrics["clipping/clipped"]) <= 1.0


@pytest.mark.parametrize("mode", MODES)
def test_metrics_every_measures_the_last_step_of_each_period(mode):
    model = small_model()
    amount = Feedback("amount")
    optimizer = InterventionOptimizer(
        keras.optimizers.SGD(0.0), [Increment(amount, on="hidden/kernel")], metrics_every=3
    )
    step = train_step(model, optimizer, mode)
    changes = []
    for i in range(6):
        optimizer.feedback["amount"] = 0.1 * (i + 1)
        step(*data())
        changes.append(float(optimizer.metrics()["increment/relative_change"]))
    assert changes[0] == changes[1] == 0.0
    assert 0.0 < changes[2] == changes[3] == changes[4] != changes[5]


# Loss scaling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_step_that_loss_scaling_skips_is_skipped_by_the_rules(mode):
    weight = keras.Variable([1.0, 2.0], name="kernel")
    rules = [Increment(1.0), Noise(0.1, placement="during_gradient", on="kernel")]
    inner = InterventionOptimizer(keras.optimizers.SGD(0.5), rules)
    outer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=4.0)
    outer.build([weight])
    inner.begin_iteration()
    apply = in_mode(lambda gradient: outer.apply([gradient]), mode)

    before = weight.numpy(), state(inner)
    apply(tf.constant([1.0, np.inf]))
    assert_same(before, (weight.numpy(), state(inner)))
    assert float(outer.dynamic_scale) == 2.0

    apply(tf.constant([2.0, 4.0]))  # scaled by 2
    with inner.clean():
        np.testing.assert_array_equal(weight.numpy(), [1.0 - 0.5 + 1.0, 2.0 - 1.0 + 1.0])


def test_mixed_precision_puts_loss_scaling_around_the_rules():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small_model()
        model.compile(InterventionOptimizer(keras.optimizers.Adam(0.01), [Clipping(0.3)]), "mse")
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert isinstance(model.optimizer.inner_optimizer, InterventionOptimizer)
    model.fit(*data(), epochs=3, verbose=0)
    kernel = weights(model)["hidden/kernel"]
    assert kernel.dtype == np.float32
    assert np.abs(kernel).max() == np.float32(0.3 * 3**-0.5)


# Saving and loading ---------------------------------------------------------------------------------


def rules_of_every_placement():
    return [
        Clipping(0.5, unit="init"),
        Increment(Feedback("push"), on=kind("bias")),
        Noise(keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.9)),
        Noise(0.05, placement="during_iteration", name="exploration", seed=7),
        Noise(0.01, placement="after_iteration", name="shake"),
    ]


@pytest.mark.filterwarnings("ignore:.*does not survive")
def test_the_configuration_makes_an_equal_optimizer():
    optimizer = InterventionOptimizer(
        keras.optimizers.AdamW(0.02, weight_decay=0.1),
        rules_of_every_placement(),
        feedback={"kl": 0.5, "vector": np.ones(2)},
        metrics_every=4,
        name="wrapped",
    )
    config = keras.saving.serialize_keras_object(optimizer)
    again = keras.saving.deserialize_keras_object(config)
    assert keras.saving.serialize_keras_object(again) == config
    assert [r.name for r in again.interventions] == [r.name for r in optimizer.interventions]
    assert (again.name, again.metrics_every) == ("wrapped", 4)
    again.build(small_model().trainable_variables)
    assert set(again.feedback) == {"kl", "vector", "push"}


def iterate(model, optimizer, first, last):
    """Trains iterations [first, last) of three steps each."""
    step = train_step(model, optimizer)
    for i in range(first, last):
        optimizer.begin_iteration()
        optimizer.feedback["push"] = 0.01 * i
        for j in range(3):
            step(*data(seed=3 * i + j))
        optimizer.end_iteration()


@pytest.mark.filterwarnings("ignore:.*does not survive")
@pytest.mark.parametrize("middle", [False, True])
def test_a_saved_and_loaded_model_continues_bit_for_bit(middle, tmp_path):
    def compiled():
        model = small_model()
        model.compile(InterventionOptimizer(keras.optimizers.Adam(0.01), rules_of_every_placement()), "mse")
        return model

    model = compiled()
    iterate(model, model.optimizer, 0, 2)
    if middle:
        model.optimizer.begin_iteration()
        train_step(model, model.optimizer)(*data())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same((weights(model), state(model.optimizer)), (weights(loaded), state(loaded.optimizer)))
    for each in (model, loaded):
        iterate(each, each.optimizer, 2, 4)
    assert_same((weights(model), state(model.optimizer)), (weights(loaded), state(loaded.optimizer)))


def test_the_reach_of_the_first_weights_survives_loading(tmp_path):
    model = small_model()
    model.compile(InterventionOptimizer(keras.optimizers.SGD(0.5), [Clipping(0.5, unit="init")]), "mse")
    reach = 0.5 * np.abs(weights(model)["hidden/kernel"]).max()
    model.fit(*data(), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.fit(*data(), epochs=5, verbose=0)
    assert np.abs(weights(loaded)["hidden/kernel"]).max() == np.float32(reach)


def test_weights_loaded_between_iterations_are_the_clean_ones_of_the_next(tmp_path):
    source = small_model(seed=1)
    source.save_weights(tmp_path / "other.weights.h5")
    model = small_model()
    optimizer = InterventionOptimizer(keras.optimizers.SGD(0.0), [Noise(0.1)])
    step = train_step(model, optimizer)
    optimizer.begin_iteration()
    step(*data())
    optimizer.end_iteration()
    model.load_weights(tmp_path / "other.weights.h5")
    with optimizer.clean():
        assert_same(weights(model), weights(source))
    optimizer.begin_iteration()
    step(*data())
    optimizer.end_iteration()
    assert_same(weights(model), weights(source))


def test_the_end_of_fit_leaves_clean_weights_although_nobody_ended_the_iteration():
    model = small_model()
    model.compile(InterventionOptimizer(keras.optimizers.SGD(0.0), [Noise(0.1)]), "mse")
    model.optimizer.begin_iteration()
    model.fit(*data(), verbose=0)
    assert_same(weights(model), weights(small_model()))


@pytest.mark.parametrize("style", ["functional", "sequential", "subclassed"])
def test_the_weights_of_a_loaded_model_keep_their_paths(style, tmp_path):
    """Keras drops the model's name from them; selectors and draws, which go by path, must not notice."""
    model = small_model(style)
    model(data()[0])
    paths = [v.path for v in model.trainable_variables]
    model.compile(InterventionOptimizer(keras.optimizers.SGD(0.1), [Clipping(1.0, on=paths[0])]), "mse")
    model.fit(*data(), verbose=0)
    for _ in range(2):  # saved, loaded, saved again
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
        assert [v.path for v in model.trainable_variables] == paths


def test_another_model_made_from_the_configuration_keeps_its_own_paths():
    model = small_model("sequential")
    optimizer = InterventionOptimizer(keras.optimizers.SGD(0.1), [Clipping(1.0)])
    optimizer.build(model.trainable_variables)
    layers = [keras.layers.Dense(4, name="a"), keras.layers.Dense(2, name="b")]
    other = keras.Sequential([keras.Input((3,)), *layers])
    paths = [v.path for v in other.trainable_variables]
    InterventionOptimizer.from_config(optimizer.get_config()).build(other.trainable_variables)
    assert [v.path for v in other.trainable_variables] == paths
