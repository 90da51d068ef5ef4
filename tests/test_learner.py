"""One iteration of learning against a second implementation, and everything that may go wrong in it."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import assert_same, everything, learn, random_batch, tiny_learner, weights
from reference import Reference

from rlweights import Clipping, Feedback, Increment
from rlweights.algorithms import A2C, PPO, Linear, Reinforce
from rlweights.compiled import HostPrograms
from rlweights.distributions import Categorical, Gaussian
from rlweights.learner import Batch
from rlweights.optimizer import InterventionOptimizer

PPO_HARD: Any = {"clip_range": 0.03, "clip_range_vf": 0.02, "n_epochs": 3, "batch_size": None}
CASES = {
    "ppo": (PPO(n_steps=6, n_epochs=3, batch_size=None), Categorical(3)),
    "ppo with everything clipped": (
        PPO(n_steps=6, ent_coef=0.05, max_grad_norm=0.05, vf_coef=0.7, **PPO_HARD),
        Categorical(3),
    ),
    "ppo, continuous": (
        PPO(n_steps=6, ent_coef=0.01, normalize_advantage=False, max_grad_norm=None, **PPO_HARD),
        Gaussian(2),
    ),
    "a2c": (A2C(n_steps=6, ent_coef=0.02), Categorical(3)),
    "a2c, continuous": (A2C(n_steps=6, ent_coef=0.02, max_grad_norm=None), Gaussian(2)),
    "reinforce": (Reinforce(n_steps=6, gamma=0.9), Categorical(3)),
    "reinforce, two epochs": (Reinforce(n_steps=6, n_epochs=2), Gaussian(1)),
}


@pytest.mark.parametrize("name", CASES)
def test_iteration_equals_numpy(name):
    algorithm, distribution = CASES[name]
    learner = tiny_learner(algorithm, distribution=distribution, inner=keras.optimizers.SGD(0.5))
    algorithm = algorithm.model_copy(update={"learning_rate": 0.5})
    learner.algorithm = algorithm
    batch = random_batch(learner, seed=1)
    reference = Reference(learner, rate=0.5)
    expected = reference.iterate(batch)
    metrics = learn(learner, batch)
    for path, value in weights(learner).items():
        np.testing.assert_allclose(value, reference.clean[path], atol=2e-5, err_msg=path)
    for key, value in expected.items():
        tag = "update/grad_norm" if key == "grad_norm" else f"train/{key}"
        assert metrics[tag] == pytest.approx(value, abs=2e-5, rel=1e-4), tag
    if "clipped" in name:
        assert metrics["train/clip_fraction"] > 0.05
        assert metrics["update/grad_norm"] > algorithm.max_grad_norm  # reported before it is scaled


def test_masked_steps_change_nothing():
    learner = tiny_learner(PPO(n_steps=6, batch_size=4), inner=keras.optimizers.Adam(0.01))
    batch = random_batch(learner)
    batch.truncated[2, 1], batch.terminated[2, 1] = 0.0, 1.0  # else its observation bootstraps
    other = Batch(*(np.copy(x) for x in batch))
    other.observations[3, 1], other.rewards[3, 1], other.actions[3, 1] = 50.0, -50.0, 2
    assert not other.valid[3, 1]
    before = everything(learner)
    metrics = learn(learner, batch)
    first = everything(learner)
    restore(learner, before)
    learner.iteration.assign(0)
    again = learn(learner, other)
    assert_same(first, everything(learner))
    assert metrics == again


def test_ratio_is_one_on_the_first_minibatch():
    """Rows of observations, actions and log-probabilities stay together in the shuffle."""
    ratios = []

    class Spying(PPO):
        def policy_loss(self, log_prob, batch, progress):
            ratios.append(np.exp(log_prob - batch.old_log_prob))
            return super().policy_loss(log_prob, batch, progress)

    learner = tiny_learner(Spying(n_steps=6, n_epochs=2, batch_size=4, learning_rate=0.5))
    learn(learner, random_batch(learner))
    assert len(ratios) == 6
    np.testing.assert_allclose(ratios[0], 1.0, atol=1e-6)
    assert np.abs(ratios[1] - 1.0).max() > 1e-3


def test_shuffle_covers_every_sample_once_per_epoch():
    seen: list[np.ndarray] = []

    class Spying(PPO):
        def policy_loss(self, log_prob, batch, progress):
            seen.append(np.array(batch.actions)[:, 0])
            return super().policy_loss(log_prob, batch, progress)

    def run(seed):
        seen.clear()
        algorithm = Spying(n_steps=6, n_epochs=2, batch_size=4)
        learner = tiny_learner(algorithm, distribution=Gaussian(1), seed=seed)
        batch = random_batch(learner)
        batch.actions[:] = np.arange(12, dtype=np.float32).reshape(6, 2, 1) / 12
        for _ in range(2):
            learn(learner, batch)
        return np.round(np.array(seen).reshape(4, 12) * 12).astype(int)

    order = run(seed=0)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(12), (4, 1)))
    assert len({tuple(row) for row in order}) == 4  # other epochs and iterations, other orders
    np.testing.assert_array_equal(order, run(seed=0))
    assert (order != run(seed=1)).any()


def test_target_kl_stops_the_rest():
    def run(**arguments):
        learner = tiny_learner(PPO(n_steps=6, batch_size=None, learning_rate=0.5, **arguments))
        metrics = learn(learner, random_batch(learner))
        return learner, metrics

    stopped, metrics = run(n_epochs=4, target_kl=1e-4)
    once, _ = run(n_epochs=1)
    assert metrics["update/applied"] == 1.0
    assert metrics["update/skipped"] == 0.0
    assert_same(weights(stopped), weights(once))
    _, generous = run(n_epochs=4, target_kl=10.0)
    assert generous["update/applied"] == 4.0


def test_linear_schedules_follow_the_budget():
    rates, clips = [], []

    class Spying(PPO):
        def value_loss(self, values, batch, progress):
            clips.append(float(self.clip_range.start + (self.clip_range.end - self.clip_range.start) * progress))
            return super().value_loss(values, batch, progress)

    algorithm = Spying(
        n_steps=6,
        n_epochs=1,
        batch_size=None,
        learning_rate=Linear.model_validate({"from": 0.4, "to": 0.0}),
        clip_range=Linear.model_validate({"from": 0.2, "to": 0.1}),
        ent_coef=Linear.model_validate({"from": 1.0, "to": 0.0}),
    )
    heard = Feedback("progress")
    learner = tiny_learner(
        algorithm, [Increment(lambda w, step: 0.0 * heard(step) * w)], feedback={"progress": 0.0}
    ) if False else tiny_learner(algorithm, feedback={"progress": 0.0})
    progress = []
    for i in range(5):
        metrics = learn(learner, random_batch(learner, seed=i))
        rates.append(metrics["train/learning_rate"])
        progress.append(float(learner.optimizer.feedback["progress"].numpy()))
        weight = 1.0 - min(i / 4, 1.0)
        total = (
            metrics["train/policy_gradient_loss"]
            + weight * metrics["train/entropy_loss"]
            + 0.5 * metrics["train/value_loss"]
        )
        assert metrics["train/loss"] == pytest.approx(total, abs=1e-5)
    np.testing.assert_allclose(rates, [0.4, 0.3, 0.2, 0.1, 0.0], atol=1e-7)
    np.testing.assert_allclose(clips, [0.2, 0.175, 0.15, 0.125, 0.1], atol=1e-7)
    np.testing.assert_allclose(progress, [0.25, 0.5, 0.75, 1.0, 1.0])  # of the iteration that comes next
