"""The four placements, seen by spies in the model and in the inner optimizer: live = clean + offsets."""

import math
from typing import Any

import keras
import numpy as np
import pytest

from rlweights.weights.interventions import PLACEMENTS, Clipping, Increment, Intervention, Noise
from rlweights.weights.optimizer import InterventionOptimizer
from support.keras_models import MODES, assert_same, data, in_mode, small_model, state, train_step, weights

RATE = 0.1


class WitnessLayer(keras.layers.Dense):
    """Notes the kernel that the last forward pass has seen, in compiled code as well."""

    def build(self, input_shape):
        super().build(input_shape)
        self.seen = self.add_weight(shape=self.kernel.shape, trainable=False, name="seen")

    def call(self, inputs, training=None):
        self.seen.assign(self.kernel)
        return super().call(inputs)


class WitnessOptimizer(keras.optimizers.SGD):
    """Notes the weight that its last step has started from, and the gradient it was given."""

    def build(self, variables):
        super().build(variables)
        self.seen = self.add_variable_from_reference(variables[0], "seen")
        self.gradient = self.add_variable_from_reference(variables[0], "gradient")

    def update_step(self, gradient, variable, learning_rate):
        self.seen.assign(variable)
        self.gradient.assign(gradient)
        super().update_step(gradient, variable, learning_rate)


class Experiment:
    """One kernel [3, 2], of which every step records what the loss, the optimizer and the rules saw."""

    def __init__(self, rules, mode="eager", rate=RATE):
        keras.utils.set_random_seed(0)
        self.layer = WitnessLayer(2, use_bias=False, name="only")
        self.model = keras.Sequential([keras.Input((3,)), self.layer], name="spied")
        self.inner = WitnessOptimizer(rate)
        self.optimizer = InterventionOptimizer(self.inner, rules)
        self.step = train_step(self.model, self.optimizer, mode)
        self.begin = in_mode(self.optimizer.begin_iteration, mode)
        self.end = in_mode(self.optimizer.end_iteration, mode)

    def now(self) -> Any:
        return self.layer.kernel.numpy().copy()

    def clean(self):
        with self.optimizer.clean():
            return self.now()

    def run(self, iterations=2, steps=3):
        """Returns the weights before, at and after each step, in a list of dicts for each iteration."""
        record = []
        for i in range(iterations):
            self.begin()
            record.append([])
            for j in range(steps):
                before, live = self.clean(), self.now()
                self.step(*data(seed=10 * i + j))
                record[-1].append(
                    {
                        "clean before": before,
                        "live before": live,
                        "the loss saw": self.layer.seen.numpy(),
                        "the optimizer saw": self.inner.seen.numpy(),
                        "stepped to": self.inner.seen.numpy()
                        - np.float32(RATE) * self.inner.gradient.numpy(),
                        "clean after": self.clean(),
                    }
                )
            self.end()
            record[-1].append(self.now())
        return record


def steps_of(record):
    return [step for iteration in record for step in iteration[:-1]]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_losses_see_live_weights_and_the_inner_optimizer_clean_ones(placement, mode):
    for step in steps_of(Experiment([Noise(0.1, placement=placement)], mode).run()):
        np.testing.assert_array_equal(step["the loss saw"], step["live before"])
        np.testing.assert_array_equal(step["the optimizer saw"], step["clean before"])
        if placement != "after_step":
            np.testing.assert_allclose(step["clean after"], step["stepped to"], atol=1e-7)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_gradient_is_the_one_at_the_live_weights(placement):
    experiment = Experiment([Noise(0.1, placement=placement)])
    experiment.begin()
    live = experiment.now()
    x, y = data()
    experiment.step(x, y)
    expected = x.T @ (x @ live - y) / len(x)  # of the mean over [8, 2] of squares
    np.testing.assert_allclose(experiment.inner.gradient.numpy(), expected, atol=1e-6)


def offsets(record):
    return [[step["the loss saw"] - step["the optimizer saw"] for step in each[:-1]] for each in record]


def test_during_gradient_draws_for_each_step_and_is_undone():
    record = Experiment([Noise(0.1, placement="during_gradient")]).run()
    drawn = [each for iteration in offsets(record) for each in iteration]
    for i, a in enumerate(drawn):
        assert np.std(a) > 0.02
        assert all(not np.allclose(a, b, atol=1e-3) for b in drawn[:i])
    for iteration in record:
        np.testing.assert_array_equal(iteration[-1], iteration[-2]["clean after"])


def test_during_iteration_draws_once_an_iteration_and_is_undone():
    record = Experiment([Noise(0.1, placement="during_iteration")]).run()
    first, second = offsets(record)
    for same in (first, second):
        np.testing.assert_allclose(same[1:], same[:-1], atol=1e-6)
    assert not np.allclose(first[0], second[0], atol=1e-3)
    for iteration in record:
        np.testing.assert_array_equal(iteration[-1], iteration[-2]["clean after"])


def test_after_step_is_kept_after_each_step():
    for step in steps_of(Experiment([Increment(0.5, placement="after_step")]).run()):
        np.testing.assert_allclose(step["clean after"], step["stepped to"] + 0.5, atol=1e-6)
        np.testing.assert_array_equal(step["the loss saw"], step["the optimizer saw"])


def test_after_iteration_is_kept_once_between_iterations():
    first, second = Experiment([Increment(0.5, placement="after_iteration")]).run()
    np.testing.assert_array_equal(first[-1], first[-2]["clean after"] + np.float32(0.5))
    np.testing.assert_array_equal(second[0]["the loss saw"], first[-1])


@pytest.mark.parametrize("mode", MODES)
def test_two_undone_rules_add_up(mode):
    def seen(*names):
        rules = {
            "noise": Noise(0.1, placement="during_iteration"),
            "increment": Increment(0.5, placement="during_gradient"),
        }
        return np.array(offsets(Experiment([rules[name] for name in names], mode, rate=0.0).run()))

    np.testing.assert_allclose(seen("noise", "increment"), seen("noise") + seen("increment"), atol=1e-6)


def test_two_undone_rules_of_one_placement_see_the_same_clean_weights():
    """The second one's offset is that from the clean weights, not from what the first made of them."""

    class Doubled(Intervention):
        placement = "during_gradient"

        def update(self, weight, step):
            return 2.0 * weight

    for step in steps_of(Experiment([Doubled(name="a"), Doubled(name="b")]).run()):
        np.testing.assert_allclose(step["the loss saw"], 3.0 * step["clean before"], rtol=1e-6)


@pytest.mark.parametrize("placement", ["during_gradient", "during_iteration"])
def test_steps_between_iterations_are_clean(placement):
    experiment = Experiment([Noise(0.1, placement=placement)])
    experiment.begin()
    experiment.end()
    for i in range(2):
        clean = experiment.now()
        experiment.step(*data(seed=i))
        gradient = experiment.inner.gradient.numpy()
        np.testing.assert_array_equal(experiment.layer.seen.numpy(), clean)
        np.testing.assert_allclose(experiment.now(), clean - RATE * gradient, atol=1e-7)


def test_a_look_in_the_graph_between_iterations_leaves_weights_that_were_set_meanwhile():
    experiment = Experiment([Noise(0.1)])
    experiment.begin()
    experiment.end()
    experiment.layer.kernel.assign(np.ones((3, 2)))
    experiment.optimizer.restore_clean()
    experiment.optimizer.put_back()
    np.testing.assert_array_equal(experiment.now(), np.ones((3, 2)))


@pytest.mark.filterwarnings("ignore:.*does not survive")
@pytest.mark.parametrize(("order", "largest"), [("clip first", 1.05), ("add first", 0.05)])
def test_after_step_rules_act_in_the_order_of_the_list(order, largest):
    clip, add = Clipping(0.05, unit="absolute"), Increment(1.0)
    experiment = Experiment([clip, add] if order == "clip first" else [add, clip])
    for step in steps_of(experiment.run()):
        assert step["clean after"].max() == np.float32(largest)


def test_weights_that_no_undone_rule_selects_have_no_copies():
    model = small_model()
    optimizer = InterventionOptimizer(keras.optimizers.SGD(0.1), [Noise(0.1, on="head/kernel")])
    optimizer.build(model.trainable_variables)
    kept = {v.name: v.shape for v in optimizer.variables if v.name.startswith(("clean", "during_gradient"))}
    size = math.prod(weights(model)["head/kernel"].shape)
    assert kept == {"clean_float32": (size,), "during_gradient_float32": (size,)}


@pytest.mark.parametrize("mode", MODES)
def test_undone_means_copied_back_not_subtracted(mode):
    """At a learning rate of 0, a hundred steps of noise leave every bit of the weights as it was."""
    experiment = Experiment(
        [Noise(0.1, name="a"), Noise(0.1, placement="during_iteration", name="b")], mode, rate=0.0
    )
    initial = experiment.now()
    for _ in range(20):
        experiment.begin()
        for _ in range(5):
            experiment.step(*data())
        experiment.end()
    np.testing.assert_array_equal(experiment.now(), initial)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("unit", ["fan_in", "init", "absolute"])
def test_clipped_weights_are_inside_to_the_last_bit_after_every_step(unit, mode):
    model = small_model()
    rule = Clipping(0.3, unit=unit)
    optimizer = InterventionOptimizer(keras.optimizers.Adam(0.3), [rule])
    step = train_step(model, optimizer, mode)
    at_the_bound = 0
    for i in range(5):
        step(*data(seed=i))
        for variable in model.trainable_variables:
            limit = rule.limit(variable, i).numpy()
            assert np.abs(variable.numpy()).max() <= limit
            at_the_bound += (np.abs(variable.numpy()) == limit).sum()
    assert at_the_bound > 10


LOOKS = [*((placement, "evaluation") for placement in PLACEMENTS), ("during_iteration", "clean")]


@pytest.mark.parametrize(("placement", "look"), LOOKS)
def test_looking_at_clean_weights_draws_nothing_and_changes_nothing(placement, look):
    def train(looking):
        model = small_model()
        optimizer = InterventionOptimizer(keras.optimizers.Adam(0.01), [Noise(0.1, placement=placement)])
        step = train_step(model, optimizer)
        for i in range(2):
            optimizer.begin_iteration()
            for j in range(2):
                step(*data(seed=2 * i + j))
                if looking:
                    before = weights(model), state(optimizer)
                    with getattr(optimizer, look)():
                        model(data()[0])
                    assert_same(before, (weights(model), state(optimizer)))
            optimizer.end_iteration()
        return weights(model), state(optimizer)

    assert_same(train(looking=False), train(looking=True))


def test_a_look_ends_with_live_weights_even_if_it_fails():
    experiment = Experiment([Noise(0.1)])
    experiment.begin()
    live = experiment.now()

    def look():
        with experiment.optimizer.clean():
            assert not np.array_equal(experiment.now(), live)
            raise RuntimeError("evaluating failed")

    with pytest.raises(RuntimeError, match="evaluating failed"):
        look()
    np.testing.assert_array_equal(experiment.now(), live)


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_a_look_in_the_graph_sees_clean_weights_and_puts_the_same_offsets_back(mode):
    experiment = Experiment([Noise(0.1)], mode)
    experiment.begin()
    live, clean = experiment.now(), experiment.clean()

    def look():
        experiment.optimizer.restore_clean()
        seen = experiment.layer.kernel + 0.0
        experiment.optimizer.put_back()
        return seen

    np.testing.assert_array_equal(in_mode(look, mode)().numpy(), clean)
    # XLA drew the live weights with a fused multiply-add, which rounds once where a sum rounds twice.
    np.testing.assert_allclose(experiment.now(), live, rtol=0 if mode == "graph" else 1e-6)
