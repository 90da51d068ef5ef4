"""NaN and infinity: such a step changes no bit, is counted, and leaves nothing behind that is not finite."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from rlweights import AdaptiveNoise, Clipping
from rlweights.learning.algorithms import A2C, PPO
from rlweights.learning.batch import Batch
from rlweights.learning.loops.host import HostPrograms
from support.builders import assert_same, everything, learn, random_batch, tiny_learner, weights


class Guarded:
    """A compiled update with everything in it, whose state can be put back."""

    def __init__(self):
        self.learner = tiny_learner(
            PPO(n_steps=6, n_epochs=2, batch_size=4, gae_lambda=0.9),
            [Clipping(1.0), AdaptiveNoise(0.05, 0.1, on="policy/.*")],
            inner=keras.optimizers.Adam(0.01, name="inner"),
            normalize_observations=True,
            normalize_rewards=True,
        )
        self.programs = HostPrograms(self.learner, (3,), "float32", 2)
        self.start = [v.numpy().copy() for v in self.learner.variables]
        self.batch = random_batch(self.learner)

    def reset(self) -> None:
        for variable, value in zip(self.learner.variables, self.start, strict=True):
            variable.assign(value)
        self.batch = random_batch(self.learner)

    def learn(self) -> dict[str, float]:
        self.programs.begin()
        return self.programs.learn(self.batch)

    def weights_and_slots(self) -> dict[str, np.ndarray]:
        inner = self.learner.optimizer.inner
        with self.learner.optimizer.clean():
            return weights(self.learner) | {v.path: v.numpy().copy() for v in inner.variables}

    def all_finite(self) -> bool:
        return all(np.isfinite(v.numpy().astype(np.float64)).all() for v in self.learner.variables)


@pytest.fixture(scope="module")
def compiled_update():
    return Guarded()


@pytest.fixture
def guarded(compiled_update):
    compiled_update.reset()
    return compiled_update


def spoil(batch: Batch, what: str) -> None:
    """Puts something that is not finite where all minibatches see it: the advantages are normalised."""
    places: dict[str, Any] = {
        "rewards": (batch.rewards, (slice(None), slice(None)), np.nan),
        "infinite rewards": (batch.rewards, (slice(None), slice(None)), np.inf),
        "observations": (batch.observations, (slice(None), slice(None), 1), np.nan),
        "infinite observations": (batch.observations, (slice(None), slice(None), 1), -np.inf),
    }
    array, place, value = places[what]
    array[place] = value


@pytest.mark.parametrize("what", ["rewards", "infinite rewards", "observations", "infinite observations"])
def test_what_is_not_finite_changes_no_bit(guarded, what):
    guarded.learn()
    assert guarded.all_finite()
    before = guarded.weights_and_slots()
    normalization = {v.path: v.numpy().copy() for v in guarded.learner.networks.normalization.variables}
    spoil(guarded.batch, what)
    metrics = guarded.learn()
    assert_same(before, guarded.weights_and_slots())
    assert metrics["update/skipped"] == 6.0
    assert metrics["update/applied"] == 0.0
    assert metrics["update/nonfinite_loss"] == 6.0
    kind = what.rpartition(" ")[2]
    assert metrics[f"update/nonfinite_{kind}"] == 12.0
    assert all(np.isfinite(value) for value in metrics.values()), metrics
    assert int(guarded.learner.bad_streak) == 6
    assert guarded.all_finite(), "something that is not finite would be saved"
    if kind == "observations":
        after = {v.path: v.numpy().copy() for v in guarded.learner.networks.normalization.variables}
        assert_same(normalization, after)
    metrics = guarded.learn()
    assert int(guarded.learner.bad_streak) == 12, "the streak goes on over iterations"
    guarded.batch = random_batch(guarded.learner)
    metrics = guarded.learn()
    assert metrics["update/applied"] == 6.0
    assert int(guarded.learner.bad_streak) == 0


@pytest.mark.parametrize("where", ["last_observations", "final_values"])
def test_bad_values_behind_the_rollout_are_skipped(guarded, where):
    if where == "last_observations":
        guarded.batch.last_observations[:] = np.nan
    else:
        guarded.batch.final_values[3, 0] = np.nan
    metrics = guarded.learn()
    assert 0 < metrics["update/skipped"] <= 6
    assert metrics["update/nonfinite_observations"] == (2.0 if where == "last_observations" else 0.0)
    assert guarded.all_finite()


def test_one_bad_sample_costs_its_own_minibatches_only(guarded):
    guarded.batch.rewards[0, 1] = np.nan  # no earlier step's advantage depends on it
    before = guarded.weights_and_slots()
    metrics = guarded.learn()
    assert metrics["update/skipped"] == 2.0  # one minibatch of three in each of two epochs
    assert metrics["update/applied"] == 4.0
    assert metrics["update/nonfinite_rewards"] == 1.0
    assert guarded.all_finite()
    assert any((before[k] != v).any() for k, v in guarded.weights_and_slots().items())


def test_a_gradient_that_is_not_finite_under_a_finite_loss():
    class Steep(A2C):
        def policy_loss(self, log_prob, batch, progress):
            loss, statistics = super().policy_loss(log_prob, batch, progress)
            return loss + tf.sqrt(tf.maximum(log_prob - tf.stop_gradient(log_prob), 0.0)), statistics

    learner = tiny_learner(Steep(n_steps=6), inner=keras.optimizers.Adam(0.1, name="inner"))
    before = everything(learner)
    metrics = learn(learner, random_batch(learner))
    after = everything(learner)
    for name in weights(learner):
        np.testing.assert_array_equal(before[name], after[name])
    assert metrics["update/nonfinite_gradients"] == 1.0
    assert metrics["update/nonfinite_loss"] == 0.0
    assert metrics["update/skipped"] == 1.0
    assert int(learner.optimizer.iterations) == 0
