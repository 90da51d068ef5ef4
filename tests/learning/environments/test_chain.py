import numpy as np
import pytest
import tensorflow as tf

from rlweights.learning.environments import Chain, Draw, reset_all, step_all


def play(length, choose):
    """Plays one episode with `choose(t)`; returns positions, observations, rewards and the last outcome."""
    chain = Chain(length=length)
    running = reset_all(chain, 1, Draw(0, 0))
    positions, observations, rewards = [], [], []
    for t in range(1000):
        positions.append(int(running.state[0, 0]))
        observations.append(chain.observe(running.state)[0].numpy().tolist())
        running, outcome = step_all(chain, running, tf.constant([choose(t)]), Draw(0, t))
        rewards.append(float(outcome.reward[0]))
        if outcome.terminated[0] or outcome.truncated[0]:
            return positions, observations, rewards, outcome
    raise AssertionError("the episode did not end")


def test_always_right_returns_eleven():
    positions, observations, rewards, outcome = play(5, lambda t: 1)
    assert positions == [1, 2, 3] + [4] * 11
    assert observations[0] == [1, 1, 0, 0, 0]
    assert observations[2] == [1, 1, 1, 1, 0]
    assert observations[-1] == [1, 1, 1, 1, 1]
    assert rewards == [0] * 3 + [1] * 11
    assert int(outcome.episode_length[0]) == 5 + 9
    assert float(outcome.episode_return[0]) == 11
    assert bool(outcome.truncated[0])


@pytest.mark.parametrize("length", [3, 20, 100])
def test_optimal_return_does_not_depend_on_the_length(length):
    assert float(play(length, lambda t: 1)[3].episode_return[0]) == 11


def test_always_left_returns_crumbs():
    positions, observations, rewards, _ = play(5, lambda t: 0)
    assert positions == [1] + [0] * 13
    assert observations[-1] == [1, 0, 0, 0, 0]
    np.testing.assert_allclose(rewards, [0] + [0.001] * 13, rtol=1e-6)


def test_leaving_the_end_rewards_nothing():
    _, _, rewards, _ = play(3, lambda t: 1 if t < 2 else 0)
    np.testing.assert_allclose(rewards[:6], [0, 1, 0, 0, 0.001, 0.001], rtol=1e-6)


def test_too_short_a_chain_is_refused():
    with pytest.raises(ValueError, match="at least 3, got 2"):
        Chain(length=2)
