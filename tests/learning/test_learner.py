"""One iteration of learning against a second implementation, and what it reports."""

from typing import Any

import keras
import numpy as np
import pytest

from rlweights.learning.algorithms import A2C, PPO, Linear, Reinforce
from rlweights.learning.batch import Batch
from rlweights.learning.distributions import Categorical, Gaussian
from support.builders import assert_same, everything, learn, random_batch, tiny_learner, weights
from support.reference import Reference, advantages

PPO_HARD: Any = {"clip_range": 0.03, "clip_range_vf": 0.02, "n_epochs": 3, "batch_size": None}
CASES = {
    "ppo": (PPO(n_steps=6, n_epochs=3, batch_size=None, learning_rate=0.5), Categorical(3)),
    "ppo with everything clipped": (
        PPO(n_steps=6, learning_rate=0.9, ent_coef=0.05, max_grad_norm=0.1, vf_coef=0.7, **PPO_HARD),
        Categorical(3),
    ),
    "ppo, continuous": (
        PPO(
            n_steps=6,
            learning_rate=0.02,
            ent_coef=0.01,
            normalize_advantage=False,
            max_grad_norm=None,
            **PPO_HARD,
        ),
        Gaussian(2),
    ),
    "a2c": (A2C(n_steps=6, learning_rate=0.5, ent_coef=0.02), Categorical(3)),
    "a2c, continuous": (A2C(n_steps=6, learning_rate=0.1, ent_coef=0.02, max_grad_norm=None), Gaussian(2)),
    "reinforce": (Reinforce(n_steps=6, learning_rate=0.5, gamma=0.9), Categorical(3)),
    "reinforce, two epochs": (Reinforce(n_steps=6, learning_rate=0.1, n_epochs=2), Gaussian(1)),
}


@pytest.mark.parametrize("name", CASES)
def test_iteration_equals_numpy(name):
    algorithm, distribution = CASES[name]
    learner = tiny_learner(algorithm, distribution=distribution)
    batch = random_batch(learner, seed=1)
    reference = Reference(learner)
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
    learner = tiny_learner(PPO(n_steps=6, batch_size=4), inner=keras.optimizers.Adam(0.01, name="inner"))
    batch = random_batch(learner)
    batch.truncated[2, 1], batch.terminated[2, 1] = 0.0, 1.0  # else its observation bootstraps
    other = Batch(*(np.copy(x) for x in batch))
    other.observations[3, 1], other.rewards[3, 1], other.actions[3, 1] = 50.0, -50.0, 2
    assert not other.valid[3, 1]
    before = everything(learner)
    metrics = learn(learner, batch)
    first = everything(learner)
    for variable in [*learner.networks.variables, *learner.optimizer.variables]:
        variable.assign(before[variable.path])
    learner.iteration.assign(0)
    assert learn(learner, other) == metrics
    assert_same(first, everything(learner))


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
    def linear(start, end):
        return Linear.model_validate({"from": start, "to": end})

    algorithm = PPO(
        n_steps=6, n_epochs=1, batch_size=None, learning_rate=linear(0.4, 0.0), ent_coef=linear(1.0, 0.0)
    )
    learner = tiny_learner(algorithm, feedback={"progress": 0.0})
    rates, progress = [], []
    for i in range(5):
        metrics = learn(learner, random_batch(learner, seed=i))
        rates.append(metrics["train/learning_rate"])
        progress.append(float(learner.optimizer.feedback["progress"].numpy()))
        total = (
            metrics["train/policy_gradient_loss"]
            + max(0.0, 1.0 - i / 4) * metrics["train/entropy_loss"]
            + 0.5 * metrics["train/value_loss"]
        )
        assert metrics["train/loss"] == pytest.approx(total, abs=1e-5)
    np.testing.assert_allclose(rates, [0.4, 0.3, 0.2, 0.1, 0.0], atol=1e-7)
    np.testing.assert_allclose(progress, [0.25, 0.5, 0.75, 1.0, 1.0])  # what the next iteration's rules read


def test_feedback_is_written():
    names = ("approx_kl", "explained_variance", "grad_norm", "policy_distance")
    learner = tiny_learner(PPO(n_steps=6, batch_size=4), feedback=dict.fromkeys(names, -1.0))
    metrics = learn(learner, random_batch(learner))
    board = {name: float(learner.optimizer.feedback[name].numpy()) for name in names}
    assert board["approx_kl"] == metrics["train/approx_kl"]
    assert board["explained_variance"] == metrics["train/explained_variance"]
    assert board["grad_norm"] == metrics["update/grad_norm"]
    assert board["policy_distance"] == 0.0  # without noise, the live weights are the clean ones


def test_reported_ratios():
    learner = tiny_learner(A2C(n_steps=6), value_hidden_sizes=(), hidden_sizes=())
    batch = random_batch(learner)
    before = weights(learner)
    values = batch.observations @ before["value/head/kernel"] + before["value/head/bias"]
    last_values = batch.last_observations @ before["value/head/kernel"] + before["value/head/bias"]
    returns = values[..., 0] + advantages(batch, values[..., 0], last_values[..., 0], 0.99, 1.0)
    metrics = learn(learner, batch)
    valid = batch.valid.astype(bool)
    explained = 1.0 - (returns - values[..., 0])[valid].var() / returns[valid].var()
    assert metrics["train/explained_variance"] == pytest.approx(explained, abs=1e-4)
    flat = [np.concatenate([w.ravel() for w in each.values()]) for each in (before, weights(learner))]
    ratio = np.linalg.norm(flat[1] - flat[0]) / np.linalg.norm(flat[0])
    assert metrics["update/update_to_weight_ratio"] == pytest.approx(ratio, rel=1e-4)


def test_reward_scaling_is_applied():
    algorithm = A2C(n_steps=6, gae_lambda=0.0, max_grad_norm=None)
    learner = tiny_learner(algorithm, normalize_rewards=True)
    batch = random_batch(learner)
    learn(learner, batch)
    assert learner.reward_scaling is not None
    deviation = float(np.sqrt(learner.reward_scaling.variance))
    plain = tiny_learner(algorithm)
    learn(plain, batch._replace(rewards=batch.rewards / deviation))
    for path, value in weights(learner).items():
        np.testing.assert_allclose(value, weights(plain)[path], atol=1e-5)


def test_a_minibatch_of_one_still_moves_the_policy():
    learner = tiny_learner(PPO(n_steps=6, batch_size=1, n_epochs=1))
    before = weights(learner)
    learn(learner, random_batch(learner))
    assert (weights(learner)["policy/head/bias"] != before["policy/head/bias"]).any()


def test_minibatches_must_divide_the_rollout():
    with pytest.raises(ValueError, match="batch_size = 5 does not divide a rollout of 12 steps"):
        tiny_learner(PPO(n_steps=6, batch_size=5))


def test_gradients_are_left_behind_as_they_were_before_they_were_scaled():
    """One step of gradient descent: the weights have moved by the scaled gradient times the rate."""
    rate, limit = 0.5, 0.05
    learner = tiny_learner(A2C(n_steps=6, learning_rate=rate, max_grad_norm=limit))
    before = weights(learner)
    norm = learn(learner, random_batch(learner))["update/grad_norm"]
    assert norm > limit
    assert learner.gradients.keys() == {path for path in before if path.endswith("kernel")}
    for path, gradient in learner.gradients.items():
        moved = before[path] - weights(learner)[path]
        assert np.abs(moved).max() > 1e-4
        np.testing.assert_allclose(moved, rate * limit / norm * gradient.numpy(), atol=1e-7)
    assert not {id(v) for v in learner.gradients.values()} & {id(v) for v in learner.variables}


def test_a_skipped_step_leaves_no_gradient_behind():
    learner = tiny_learner(A2C(n_steps=6))
    batch = random_batch(learner)
    batch.rewards[0, 0] = np.nan
    assert learn(learner, batch)["update/skipped"] == 1.0
    assert all((gradient.numpy() == 0.0).all() for gradient in learner.gradients.values())


def test_std_is_that_of_the_actions_after_the_update():
    learner = tiny_learner(A2C(n_steps=6, learning_rate=0.5), distribution=Gaussian(2))
    metrics = learn(learner, random_batch(learner))
    log_std = weights(learner)["policy/log_std"]
    assert (log_std != -0.5).all()
    assert metrics["train/std"] == pytest.approx(np.exp(log_std).mean())
    discrete = tiny_learner(A2C(n_steps=6))
    assert "train/std" not in learn(discrete, random_batch(discrete))
