"""The compiled programs: one trace, the same numbers with and without XLA, the same run for the same seed."""

import gymnasium as gym
import keras
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from rlweights import AdaptiveNoise, Clipping, Feedback, Increment, Noise
from rlweights.learning.algorithms import A2C, PPO
from rlweights.learning.continuation import ReplayedVector
from rlweights.learning.distributions import Categorical, Gaussian
from rlweights.learning.learner import Learner
from rlweights.learning.loops.host import HostPrograms
from rlweights.learning.rollout import Rollout
from support.builders import assert_same, everything, learn, random_batch, stepper_of, tiny_learner, weights


def everything_at_once() -> Learner:
    """PPO with every option that changes the program."""
    rules = [
        AdaptiveNoise(0.01, 0.2, on="policy/.*"),
        Noise(Feedback("approx_kl"), on="value/.*", placement="during_gradient"),
        Increment(1e-3, on="policy/head/bias", placement="after_iteration"),
        Clipping(3.0),
    ]
    return tiny_learner(
        PPO(n_steps=16, batch_size=8, n_epochs=2, clip_range_vf=0.2, target_kl=0.5, ent_coef=0.01),
        rules,
        observation_shape=(4,),
        distribution=Categorical(2),
        inner=keras.optimizers.Adam(3e-3, name="inner"),
        normalize_observations=True,
        normalize_rewards=True,
    )


class Run:
    """An agent, its programs, and what three iterations on CartPole give."""

    def __init__(self, xla: bool):
        self.learner = everything_at_once()
        self.traces = 0
        original = self.learner.learn

        def counted(batch):
            self.traces += 1
            return original(batch)

        self.learner.learn = counted  # pyright: ignore[reportAttributeAccessIssue]
        self.programs = HostPrograms(self.learner, (4,), "float32", 2, xla=xla)
        self.start = [v.numpy().copy() for v in self.learner.variables]
        self.rows = self.train()
        self.result = everything(self.learner)

    def train(self) -> list[dict[str, float]]:
        for variable, value in zip(self.learner.variables, self.start, strict=True):
            variable.assign(value)
        same_step = {"autoreset_mode": AutoresetMode.SAME_STEP}
        envs = gym.make_vec("CartPole-v1", 2, vectorization_mode="sync", vector_kwargs=same_step)
        rollout = Rollout(ReplayedVector(stepper_of(envs)), self.learner.distribution, 16, seed=0)
        rollout.begin(0)
        rows = []
        for i in range(3):
            self.programs.begin()
            batch, _ = rollout.collect(self.programs.policy, self.programs.value, i)
            rows.append(self.programs.learn(batch))
        envs.close()
        return rows


@pytest.fixture(scope="module")
def with_xla():
    return Run(xla=True)


def test_learn_is_traced_exactly_once(with_xla):
    assert with_xla.traces == 1
    assert int(with_xla.learner.iteration) == len(with_xla.rows) == 3
    assert [row["update/applied"] for row in with_xla.rows] == [8.0] * 3


def test_same_state_same_bits(with_xla):
    """All that a run depends on is among the learner's variables: put back, they repeat it."""
    assert with_xla.train() == with_xla.rows
    assert_same(everything(with_xla.learner), with_xla.result)
    assert with_xla.traces == 1


def test_without_xla_the_same_to_a_rounding(with_xla):
    graph = Run(xla=False)
    for path in weights(graph.learner):
        np.testing.assert_allclose(graph.result[path], with_xla.result[path], atol=1e-5, err_msg=path)
    for found, expected in zip(graph.rows, with_xla.rows, strict=True):
        assert found.keys() == expected.keys()
        for tag in found:
            assert found[tag] == pytest.approx(expected[tag], abs=1e-4, rel=1e-3), tag


def test_every_scalar_is_there_and_finite(with_xla):
    expected = {
        *(f"train/{n}" for n in ("loss", "policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl")),
        *("train/clip_fraction", "train/explained_variance", "train/learning_rate"),
        *("update/grad_norm", "update/update_to_weight_ratio", "update/applied", "update/skipped"),
        *(f"update/nonfinite_{n}" for n in ("loss", "gradients", "observations", "rewards")),
        *("intervention/adaptive_noise/stddev", "intervention/clipping/saturated"),
    }
    for row in with_xla.rows:
        assert expected <= row.keys()
        assert all(np.isfinite(value) for value in row.values())


def test_eager_and_graph_agree_on_one_update():
    def update(eager):
        learner = tiny_learner(
            PPO(n_steps=6, batch_size=4, n_epochs=2),
            [Noise(0.1, on="policy/.*kernel", placement="during_iteration"), Clipping(1.0)],
            distribution=Gaussian(2),
        )
        batch = random_batch(learner)
        if eager:
            learn(learner, batch)
        else:
            programs = HostPrograms(learner, (3,), "float32", 2, xla=False)
            programs.begin()
            programs.learn(batch)
        return weights(learner)

    graph = update(eager=False)
    for path, value in update(eager=True).items():
        np.testing.assert_allclose(graph[path], value, atol=1e-5, err_msg=path)


def test_values_of_any_number_of_observations():
    learner = tiny_learner(A2C(n_steps=5), num_envs=4)
    programs = HostPrograms(learner, (3,), "float32", 4, xla=False)
    x = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
    for size in (1, 3, 4, 5, 11):
        found = programs.value(x[:size])
        assert found.shape == (size,)
        np.testing.assert_allclose(found, learner.networks.values(x[:size]), atol=1e-6)


def test_images_act_through_the_compiled_policy():
    learner = tiny_learner(
        A2C(n_steps=2), observation_shape=(8, 8, 1), num_envs=2, convolutions=((2, 3, 2),), hidden_sizes=(4,)
    )
    programs = HostPrograms(learner, (8, 8, 1), "uint8", 2, xla=False)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
    programs.begin()
    np.testing.assert_allclose(programs.policy(pixels), learner.networks.policy(pixels), atol=1e-5)
    batch = random_batch(learner)._replace(
        observations=np.stack([pixels, pixels]), last_observations=pixels, rewards=np.ones((2, 2), np.float32)
    )
    before = programs.policy(pixels)
    assert programs.learn(batch)["update/applied"] == 1.0
    assert np.abs(programs.policy(pixels) - before).max() > 0.0  # the program sees the new weights


def test_acting_weights_are_refreshed_at_each_beginning():
    learner = tiny_learner(A2C(n_steps=6))
    programs = HostPrograms(learner, (3,), "float32", 2, xla=False)
    programs.begin()
    batch = random_batch(learner)
    programs.learn(batch)
    x = batch.observations[0]
    assert np.abs(programs.policy(x) - np.array(learner.networks.policy(x))).max() > 1e-4
    programs.begin()
    np.testing.assert_allclose(programs.policy(x), learner.networks.policy(x), atol=1e-6)
