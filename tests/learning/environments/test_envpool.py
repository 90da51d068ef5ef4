"""The envpool backend: seeds that count, ends that are right, a run that goes on exactly."""

import gymnasium as gym
import numpy as np
import pytest

from rlweights.errors import ConfigError
from rlweights.learning.environments.envpool import Reseeded
from rlweights.learning.loops.host import HostLoop
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file

pytest.importorskip("envpool")


def assembled(*overrides: str) -> Assembly:
    data = {
        "environment": {"id": "CartPole-v1", "backend": "envpool", "num_envs": 4},
        "algorithm": {"name": "ppo", "n_steps": 64, "batch_size": 64, "n_epochs": 1},
        "network": {"hidden_sizes": [8]},
    }
    return Assembly(agent_file.parse(data, "my.toml", overrides), "my.toml")


def test_reset_makes_them_anew_with_the_seed():
    envs = assembled().environments.vector(4)
    assert isinstance(envs, Reseeded)
    first, again, other = (envs.reset(seed=seed)[0] for seed in (1, 1, 2))
    continued, _ = envs.reset()
    envs.close()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(other, continued)


def test_the_number_of_threads_is_envpools_and_changes_nothing():
    seen = []
    for threads in (1, 3):
        envs = assembled(f"environment.num_threads={threads}").environments.vector(4)
        assert envs.env.config["num_threads"] == threads  # pyright: ignore[reportAttributeAccessIssue]
        observations = [envs.reset(seed=1)[0], *(envs.step(np.arange(4) % 2)[0] for _ in range(40))]
        envs.close()
        seen.append(np.stack(observations))
    np.testing.assert_array_equal(*seen)


def test_steps_after_a_boundary_do_not_depend_on_those_before():
    def rollout(*iterations):
        assembly = assembled()
        loop = assembly.make_loop()
        assert isinstance(loop, HostLoop)
        rollout = loop.rollout
        for iteration in iterations:
            rollout.begin(iteration)
            batch, episodes = rollout.collect(
                lambda x: np.zeros((4, 2), np.float32), lambda x: np.zeros(len(x), np.float32), iteration
            )
        loop.close()
        return batch, episodes

    (after, episodes), (alone, _) = rollout(0, 1), rollout(1)
    for ours, theirs in zip(after, alone, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Random actions hold the pole for about twenty steps; each end is followed by a step that does not count.
    ends = after.terminated + after.truncated
    assert episodes.count == ends.sum() > 4
    np.testing.assert_array_equal(after.valid[1:], 1 - ends[:-1])
    assert after.rewards.sum() == after.valid.sum()


def test_it_learns_and_is_evaluated_in_gymnasiums_own():
    assembly = assembled()
    loop = assembly.make_loop()
    loop.begin(0, 0)
    ((scalars, episodes),) = loop.advance(0, 1)
    loop.close()
    assert episodes.count > 0
    assert scalars["update/applied"] == 4
    assert isinstance(assembly.environments.vector(2, evaluation=True), gym.vector.SyncVectorEnv)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "environment.kwargs.gravity=1.0",
            "environment.kwargs.gravity = 1.0: is no argument of CartPole-v1",
        ),
        (
            "environment.id=CartPol-v1",
            "environment.id = 'CartPol-v1': envpool has no such environment. Did you mean 'CartPole-v1'?",
        ),
        (
            "environment.id=CheetahRun-v1",
            "environment.id = 'CheetahRun-v1': Gymnasium knows no such environment",
        ),
    ],
)
def test_what_it_does_not_have(override, message):
    with pytest.raises(ConfigError) as caught:
        assembled(override)
    assert str(caught.value).startswith(f"my.toml: {message}")


def test_spaces_that_differ_from_those_of_the_evaluation(monkeypatch):
    monkeypatch.setitem(
        gym.registry,
        "CartPole-v1",
        gym.envs.registration.EnvSpec("CartPole-v1", "gymnasium.envs.classic_control:AcrobotEnv"),
    )
    with pytest.raises(ConfigError, match=r"environment\.backend = 'envpool': has Box.*, where"):
        assembled()
