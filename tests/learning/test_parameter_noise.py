"""Parameter noise as Plappert et al. have it: act and learn at the noisy weights, step the clean ones."""

import keras
import numpy as np
import pytest

from rlweights import AdaptiveNoise, Clipping, Noise
from rlweights.learning.algorithms import A2C, PPO, Reinforce
from rlweights.learning.continuation import ReplayedVector
from rlweights.learning.distributions import Categorical, Gaussian
from rlweights.learning.loops.host import HostPrograms
from rlweights.learning.rollout import Rollout
from support.builders import assert_same, learn, random_batch, stepper_of, tiny_learner, weights
from support.probes import Counter, vectorised
from support.reference import Reference, forward, log_prob, log_softmax

PPO_LONG = PPO(n_steps=6, n_epochs=3, batch_size=None, learning_rate=0.3, clip_range=0.05)
NOISY = {
    "ppo": (PPO_LONG, Categorical(3)),
    "ppo, continuous": (PPO_LONG.model_copy(update={"learning_rate": 0.05}), Gaussian(2)),
    "a2c": (A2C(n_steps=6, learning_rate=0.3), Categorical(3)),
    "reinforce": (Reinforce(n_steps=6, learning_rate=0.3), Categorical(3)),
}


def noisy_learner(algorithm, rule=None, **arguments):
    rule = rule or Noise(0.4, on="policy/.*kernel", placement="during_iteration")
    return tiny_learner(algorithm, [rule], **arguments)


@pytest.mark.parametrize("name", NOISY)
def test_gradient_is_taken_at_the_noisy_weights_and_applied_to_the_clean_ones(name):
    algorithm, distribution = NOISY[name]
    learner = noisy_learner(algorithm, distribution=distribution)
    clean = weights(learner)
    learner.optimizer.begin_iteration()
    offsets = {path: value - clean[path] for path, value in weights(learner).items()}
    assert np.abs(offsets["policy/head/kernel"]).max() > 0.1
    assert not np.abs(offsets["value/head/kernel"]).any()
    batch = random_batch(learner, seed=1)

    learner.learn(batch_of_tensors(batch))

    wrong = tiny_learner(algorithm, distribution=distribution)
    for variable in wrong.networks.trainable_variables:
        variable.assign(clean[variable.path])
    at_clean = Reference(wrong)
    at_noisy = Reference(wrong, offsets)
    at_clean.iterate(batch)
    at_noisy.iterate(batch)
    for path, value in weights(learner).items():
        np.testing.assert_allclose(value, at_noisy.clean[path], atol=3e-5, err_msg=path)
    kernel = "policy/head/kernel"
    assert np.abs(at_noisy.clean[kernel] - at_clean.clean[kernel]).max() > 1e-3, "the test could not tell"


def batch_of_tensors(batch):
    return type(batch)(*map(keras.ops.convert_to_tensor, batch))


@pytest.fixture(scope="module")
def acting():
    """A rollout of a noisy policy in a real environment, and everything that can be said about it."""
    learner = noisy_learner(
        PPO(n_steps=8, batch_size=8),
        AdaptiveNoise(0.01, 0.5, on="policy/.*kernel", seed=3),
        observation_shape=(1,),
        distribution=Categorical(2),
    )
    programs = HostPrograms(learner, (1,), "float32", 2, xla=False)
    envs = vectorised([lambda: Counter(terminates=3), lambda: Counter(truncates=4)])
    rollout = Rollout(ReplayedVector(stepper_of(envs)), learner.distribution, 8, seed=0)
    rollout.begin(0)
    clean = weights(learner)
    programs.begin()
    noisy = weights(learner)
    parameters = []

    def policy(observations):
        parameters.append(programs.policy(observations))
        return parameters[-1]

    batch, _ = rollout.collect(policy, programs.value, 0)
    envs.close()
    return learner, programs, batch, np.array(parameters), clean, noisy


def test_the_rollout_acts_with_the_noisy_weights(acting):
    _, _, batch, parameters, clean, noisy = acting
    np.testing.assert_allclose(parameters, forward(noisy, "policy", batch.observations), atol=1e-5)
    assert np.abs(parameters - forward(clean, "policy", batch.observations)).max() > 0.05


def test_stored_log_probabilities_are_those_of_the_acting_policy(acting):
    """The trap: with those of the clean policy the first ratio is 1 as well, and the estimate is biased."""
    learner, _, batch, parameters, clean, _ = acting
    (_, minibatch), _ = learner._prepare(batch_of_tensors(batch))
    stored = np.array(minibatch.old_log_prob).reshape(8, 2)
    np.testing.assert_allclose(stored, log_prob({}, parameters.astype(float), batch.actions), atol=1e-5)
    of_clean = log_prob({}, forward(clean, "policy", batch.observations), batch.actions)
    assert np.abs(stored - of_clean).max() > 0.05


def test_policy_distance_is_measured_on_the_rollout(acting):
    learner, _, batch, _, clean, noisy = acting
    learner._prepare(batch_of_tensors(batch))
    p, q = (log_softmax(forward(each, "policy", batch.observations)) for each in (clean, noisy))
    divergence = (np.exp(p) * (p - q)).sum(-1)[batch.valid.astype(bool)].mean()
    assert float(learner.optimizer.feedback["policy_distance"].numpy()) == pytest.approx(divergence, rel=1e-3)
    assert_same(weights(learner), noisy)  # looking at the clean weights has not touched the live ones


def test_noise_adapts_and_the_weights_are_clean_between_iterations():
    rule = AdaptiveNoise(1e-6, 0.5, coefficient=1.1, on="policy/.*kernel")
    learner = noisy_learner(A2C(n_steps=6), rule, inner=keras.optimizers.SGD(0.0, name="inner"))
    learner.algorithm = learner.algorithm.model_copy(update={"learning_rate": 0.0})
    clean = weights(learner)
    draws = []
    for i in range(3):
        learner.optimizer.begin_iteration()
        draws.append(weights(learner)["policy/head/kernel"] - clean["policy/head/kernel"])
        learner.learn(batch_of_tensors(random_batch(learner, seed=i)))
        assert_same(weights(learner), clean)
        # Any noise is too much here: it shrinks from the second iteration on, when it has been measured.
        assert float(rule.stddev.value) == pytest.approx(0.5 / 1.1**i)
    assert np.abs(draws[0] - draws[1]).min() > 0.0


def test_clipping_sees_the_clean_weights():
    rules = [
        Noise(1.0, on="policy/.*kernel", placement="during_iteration"),
        Clipping(0.3, unit="absolute", on="policy/.*kernel"),
    ]
    learner = tiny_learner(PPO(n_steps=6, batch_size=4, learning_rate=0.05), rules)
    learn(learner, random_batch(learner))
    for path, value in weights(learner).items():
        if path.startswith("policy/") and path.endswith("kernel"):
            assert np.abs(value).max() <= np.float32(0.3), path


def test_noise_of_size_zero_is_no_noise():
    def run(rules):
        learner = tiny_learner(
            PPO(n_steps=6, batch_size=4), rules, inner=keras.optimizers.Adam(0.01, name="inner")
        )
        for i in range(2):
            learn(learner, random_batch(learner, seed=i))
        return weights(learner)

    assert_same(run([Noise(0.0, placement="during_iteration")]), run([]))
