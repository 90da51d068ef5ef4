"""Losses by hand, hyper-parameters that refuse nonsense, and probes that each algorithm must solve."""

from typing import Any

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from rlweights.learning.algorithms import A2C, ALGORITHMS, PPO, Algorithm, Linear, Reinforce, at
from rlweights.learning.batch import Minibatch
from rlweights.learning.continuation import ReplayedVector
from rlweights.learning.distributions import Categorical, Gaussian
from rlweights.learning.loops.host import HostPrograms
from rlweights.learning.rollout import Rollout
from support.builders import stepper_of, tiny_learner
from support.probes import (
    ActionMatters,
    ActionMustMatch,
    ConstantReward,
    ContinuousMustMatch,
    DelayedReward,
    ObservedReward,
    vectorised,
)


def minibatch(**given: Any) -> Minibatch:
    ones = np.ones(4, np.float32)
    fields: dict[str, Any] = dict.fromkeys(Minibatch._fields, ones) | {
        name: np.asarray(value, np.float32) for name, value in given.items()
    }
    return Minibatch(**fields)


def test_ppo_loss_by_hand():
    """max(-rA, -clip(r)A) on both sides of the range, for both signs of the advantage."""
    ratio = np.array([1.5, 1.5, 0.5, 0.5], np.float32)
    batch = minibatch(old_log_prob=np.zeros(4), advantages=[2.0, -2.0, 2.0, -2.0])
    loss, statistics = PPO(clip_range=0.2).policy_loss(np.log(ratio), batch, 0.0)
    np.testing.assert_allclose(loss, [-2.4, 3.0, -1.0, 1.6], rtol=1e-6)
    np.testing.assert_array_equal(statistics["clip_fraction"], [1.0, 1.0, 1.0, 1.0])
    _, statistics = PPO(clip_range=0.6).policy_loss(np.log(ratio), batch, 0.0)
    np.testing.assert_array_equal(statistics["clip_fraction"], [0.0] * 4)


def test_ppo_value_clipping_by_hand():
    batch = minibatch(old_values=[1.0, 1.0, 1.0, 1.0], returns=[2.0, 2.0, 0.0, 1.0])
    values = np.array([1.5, 1.05, 0.5, 1.0], np.float32)
    found = PPO(clip_range_vf=0.1).value_loss(values, batch, 0.0)
    np.testing.assert_allclose(found, [0.81, 0.9025, 0.81, 0.0], rtol=1e-5)
    np.testing.assert_allclose(PPO().value_loss(values, batch, 0.0), [0.25, 0.9025, 0.25, 0.0], rtol=1e-5)


def test_ppo_ranges_follow_the_progress():
    linear = Linear.model_validate({"from": 0.4, "to": 0.0})
    batch = minibatch(old_log_prob=np.zeros(4), old_values=np.zeros(4), returns=np.zeros(4))
    log_ratio = np.log(np.float32([1.3] * 4))
    for progress, expected in ((0.0, 1.3), (0.5, 1.2)):
        loss, _ = PPO(clip_range=linear).policy_loss(log_ratio, batch, progress)
        np.testing.assert_allclose(loss, -expected, rtol=1e-6)
    values = np.ones(4, np.float32)
    np.testing.assert_allclose(PPO(clip_range_vf=linear).value_loss(values, batch, 0.5), 0.04, rtol=1e-5)


@pytest.mark.parametrize("algorithm", [A2C(), Reinforce()])
def test_score_function_loss_by_hand(algorithm):
    batch = minibatch(advantages=[1.0, -2.0, 0.0, 3.0])
    loss, _ = algorithm.policy_loss(np.float32([-1.0, -1.0, -5.0, -0.5]), batch, 0.0)
    np.testing.assert_allclose(loss, [1.0, -2.0, 0.0, 1.5])


def test_target_kl_counts_one_and_a_half_times():
    assert PPO(target_kl=0.02).target_divergence == pytest.approx(0.03)
    assert PPO().target_divergence is None
    assert A2C().target_divergence is None


def test_linear_values():
    linear = Linear.model_validate({"from": 1e-3, "to": 0.0})
    assert at(linear, 0.25) == pytest.approx(7.5e-4)
    assert at(0.2, 0.7) == 0.2


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gamma", 1.5),
        ("gamma", "0.99"),
        ("gae_lambda", -0.1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", {"from": 1e-3}),
        ("learning_rate", {"from": 1e-3, "to": 0.0, "over": 5}),
        ("n_steps", 0),
        ("n_steps", 12.5),
        ("n_epochs", True),
        ("batch_size", 0),
        ("normalize_advantage", "yes"),
        ("ent_coef", -0.01),
        ("max_grad_norm", 0.0),
        ("clip_ragne", 0.2),
    ],
)
def test_nonsense_is_refused(name, key, value):
    with pytest.raises(ValidationError) as raised:
        ALGORITHMS[name].model_validate({key: value})
    assert key in str(raised.value)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_is_known_by_its_name_and_its_optimizer_exists(name):
    algorithm: Any = ALGORITHMS[name]()
    assert algorithm.name == name
    arguments = dict(algorithm.default_optimizer)
    inner = keras.optimizers.get({"class_name": arguments.pop("name"), "config": arguments})
    assert inner.epsilon == 1e-5  # Keras' own default differs from that of every reference
    with pytest.raises(ValidationError):
        algorithm.gamma = 0.5


def test_the_base_has_no_loss():
    with pytest.raises(NotImplementedError):
        Algorithm().policy_loss(np.zeros(4), minibatch(), 0.0)


# Probes -------------------------------------------------------------------------------------------

GAMMA = 0.5
LEARNERS = {
    "ppo": PPO(n_steps=16, batch_size=32, n_epochs=4, gamma=GAMMA, learning_rate=1e-2),
    "a2c": A2C(n_steps=8, gamma=GAMMA, learning_rate=1e-2, max_grad_norm=None),
    "reinforce": Reinforce(n_steps=16, gamma=GAMMA, learning_rate=2e-2),
}


@pytest.fixture(scope="module", params=LEARNERS)
def train(request):
    """A function that trains one algorithm on a probe and returns its networks as functions."""
    agents: dict[Any, Any] = {}

    def train(probe, iterations):
        distribution = Categorical(2) if probe.action_space == ActionMatters.action_space else Gaussian(1)
        kind = type(distribution)
        if kind not in agents:  # one program for all probes: only its weights begin anew
            learner = tiny_learner(
                LEARNERS[request.param],
                distribution=distribution,
                observation_shape=(1,),
                num_envs=8,
                inner=keras.optimizers.Adam(1e-2, epsilon=1e-5, name="inner"),
                total_iterations=1000,
                hidden_sizes=(16,),
                policy_gain=0.01,
            )
            programs = HostPrograms(learner, (1,), "float32", 8, xla=False)
            agents[kind] = learner, programs, [v.numpy().copy() for v in learner.variables]
        learner, programs, start = agents[kind]
        for variable, value in zip(learner.variables, start, strict=True):
            variable.assign(value)
        envs = vectorised([probe] * 8)
        rollout = Rollout(ReplayedVector(stepper_of(envs)), distribution, learner.algorithm.n_steps, seed=0)
        rollout.begin(0)
        for i in range(iterations):
            programs.begin()
            batch, _ = rollout.collect(programs.policy, programs.value, i)
            programs.learn(batch)
        envs.close()

        def value(observation):
            return float(learner.networks.values(np.array([[observation]], np.float32))[0])

        def policy(observation):
            parameters = np.array(learner.networks.policy(np.array([[observation]], np.float32)))[0]
            return parameters if kind is Gaussian else np.exp(parameters) / np.exp(parameters).sum()

        return value, policy

    return train


def test_constant_reward_is_learned_as_value(train):
    value, _ = train(ConstantReward, 60)
    assert value(0.0) == pytest.approx(1.0, abs=0.05)


def test_value_depends_on_the_observation(train):
    value, _ = train(ObservedReward, 100)
    assert value(1.0) == pytest.approx(1.0, abs=0.1)
    assert value(-1.0) == pytest.approx(-1.0, abs=0.1)


def test_value_is_discounted(train):
    value, _ = train(DelayedReward, 120)
    assert value(1.0) == pytest.approx(1.0, abs=0.05)
    assert value(0.0) == pytest.approx(GAMMA, abs=0.05)


def test_policy_takes_the_rewarded_action(train):
    value, policy = train(ActionMatters, 60)
    assert policy(0.0)[1] > 0.95
    assert value(0.0) == pytest.approx(1.0, abs=0.15)


def test_policy_depends_on_the_observation(train):
    value, policy = train(ActionMustMatch, 100)
    assert policy(1.0)[1] > 0.95
    assert policy(-1.0)[0] > 0.95
    assert value(1.0) == pytest.approx(1.0, abs=0.15)
    assert value(-1.0) == pytest.approx(1.0, abs=0.15)


def test_continuous_policy_depends_on_the_observation(train):
    _, policy = train(ContinuousMustMatch, 200)
    for observation in (-1.0, 1.0):
        mean, log_std = policy(observation)
        assert mean == pytest.approx(observation / 2.0, abs=0.1)
        assert log_std < -0.6  # noise costs reward: it has begun to shrink
