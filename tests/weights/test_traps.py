"""What goes wrong with weights in a compiled step: each trap going wrong, and the way around it.

docs/weights-in-a-compiled-step.md tells the story of each; it names these tests.
"""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from rlweights.learning.algorithms import PPO
from rlweights.weights.interventions import (
    Averaging,
    Clipping,
    Feedback,
    Increment,
    Intervention,
    Noise,
    Projection,
)
from rlweights.weights.optimizer import InterventionOptimizer
from rlweights.weights.selection import depth, kind, layers, path, select
from support.keras_models import assert_same, data, small_model, train_step, weights


def kernel(value):
    return keras.Variable(np.array(value, np.float32), name="kernel")


def stepped(weight, rules, gradient, rate=1.0, steps=1):
    """Takes steps with rlweights in a compiled function; returns the optimizer."""
    optimizer = InterventionOptimizer(keras.optimizers.SGD(rate), rules)
    optimizer.build([weight])
    optimizer.begin_iteration()
    step = tf.function(lambda: optimizer.apply([tf.constant(gradient)]), jit_compile=True)
    for _ in range(steps):
        step()
    optimizer.end_iteration()
    return optimizer


def sgd_step(weight, rate=1.0):
    optimizer = keras.optimizers.SGD(rate)
    optimizer.build([weight])
    return optimizer


# 1 --------------------------------------------------------------------------------------------------


def test_a_value_read_before_the_step_undoes_the_step():
    weight = kernel([0.5])
    optimizer = sgd_step(weight, rate=0.1)

    @tf.function
    def wrong(gradient):
        value = tf.convert_to_tensor(weight)
        optimizer.apply([gradient])
        weight.assign(tf.clip_by_value(value, -1.0, 1.0))

    @tf.function
    def right(gradient):
        optimizer.apply([gradient])
        weight.assign(tf.clip_by_value(weight, -1.0, 1.0))

    wrong(tf.constant([1.0]))
    assert weight.numpy() == [0.5]
    right(tf.constant([1.0]))
    assert weight.numpy() == pytest.approx([0.4])


def test_rules_act_on_the_weights_after_the_step():
    weight = kernel([0.5])
    stepped(weight, [Clipping(1.0, unit="absolute")], [1.0], rate=0.1)
    assert weight.numpy() == pytest.approx([0.4])


def test_a_keras_variable_converted_to_a_tensor_is_still_the_variable():
    weight = kernel([0.5])
    optimizer = sgd_step(weight)

    @tf.function
    def change(read):
        before = read(weight)
        optimizer.apply([tf.constant([1.0])])
        return weight - before

    assert change(ops.convert_to_tensor).numpy() == [0.0]
    assert change(ops.copy).numpy() == [-1.0]


def test_rules_measure_their_change_against_a_copy():
    optimizer = stepped(kernel([0.5]), [Increment(0.25)], [0.0])
    assert float(optimizer.metrics()["increment/relative_change"]) == 0.5


# 2 --------------------------------------------------------------------------------------------------


def test_clipping_before_the_step_leaves_weights_outside():
    weight = kernel([1.0])
    optimizer = sgd_step(weight, rate=0.5)

    @tf.function
    def wrong(gradient):
        weight.assign(tf.clip_by_value(weight, -1.0, 1.0))
        optimizer.apply([gradient])

    wrong(tf.constant([-1.0]))
    assert weight.numpy() == [1.5]


def test_rules_clip_after_the_step():
    weight = kernel([1.0])
    stepped(weight, [Clipping(1.0, unit="absolute")], [-1.0], rate=0.5)
    assert weight.numpy() == [1.0]


# 3 --------------------------------------------------------------------------------------------------


def test_state_made_inside_the_step_fails():
    weight = kernel([0.5])

    @tf.function
    def wrong(gradient):
        optimizer = keras.optimizers.Adam(0.1)
        optimizer.apply([gradient], [weight])

    with pytest.raises(ValueError, match=r"tf\.function"):
        wrong(tf.constant([1.0]))


def test_a_python_number_retraces_for_every_value():
    weight = kernel([0.5])

    @tf.function
    def clip(bound):
        weight.assign(tf.clip_by_value(weight, -bound, bound))

    for bound in (0.5, 0.4, 0.3, 0.2, 0.1):
        clip(bound)
    assert clip.experimental_get_tracing_count() == 5
    for bound in (0.5, 0.4, 0.3, 0.2, 0.1):
        clip(tf.constant(bound))
    assert clip.experimental_get_tracing_count() == 6


def test_strengths_that_change_trace_once():
    rules = [
        Noise(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)),
        Clipping(Feedback("bound", 0.5)),
    ]
    optimizer = InterventionOptimizer(keras.optimizers.Adam(0.1), rules)
    step = train_step(small_model(), optimizer, "xla")  # builds, then traces
    optimizer.begin_iteration()
    for bound in (0.5, 0.4, 0.3, 0.2):
        optimizer.feedback["bound"] = bound
        step(*data())
    assert step.experimental_get_tracing_count() == 1


# 4 --------------------------------------------------------------------------------------------------


def drawn(draw):
    """What three calls of one compiled function draw."""
    call = tf.function(draw)
    return [float(call(tf.constant(i))) for i in range(3)]


def test_numpy_draws_once_and_an_integer_seed_always_the_same():
    rng = np.random.default_rng(0)
    assert len(set(drawn(lambda step: tf.constant(rng.normal(), tf.float32)))) == 1
    assert len(set(drawn(lambda step: keras.random.normal((), seed=7)))) == 1


def test_a_generator_or_a_draw_from_the_step_is_fresh_each_time():
    seeds = keras.random.SeedGenerator(7)
    assert len(set(drawn(lambda step: keras.random.normal((), seed=seeds)))) == 3
    assert len(set(drawn(lambda step: tf.random.stateless_normal((), seed=tf.stack([7, step]))))) == 3


def test_noise_is_fresh_at_each_step():
    weight, seen = kernel([0.0]), []
    optimizer = InterventionOptimizer(keras.optimizers.SGD(0.0), [Noise(1.0)])
    optimizer.build([weight])
    optimizer.begin_iteration()
    step = tf.function(lambda: optimizer.apply([tf.constant([0.0])]), jit_compile=True)
    for _ in range(4):
        seen.append(float(weight.numpy()[0]))
        step()
    assert len(set(seen)) == 4


# 5 --------------------------------------------------------------------------------------------------


class Box(keras.constraints.Constraint):
    def __call__(self, w):
        return ops.clip(w, -1.0, 1.0)


def test_kerass_average_is_taken_before_its_constraints():
    layer = keras.layers.Dense(1, kernel_constraint=Box(), use_bias=False)
    layer.build((None, 1))
    optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5)
    optimizer.build([layer.kernel])
    for _ in range(3):
        optimizer.apply([tf.constant([[-5.0]])])
    [average] = [v for v in optimizer.variables if "average" in v.path]
    assert layer.kernel.numpy() == 1.0
    assert average.numpy() > 1.0


def test_averaging_behind_clipping_stays_inside():
    optimizer = stepped(kernel([0.5]), [Clipping(1.0, unit="absolute"), Averaging(0.5)], [-5.0], steps=3)
    [average] = optimizer.interventions[-1].averages
    assert 0.5 < average.numpy() < 1.0


def test_kerass_constraints_skip_weights_without_a_gradient():
    constrained = keras.Variable([3.0], name="kernel")
    constrained.constraint = Box()
    other = kernel([0.0])
    optimizer = keras.optimizers.SGD(0.1)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([None, tf.constant([1.0])], [constrained, other])
    assert constrained.numpy() == [3.0]


def test_rules_act_on_weights_without_a_gradient():
    idle, other = keras.Variable([3.0], name="kernel"), kernel([0.0])
    optimizer = InterventionOptimizer(keras.optimizers.SGD(0.1), [Projection(Box())])
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([None, tf.constant([1.0])], [idle, other])
    assert idle.numpy() == [1.0]


# 6 --------------------------------------------------------------------------------------------------


def test_paths_depend_on_the_kind_of_model_and_on_what_was_made_before():
    assert small_model("functional").weights[0].path == "hidden/kernel"
    assert small_model("sequential").weights[0].path == "net/hidden/kernel"
    first, second = keras.layers.Dense(1), keras.layers.Dense(1)
    first.build((None, 1))
    second.build((None, 1))
    assert first.kernel.path != second.kernel.path


def test_a_selector_of_nothing_raises_and_lists_all_paths():
    model = small_model()
    with pytest.raises(ValueError, match="selects none of the weights: hidden/kernel, hidden/bias"):
        path("net/hidden/kernel")(model.trainable_variables)


@pytest.mark.parametrize("style", ["functional", "sequential"])
def test_selectors_that_do_not_care_about_the_models_name(style):
    model = small_model(style)
    wanted = [model.get_layer("head").kernel]
    for on in (
        ".*head/kernel",
        kind("kernel") & layers("head"),
        kind("kernel") & layers(model.get_layer("head")),
        kind("kernel") & depth(-1),
    ):
        assert [id(v) for v in select(on)(model.trainable_variables)] == [id(v) for v in wanted]


# 7 --------------------------------------------------------------------------------------------------


def first_step(epsilon, gradient=1e-6):
    """How far Adam's first step goes, in learning rates."""
    weight = kernel([0.0])
    arguments = {} if epsilon is None else {"epsilon": epsilon}
    optimizer = keras.optimizers.Adam(1.0, **arguments)
    optimizer.apply([tf.constant([gradient])], [weight])
    return -float(weight.numpy()[0])


def test_kerass_epsilon_is_not_the_one_of_the_references():
    def by_hand(epsilon, g=1e-6):
        rate = np.sqrt(1 - 0.999) / (1 - 0.9)
        return rate * (0.1 * g) / (np.sqrt(0.001) * g + epsilon)

    assert first_step(None) == pytest.approx(by_hand(1e-7), rel=1e-3)
    assert first_step(1e-5) == pytest.approx(by_hand(1e-5), rel=1e-3)
    assert first_step(None) > 50 * first_step(1e-5)


def test_ppo_takes_the_epsilon_of_the_references():
    assert PPO().default_optimizer["epsilon"] == 1e-5


# 8 --------------------------------------------------------------------------------------------------


def test_keras_kernels_are_in_by_out():
    layer = keras.layers.Dense(5)
    layer.build((None, 3))
    assert tuple(layer.kernel.shape) == (3, 5)
    initializer = keras.initializers.VarianceScaling(1.0, "fan_in", "uniform", seed=0)
    drawn: Any = initializer((3, 500)).numpy()
    assert np.abs(drawn).max() == pytest.approx(np.sqrt(3.0 / 3.0), rel=0.01)  # and not sqrt(3 / 500)


def test_clipping_takes_the_fan_in_of_the_layers_kernel():
    inputs = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(4, 3, name="image")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(5, name="head")(keras.layers.Flatten()(x)))
    rule = Clipping(1.0)
    InterventionOptimizer(keras.optimizers.SGD(), [rule]).build(model.trainable_variables)
    limits = {v.path: float(rule.limit(v, 0)) for v in model.trainable_variables}
    assert limits == pytest.approx(
        {
            "image/kernel": (3 * 3 * 2) ** -0.5,
            "image/bias": (3 * 3 * 2) ** -0.5,
            "head/kernel": (6 * 6 * 4) ** -0.5,
            "head/bias": (6 * 6 * 4) ** -0.5,
        }
    )


# 9 --------------------------------------------------------------------------------------------------


def test_an_evaluation_that_takes_the_noise_out_and_draws_it_again_changes_the_training():
    def trained(evaluating):
        weight, clean = kernel([0.0]), kernel([0.0])
        seeds = keras.random.SeedGenerator(0)
        for _ in range(3):
            weight.assign(clean + keras.random.normal([1], seed=seeds))
            if evaluating:
                weight.assign(clean)
                weight.assign(clean + keras.random.normal([1], seed=seeds))
            clean.assign_sub(0.1 * weight)
        return clean.numpy()

    assert trained(evaluating=False) != trained(evaluating=True)


def test_an_evaluation_exchanges_weights_and_draws_nothing():
    def trained(evaluating):
        model = small_model()
        optimizer = InterventionOptimizer(keras.optimizers.SGD(0.1), [Noise(0.5)])
        step = train_step(model, optimizer)
        optimizer.begin_iteration()
        for _ in range(3):
            if evaluating:
                with optimizer.evaluation():
                    model(data()[0])
            step(*data())
        optimizer.end_iteration()
        return weights(model)

    assert_same(trained(evaluating=False), trained(evaluating=True))


# 10 -------------------------------------------------------------------------------------------------


def test_noise_that_is_subtracted_again_leaves_its_rounding():
    rng = np.random.default_rng(0)
    initial = rng.normal(size=10_000).astype(np.float32)
    once = initial + (noise := rng.normal(size=10_000).astype(np.float32)) - noise
    assert 0.5 < np.mean(once == initial) < 0.95
    weight = initial.copy()
    for _ in range(1_000):
        noise = rng.normal(size=10_000).astype(np.float32)
        weight = (weight + noise) - noise
    assert np.abs(weight - initial).max() > 1e-6


def test_noise_that_is_undone_by_a_copy_leaves_nothing():
    initial = np.random.default_rng(0).normal(size=1_000).astype(np.float32)
    weight = kernel(initial)
    stepped(weight, [Noise(1.0)], np.zeros(1_000, np.float32), steps=100)
    np.testing.assert_array_equal(weight.numpy(), initial)


# 11 -------------------------------------------------------------------------------------------------


def test_a_keras_variable_adds_what_does_not_fit():
    weight = kernel(np.zeros((3, 2)))
    weight.assign_add(tf.constant([1.0, 2.0]))  # meant for the bias
    np.testing.assert_array_equal(weight.numpy(), [[1.0, 2.0]] * 3)


def test_a_rule_of_another_shape_is_refused_while_the_graph_is_built():
    class Wrong(Intervention):
        def delta(self, weight, step):
            return tf.constant([1.0, 2.0])

    weight = kernel(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"`delta` must keep shape \(3, 2\).*Received: shape \(2,\)"):
        stepped(weight, [Wrong()], np.zeros((3, 2), np.float32))
    np.testing.assert_array_equal(weight.numpy(), np.zeros((3, 2)))
