"""Feedback: written from Python, a callback or another thread while the one compiled step runs."""

import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from rlweights.weights.callbacks import WeightMonitor
from rlweights.weights.interventions import Clipping, Feedback, Increment, Intervention, Noise
from rlweights.weights.optimizer import InterventionOptimizer
from support.keras_models import data, in_mode, small_model, train_step


def one_weight(rule, feedback=None, mode="xla", size=1):
    """A weight that only the rule moves, its optimizer and the compiled step."""
    weight = keras.Variable(np.zeros(size, np.float32), name="kernel")
    optimizer = InterventionOptimizer(keras.optimizers.SGD(0.0), [rule], feedback=feedback)
    optimizer.build([weight])
    return weight, optimizer, in_mode(lambda: optimizer.apply([tf.zeros([size])]), mode)


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_what_is_written_is_read_by_the_next_step_without_a_retrace(mode):
    weight, optimizer, step = one_weight(Increment(Feedback("amount", 1.0)), mode=mode)
    seen = []
    for amount in (None, 2.0, np.float64(3.0), tf.constant(4.0), 5):
        if amount is not None:
            optimizer.feedback["amount"] = amount
        step()
        seen.append(float(weight.numpy()[0]))
    assert np.diff([0.0, *seen]).tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    if mode != "eager":
        assert step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_another_thread_may_write_while_the_compiled_step_runs(mode):
    weight, optimizer, step = one_weight(Increment(Feedback("amount")), mode=mode)
    done = threading.Event()
    written = 0

    def write():
        nonlocal written
        while not done.is_set():
            written += 1
            optimizer.feedback["amount"] = float(written)

    thread = threading.Thread(target=write)
    thread.start()
    values, deadline = [0.0], time.monotonic() + 60.0
    try:
        while len(set(np.diff(values))) < 20 and time.monotonic() < deadline:
            step()
            values.append(float(weight.numpy()[0]))
    finally:
        done.set()
        thread.join()
    increments = np.diff(values)
    assert len(set(increments)) >= 20
    assert np.all(np.diff(increments) >= 0)  # each step read one whole, ever newer value
    assert np.all(np.isin(increments, np.arange(written + 1)))
    assert step.experimental_get_tracing_count() == 1


def test_a_tensor_of_feedback_is_added_entry_by_entry():
    weight, optimizer, step = one_weight(Increment(Feedback("wind", np.zeros(3))), size=3)
    optimizer.feedback["wind"] = [1.0, 2.0, 3.0]
    step()
    step()
    np.testing.assert_array_equal(weight.numpy(), [2.0, 4.0, 6.0])


def test_a_learning_rule_of_weight_step_and_feedback():
    """Hebb's rule from outside: the weight follows the reward, slower with each step."""

    def rule(weight, step, feedback):
        return feedback["reward"] * (1.0 + weight) / keras.ops.cast(step + 1, weight.dtype)

    weight, optimizer, step = one_weight(Increment(rule, feedback={"reward": 0.0}))
    expected = 0.0
    for i, reward in enumerate([1.0, -0.5, 2.0]):
        optimizer.feedback["reward"] = reward
        step()
        expected += reward * (1.0 + expected) / (i + 1)
    assert weight.numpy()[0] == pytest.approx(expected)


def test_rules_that_name_the_same_feedback_share_it():
    rules = [Increment(Feedback("amount"), name="a"), Increment(Feedback("amount"), name="b")]
    weight = keras.Variable([0.0], name="kernel")
    optimizer = InterventionOptimizer(keras.optimizers.SGD(0.0), rules)
    optimizer.build([weight])
    assert list(optimizer.feedback) == ["amount"]
    optimizer.feedback["amount"] = 1.5
    optimizer.apply([tf.zeros([1])])
    assert weight.numpy()[0] == 3.0


def test_further_feedback_may_be_declared_by_the_optimizer_and_read_in_a_graph():
    _, optimizer, _ = one_weight(Clipping(1.0, unit="absolute"), feedback={"kl": 0.25})
    assert len(optimizer.feedback) == 1
    double = tf.function(lambda: 2.0 * optimizer.feedback["kl"])
    assert float(double()) == 0.5
    optimizer.feedback["kl"] = 1.0
    assert float(double()) == 2.0


def test_names_may_be_paths():
    _, optimizer, _ = one_weight(Increment(Feedback("dormant_score/policy/hidden_0")))
    optimizer.feedback["dormant_score/policy/hidden_0"] = 1.0
    assert float(optimizer.feedback["dormant_score/policy/hidden_0"]) == 1.0


def test_feedback_may_be_written_in_the_graph():
    weight, optimizer, _ = one_weight(Increment(Feedback("amount")))

    @tf.function(jit_compile=True)
    def step(reward):
        optimizer.feedback["amount"] = 2.0 * reward
        optimizer.apply([tf.zeros([1])])

    step(tf.constant(3.0))
    assert weight.numpy()[0] == 6.0


def test_a_feedback_that_nobody_reads_is_refused_with_those_that_exist():
    _, optimizer, _ = one_weight(Increment(Feedback("amount")))
    with pytest.raises(KeyError, match="'amont'; there are: amount"):
        optimizer.feedback["amont"] = 1.0
    unbuilt = InterventionOptimizer(keras.optimizers.SGD(), [Increment(Feedback("amount"))])
    with pytest.raises(KeyError, match="build the optimizer first"):
        unbuilt.feedback["amount"]


def test_a_value_of_another_shape_is_refused():
    _, optimizer, _ = one_weight(Increment(Feedback("amount")))
    with pytest.raises(ValueError, match=r"'amount' takes shape \(\). Received: \(2,\)"):
        optimizer.feedback["amount"] = [1.0, 2.0]


def test_one_name_with_two_shapes_is_refused():
    rules = [Increment(Feedback("x", np.zeros(1)), name="a"), Increment(Feedback("x"), name="b")]
    optimizer = InterventionOptimizer(keras.optimizers.SGD(0.0), rules)
    with pytest.raises(ValueError, match=r"'x' has shape \(1,\) in one place and \(\) in another"):
        optimizer.build([keras.Variable([0.0], name="kernel")])


def test_a_rule_of_ones_own_declares_feedback_in_build():
    class Follower(Intervention):
        def build(self, variables):
            self.target = self.feedback("target", 0.5)

        def update(self, weight, step):
            return keras.ops.broadcast_to(self.target(step), weight.shape)

    weight, optimizer, step = one_weight(Follower())
    step()
    assert weight.numpy()[0] == 0.5
    optimizer.feedback["target"] = -1.0
    step()
    assert weight.numpy()[0] == -1.0


def test_a_keras_callback_writes_feedback_that_sets_the_noise():
    class NoiseFollowsLoss(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            assert logs is not None
            self.model.optimizer.feedback["size"] = 0.1 * logs["loss"]

    model = small_model()
    optimizer = InterventionOptimizer(keras.optimizers.SGD(0.1), [Noise(Feedback("size"))])
    model.compile(optimizer, "mse")
    history = model.fit(
        *data(), epochs=3, verbose=0, batch_size=8, callbacks=[WeightMonitor(), NoiseFollowsLoss()]
    ).history
    # The noise of an epoch of one step is drawn before the loss of that step is known.
    expected = [0.0, *np.multiply(0.1, history["loss"][:2])]
    np.testing.assert_allclose(history["intervention/noise/stddev"], expected, rtol=1e-6)


def test_feedback_is_kept_in_a_saved_model(tmp_path):
    model = small_model()
    model.compile(InterventionOptimizer(keras.optimizers.SGD(0.1), [Clipping(Feedback("bound", 0.5))]), "mse")
    train_step(model, model.optimizer)(*data())
    model.optimizer.feedback["bound"] = 0.25
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert float(loaded.optimizer.feedback["bound"]) == 0.25
