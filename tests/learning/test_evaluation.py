"""Evaluation: the number of episodes that was asked for, fairly drawn, and nothing else touched."""

import random

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.vector import AutoresetMode

from rlweights import AdaptiveNoise, Clipping
from rlweights.errors import BrokenEnvironment
from rlweights.learning.acting import NumpyPolicy
from rlweights.learning.algorithms import PPO
from rlweights.learning.continuation import ReplayedVector
from rlweights.learning.distributions import Categorical
from rlweights.learning.evaluation import evaluate
from rlweights.learning.loops.host import HostPrograms
from rlweights.learning.rollout import Rollout
from support.builders import assert_same, everything, stepper_of, tiny_learner, translation_of, weights
from support.probes import ActionMatters, Counter, vectorised


def prefer(action):
    """Always the same logits, in favour of one action."""
    logits = np.array([0.0, 1.0] if action else [1.0, 0.0], np.float32)
    return lambda observations: np.tile(logits, (len(observations), 1))


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("episodes", [1, 3, 4, 10])
def test_each_environment_plays_its_share(mode, episodes):
    """Short episodes must not crowd out the long ones of another environment."""
    makers = [lambda: Counter(terminates=1), lambda: Counter(truncates=2), lambda: Counter(terminates=30)]
    envs = vectorised(makers, mode)
    result = evaluate(prefer(0), envs, Categorical(2), translation_of(envs), episodes, seed=0)
    envs.close()
    shares = [episodes // 3 + (n < episodes % 3) for n in range(3)]
    returns = [1.0] * shares[0] + [3.0] * shares[1] + [465.0] * shares[2]
    np.testing.assert_array_equal(result.returns, returns)
    np.testing.assert_array_equal(result.lengths, [1] * shares[0] + [2] * shares[1] + [30] * shares[2])
    assert result.mean == np.mean(returns)
    assert result.std == np.std(returns)


def test_greedy_and_sampled_actions():
    envs = vectorised([ActionMatters] * 4)
    distribution = Categorical(2)
    assert evaluate(prefer(1), envs, distribution, translation_of(envs), 8, seed=0).mean == 1.0
    assert evaluate(prefer(0), envs, distribution, translation_of(envs), 8, seed=0).mean == -1.0
    sampled = evaluate(prefer(1), envs, distribution, translation_of(envs), 400, seed=0, deterministic=False)
    again = evaluate(prefer(1), envs, distribution, translation_of(envs), 400, seed=0, deterministic=False)
    other = evaluate(prefer(1), envs, distribution, translation_of(envs), 400, seed=1, deterministic=False)
    envs.close()
    np.testing.assert_array_equal(sampled.returns, again.returns)
    assert (sampled.returns != other.returns).any()
    expected = np.tanh(0.5)  # P(1) - P(0) of logits 0 and 1
    assert sampled.mean == pytest.approx(expected, abs=4 / 400**0.5)


def test_a_broken_environment_is_named():
    class Broken(Counter):
        def step(self, action):
            raise OSError("no such wind")

    envs = vectorised([Broken])
    with pytest.raises(BrokenEnvironment, match=r"Broken: step\(\) raised OSError: no such wind"):
        evaluate(prefer(0), envs, Categorical(2), translation_of(envs), 1, seed=0)


def train(evaluates: bool):
    """Three iterations on CartPole with everything that draws, with or without evaluations in between."""
    learner = tiny_learner(
        PPO(n_steps=16, batch_size=16),
        [AdaptiveNoise(0.01, 0.3, on="policy/.*"), Clipping(3.0)],
        observation_shape=(4,),
        distribution=Categorical(2),
        normalize_observations=True,
    )
    envs = gym.make_vec("CartPole-v1", 2, vectorization_mode="sync")
    others = gym.make_vec("CartPole-v1", 3, vectorization_mode="sync")
    programs = HostPrograms(learner, (4,), "float32", 2, xla=False)
    rollout = Rollout(ReplayedVector(stepper_of(envs)), learner.distribution, 16, seed=0)
    rollout.begin(0)
    for i in range(3):
        programs.begin()
        batch, _ = rollout.collect(programs.policy, programs.value, i)
        if evaluates:  # in the middle of an iteration, while the noise is in the weights
            live = weights(learner)
            with learner.optimizer.evaluation():
                clean = weights(learner)
                evaluate(
                    NumpyPolicy(learner.networks.policy),
                    others,
                    learner.distribution,
                    translation_of(others),
                    5,
                    seed=i,
                )
                assert_same(weights(learner), clean)
            assert (clean["policy/head/kernel"] != live["policy/head/kernel"]).any()
            assert_same(weights(learner), live)
        programs.learn(batch)
    envs.close()
    others.close()
    return everything(learner)


def test_training_with_and_without_evaluation_is_the_same():
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    tf.random.set_seed(5)
    streams = (np.random.get_state()[1].copy(), random.getstate())  # noqa: NPY002
    assert_same(train(evaluates=False), train(evaluates=True))
    np.testing.assert_array_equal(np.random.get_state()[1], streams[0])  # noqa: NPY002
    assert random.getstate() == streams[1]


def test_normalisation_is_frozen():
    learner = tiny_learner(
        PPO(n_steps=6, batch_size=4),
        observation_shape=(1,),
        distribution=Categorical(2),
        normalize_observations=True,
    )
    before = everything(learner)
    envs = vectorised([lambda: Counter(terminates=9)] * 2)
    for policy in (NumpyPolicy(learner.networks.policy), lambda x: np.array(learner.networks.policy(x))):
        evaluate(policy, envs, learner.distribution, translation_of(envs), 4, seed=0)
    envs.close()
    assert_same(before, everything(learner))
