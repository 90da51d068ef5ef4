"""Small learners and rollouts, for tests of whatever needs one."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rlweights.learning.algorithms import Algorithm
from rlweights.learning.batch import Batch
from rlweights.learning.distributions import Categorical, Distribution, Gaussian
from rlweights.learning.learner import Learner
from rlweights.learning.networks import actor_critic
from rlweights.learning.spaces import Translation, action_decoder, observation_encoder
from rlweights.learning.stepper import Stepper
from rlweights.weights.optimizer import InterventionOptimizer


def tiny_learner(
    algorithm: Algorithm,
    rules: Any = (),
    *,
    distribution: Distribution | None = None,
    observation_shape: tuple[int, ...] = (3,),
    num_envs: int = 2,
    inner: Any = None,
    total_iterations: int = 4,
    seed: int = 0,
    feedback: Any = None,
    normalize_rewards: bool = False,
    policy_gain: float = 1.0,
    **network: Any,
) -> Learner:
    """A learner with two small networks of its own, built and ready."""
    distribution = distribution or Categorical(3)
    continuous = isinstance(distribution, Gaussian)
    networks = actor_critic(
        observation_shape,
        distribution.parameter_size // (2 if continuous else 1),
        log_std=-0.5 if continuous else None,
        policy_gain=policy_gain,
        seed=seed,
        **({"hidden_sizes": (4,)} | network),
    )
    inner = inner or keras.optimizers.SGD(0.1, name="inner")  # a name of Keras' own counts the process's
    optimizer = InterventionOptimizer(inner, rules, feedback=feedback, name="interventions")
    optimizer.build(networks.trainable_variables)
    return Learner(
        algorithm,
        networks,
        distribution,
        optimizer,
        num_envs=num_envs,
        total_iterations=total_iterations,
        seed=seed,
        normalize_rewards=normalize_rewards,
    )


def translation_of(envs: Any) -> Translation:
    """Between a vector environment's own spaces and arrays, actions in their own units."""
    observed, acted = envs.single_observation_space, envs.single_action_space
    return Translation(observation_encoder(observed), action_decoder(acted))


def stepper_of(envs: Any) -> Stepper:
    """Steps a vector environment by its own spaces."""
    return Stepper(envs, translation_of(envs))


def random_batch(learner: Learner, seed: int = 0, num_envs: int = 2, observation_shape=(3,)) -> Batch:
    """A rollout of noise in which everything occurs: both kinds of ends, and a step that was a reset."""
    rng = np.random.default_rng(seed)
    T, N = learner.algorithm.n_steps, num_envs
    distribution = learner.distribution
    parameters = 0.3 * rng.normal(size=(T, N, distribution.parameter_size)).astype(np.float32)
    terminated, truncated, has_final = (np.zeros((T, N), np.float32) for _ in range(3))
    valid = np.ones((T, N), np.float32)
    rewards = rng.normal(size=(T, N)).astype(np.float32)
    if T >= 6:
        terminated[1, 0] = has_final[1, 0] = 1.0  # as with autoreset in the same step
        truncated[3, 0] = has_final[3, 0] = 1.0
        truncated[2, 1], valid[3, 1], rewards[3, 1] = 1.0, 0.0, 0.0  # as with autoreset in the next step
    return Batch(
        rng.normal(size=(T, N, *observation_shape)).astype(np.float32),
        distribution.sample_numpy(parameters, distribution.noise(rng, (T, N))),
        rewards,
        terminated,
        truncated,
        valid,
        rng.normal(size=(N, *observation_shape)).astype(np.float32),
        (rng.normal(size=(T, N)) * has_final).astype(np.float32),
        has_final,
    )


def learn(learner: Learner, batch: Batch) -> dict[str, float]:
    """One iteration, run eagerly: what the compiled programs do, open to spies."""
    learner.optimizer.begin_iteration()
    return {k: float(v) for k, v in learner.learn(Batch(*map(tf.constant, batch))).items()}


def weights(learner: Learner) -> dict[str, np.ndarray]:
    """The trainable weights as they are, by path."""
    return {v.path: v.numpy().copy() for v in learner.networks.trainable_variables}


def everything(learner: Learner) -> dict[str, np.ndarray]:
    """All state of weights and optimizer, by path."""
    return {v.path: v.numpy().copy() for v in [*learner.networks.variables, *learner.optimizer.variables]}


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    """Asserts that two sets of arrays are equal bit for bit."""
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def observations(size=64, width=5, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(size, width)) * rng.choice([0.1, 1.0, 30.0], (size, 1))).astype(np.float32)
