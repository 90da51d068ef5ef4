"""A run folder becomes an agent again, and acts as the run itself said it would."""

import shutil

import gymnasium as gym
import numpy as np
import pytest

from rlweights.errors import CheckpointError, ConfigError
from rlweights.running.records.event_file import read_scalars
from rlweights.running.saving import checkpoint_file
from rlweights.running.trained import WHICH, TrainedAgent
from rlweights.running.video import play
from support.smallruns import EPISODES, small_run, untrained_run

OBSERVATIONS = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def run():
    return small_run()


@pytest.fixture
def copied(run, tmp_path):
    """A copy of the run that a test may damage."""
    return shutil.copytree(run, tmp_path / "run")


@pytest.mark.parametrize("which", WHICH)
def test_holds_the_weights_of_the_file_it_names(run, which):
    agent = TrainedAgent(run, which)
    assert agent.weights == run / which / "weights.safetensors"
    tensors, _ = checkpoint_file.load(agent.weights, None)
    for variable in agent.policy.networks.variables:
        np.testing.assert_array_equal(variable.numpy(), tensors[variable.path])


def test_best_falls_back_to_latest(copied):
    shutil.rmtree(copied / "best")
    assert TrainedAgent(copied).weights == copied / "latest" / "weights.safetensors"


def test_predicts_the_most_likely_action_of_each_observation(run):
    agent = TrainedAgent(run)
    logits = np.asarray(agent.policy.networks.policy(OBSERVATIONS))
    actions = agent.predict(OBSERVATIONS)
    np.testing.assert_array_equal(actions, logits.argmax(-1))
    assert set(actions) == {0, 1}
    assert [agent.act(each) for each in OBSERVATIONS] == actions.tolist()
    assert all(gym.spaces.Discrete(2).contains(action) for action in actions)


def test_samples_with_the_probabilities_of_the_policy(run):
    agent = TrainedAgent(run)
    crowd = np.repeat(OBSERVATIONS[:1], 20_000, axis=0)
    logits = np.asarray(agent.policy.networks.policy(OBSERVATIONS[:1]), np.float64)[0]
    probability = np.exp(logits[1]) / np.exp(logits).sum()
    actions = agent.predict(crowd, deterministic=False, seed=1)
    assert actions.mean() == pytest.approx(probability, abs=5 * 0.5 / len(crowd) ** 0.5)
    np.testing.assert_array_equal(actions, agent.predict(crowd, deterministic=False, seed=1))
    assert (actions != agent.predict(crowd, deterministic=False, seed=2)).any()
    drawn = [agent.predict(crowd, deterministic=False) for _ in range(2)]
    assert (drawn[0] != drawn[1]).any(), "without a seed each call draws on"


def test_arguments_that_are_no_numbers_of_episodes_or_seeds_are_refused(run):
    agent = TrainedAgent(run)
    for episodes in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match=r"episodes = .*: must be a whole number of at least 1"):
            agent.evaluate(episodes)
    with pytest.raises(ConfigError, match="seed = -1: must be a whole number of at least 0"):
        agent.evaluate(1, seed=-1)
    with pytest.raises(ConfigError, match="seed = -1: must be a whole number of at least 0"):
        agent.predict(OBSERVATIONS, deterministic=False, seed=-1)
    with pytest.raises(ConfigError, match="some are too large for float32"):
        agent.predict(np.full((1, 4), 1e300))


def test_continuous_actions_stay_within_the_space(tmp_path):
    run = untrained_run(
        tmp_path, {"environment": {"id": "Pendulum-v1"}, "network": {"log_std_init": 2.0, "policy_gain": 5.0}}
    )
    agent = TrainedAgent(run)
    observations = 3 * OBSERVATIONS[:, :3]
    for deterministic in (True, False):
        actions = agent.predict(observations, deterministic)
        assert actions.shape == (64, 1)
        assert actions.dtype == np.float32
        assert np.abs(actions).max() == 2.0
        assert np.abs(actions).min() < 2.0


def test_evaluation_repeats_the_figure_of_the_run(run):
    last_step, recorded = read_scalars(run)["eval/mean_reward"][-1]
    assert last_step == 1024
    result = TrainedAgent(run, "latest").evaluate(EPISODES, seed=10_000)
    assert np.float32(result.mean) == np.float32(recorded)
    assert len(result.returns) == EPISODES


def test_an_agent_that_is_evaluated_by_drawn_actions_is_judged_and_shown_so():
    run = small_run("cartpole_plain", "evaluation.deterministic=false")
    agent = TrainedAgent(run, "latest")
    recorded = read_scalars(run)["eval/mean_reward"][-1][1]
    assert np.float32(agent.evaluate(EPISODES, seed=10_000).mean) == np.float32(recorded)
    assert np.float32(agent.evaluate(EPISODES, 10_000, deterministic=True).mean) != np.float32(recorded)
    env = gym.make("CartPole-v1")
    drawn = [play(env, agent.policy.performer(agent._act, each), each, lambda: None) for each in (3, 4)]
    assert agent.frames(episodes=2, seed=3)[1] == drawn
    assert drawn != [play(env, agent.act, each, lambda: None) for each in (3, 4)]


def test_the_best_weights_repeat_the_return_that_made_them_best(run):
    agent = TrainedAgent(run, "best")
    values = dict(read_scalars(run)["eval/mean_reward"])
    assert agent.metadata["mean_reward"] == pytest.approx(max(values.values()), rel=1e-6)
    episodes = EPISODES if agent.metadata["env_steps"] == 1024 else 2
    assert agent.evaluate(episodes, seed=10_000).mean == agent.metadata["mean_reward"]


def test_frames_show_every_step_of_every_episode(run):
    frames, returns, fps = TrainedAgent(run).frames(episodes=2, seed=3)
    assert len(returns) == 2
    assert len(frames) == sum(returns) + 2  # a step earns 1; how it ended is shown, too
    assert {(frame.shape, frame.dtype.name) for frame in frames} == {((400, 600, 3), "uint8")}
    assert not np.array_equal(frames[0], frames[5])
    assert fps == 50.0


def test_an_environment_without_pictures_is_refused(tmp_path):
    data = {"environment": {"id": "Chain", "backend": "tensorflow"}}
    agent = TrainedAgent(untrained_run(tmp_path, data))
    with pytest.raises(ConfigError, match=r"Chain does not render"):
        agent.frames()


def test_no_run_no_weights_and_no_such_choice_are_one_line(run, copied, tmp_path):
    shutil.rmtree(copied / "best")
    shutil.rmtree(copied / "latest")
    for folder, which, message in [
        (tmp_path / "nowhere", "best", "no run folder"),
        (copied, "best", "holds no weights yet"),
        (copied, "latest", "holds no weights yet"),
        (run, "newest", "takes 'best' or 'latest'"),
    ]:
        with pytest.raises(ConfigError, match=message) as caught:
            TrainedAgent(folder, which)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_damaged_weights_are_one_line(copied, kept):
    weights = copied / "best" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors") as caught:
        TrainedAgent(copied)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_one_line(copied):
    path = copied / "agent.toml"
    path.write_text(path.read_text().replace("hidden_sizes = [64, 64]", "hidden_sizes = [64, 32]", 1))
    with pytest.raises(CheckpointError) as caught:
        TrainedAgent(copied)
    assert "\n" not in str(caught.value)
