"""Shapes at run time: those of the docstrings hold, and a wrong one is caught where it comes in."""

import numpy as np
import pytest
import tensorflow as tf

from rlweights.learning.algorithms import PPO
from rlweights.learning.batch import Batch
from rlweights.learning.distributions import Bernoulli, Categorical, Gaussian, MultiCategorical
from support import shapes
from support.builders import learn, random_batch, tiny_learner
from support.shapes import TypeCheckError

T, N = 5, 3
PER_STEP = ("rewards", "values", "next_values", "discounts", "continues")
DISTRIBUTIONS = [Categorical(4), MultiCategorical([2, 3]), Bernoulli(3), Gaussian(2)]


def learner(**options):
    return tiny_learner(PPO(n_steps=6, n_epochs=2, batch_size=4), **options)


def transposed(array):
    return np.ascontiguousarray(np.swapaxes(array, 0, 1))


def per_step(*names):
    rng = np.random.default_rng(0)
    return {name: rng.random((T, N)).astype(np.float32) for name in names}


# Returns ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [np.asarray, tf.constant])
def test_returns_have_their_shapes(convert):
    given = {name: convert(value) for name, value in per_step(*PER_STEP).items()}
    assert shapes.generalized_advantages(**given, gae_lambda=0.9).shape == (T, N)
    picked = {name: given[name] for name in ("rewards", "discounts", "continues")}
    assert shapes.discounted_returns(**picked, bootstrap=convert(np.zeros(N, np.float32))).shape == (T, N)


@pytest.mark.parametrize("name", PER_STEP)
def test_advantages_of_a_transposed_argument_are_refused(name):
    given = per_step(*PER_STEP)
    with pytest.raises(TypeCheckError):
        shapes.generalized_advantages(**given | {name: transposed(given[name])}, gae_lambda=0.9)


@pytest.mark.parametrize("wrong", [np.zeros(T), np.zeros((1, N)), np.zeros(())])
def test_returns_that_go_on_from_another_shape_are_refused(wrong):
    with pytest.raises(TypeCheckError):
        shapes.discounted_returns(
            **per_step("rewards", "discounts", "continues"), bootstrap=wrong.astype(np.float32)
        )


def test_a_float64_array_is_refused():
    given = per_step(*PER_STEP)
    with pytest.raises(TypeCheckError):
        shapes.generalized_advantages(**given | {"values": given["values"].astype(float)}, gae_lambda=0.9)


def test_shapes_are_checked_while_a_graph_is_traced():
    traced = tf.function(shapes.generalized_advantages, autograph=False)
    given = {name: tf.constant(value) for name, value in per_step(*PER_STEP).items()}
    assert traced(**given, gae_lambda=0.9).shape == (T, N)
    with pytest.raises(TypeCheckError):
        traced(**given | {"values": tf.transpose(given["values"])}, gae_lambda=0.9)


# Batch --------------------------------------------------------------------------------------------


def test_a_batch_has_its_shapes():
    shapes.batch(*random_batch(learner()))


@pytest.mark.parametrize("name", Batch._fields)
def test_a_batch_with_a_transposed_entry_is_refused(name):
    given = random_batch(learner())
    with pytest.raises(TypeCheckError):
        shapes.batch(*given._replace(**{name: transposed(getattr(given, name))}))


def test_a_batch_that_is_transposed_as_a_whole_is_refused():
    """Where T and N change places in everything, the last observations alone know how many there were."""
    given = random_batch(learner())
    turned = Batch(*map(transposed, given))._replace(last_observations=given.last_observations)
    with pytest.raises(TypeCheckError):
        shapes.batch(*turned)


# Distributions ------------------------------------------------------------------------------------


def numbers(distribution, seed=0):
    rng = np.random.default_rng(seed)
    parameters = rng.normal(size=(T, N, distribution.parameter_size)).astype(np.float32)
    return parameters, distribution.noise(rng, (T, N))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda each: type(each).__name__)
def test_distributions_have_their_shapes(distribution):
    checked = shapes.checked_distribution(distribution)
    parameters, noise = numbers(distribution)
    checked.sample_numpy(parameters, noise)
    parameters, noise = tf.constant(parameters), tf.constant(noise)
    actions = checked.sample(parameters, noise)
    assert actions.shape == checked.mode(parameters).shape == (T, N, *distribution.action_shape)
    assert checked.log_prob(parameters, actions).shape == (T, N)
    checked.entropy(parameters)
    checked.kl(parameters, parameters)
    checked.distance(parameters, parameters, tf.ones((T, N)))
    flat = tf.reshape(parameters, [T * N, -1])
    checked.log_prob(flat, tf.reshape(actions, [T * N, *distribution.action_shape]))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda each: type(each).__name__)
def test_distributions_refuse_other_shapes(distribution):
    checked = shapes.checked_distribution(distribution)
    parameters, noise = numbers(distribution)
    actions = distribution.sample_numpy(parameters, noise)
    for call in (
        lambda: checked.sample(parameters, transposed(noise)),
        lambda: checked.sample_numpy(parameters, noise[..., None]),
        lambda: checked.mode(parameters[..., :-1]),
        lambda: checked.log_prob(parameters, transposed(actions)),
        lambda: checked.log_prob(parameters, actions[..., None]),
        lambda: checked.entropy(parameters[..., None]),
        lambda: checked.kl(parameters, transposed(parameters)),
        lambda: checked.distance(parameters, parameters, np.ones((N, T), np.float32)),
    ):
        with pytest.raises(TypeCheckError):
            call()


# Learner ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", [Categorical(3), Gaussian(2)], ids=["categorical", "gaussian"])
def test_an_iteration_keeps_all_shapes_and_the_checks_change_nothing(monkeypatch, distribution):
    options = {"distribution": distribution, "normalize_rewards": True}
    plain, checked = learner(**options), learner(**options)
    shapes.checked_learner(checked, monkeypatch)
    given = random_batch(plain)
    found = learn(checked, given)
    monkeypatch.undo()
    assert found == learn(plain, given)


@pytest.mark.parametrize("name", Batch._fields)
def test_a_learner_is_given_no_transposed_entry(monkeypatch, name):
    checked = learner()
    shapes.checked_learner(checked, monkeypatch)
    given = random_batch(checked)
    with pytest.raises(TypeCheckError):
        learn(checked, given._replace(**{name: transposed(getattr(given, name))}))


class Broadcasting(PPO):
    """A loss [B, 1] of log-probabilities [B]: it would be averaged over B * B numbers without an error."""

    def policy_loss(self, log_prob, batch, progress):
        loss, statistics = super().policy_loss(log_prob, batch, progress)
        return loss[:, None], statistics


def test_a_loss_that_would_broadcast_is_caught(monkeypatch):
    algorithm = Broadcasting(n_steps=6, batch_size=4)
    silent = tiny_learner(algorithm)
    learn(silent, random_batch(silent))  # without the checks nothing is noticed
    checked = tiny_learner(algorithm)
    shapes.checked_learner(checked, monkeypatch)
    with pytest.raises(TypeCheckError):
        learn(checked, random_batch(checked))


def test_values_with_an_axis_too_many_are_caught(monkeypatch):
    checked = learner()
    monkeypatch.setattr(checked.networks, "values", checked.networks.value)  # [B, 1], not squeezed
    shapes.checked_learner(checked, monkeypatch)
    with pytest.raises(TypeCheckError):
        learn(checked, random_batch(checked))
