"""`rlweights evaluate`: what the run itself said, as lines and as JSON."""

import json
import re

import numpy as np

from rlweights.running.records.event_file import read_scalars
from support.smallruns import EPISODES


def test_evaluate_says_what_the_run_said(rlweights, run):
    code, output, error = rlweights(
        "evaluate", run, "--episodes", EPISODES, "--seed", 10_000, "--weights", "latest"
    )
    assert (code, error) == (0, "")
    facts = {line[:13].strip(): line[14:] for line in output.splitlines()}
    assert list(facts) == ["mean return", "95 % interval", "mean length", "weights"]
    recorded = read_scalars(run)["eval/mean_reward"][-1][1]
    assert facts["mean return"].startswith(f"{recorded:.2f} +- ")
    assert facts["weights"] == str(run / "latest" / "weights.safetensors")


def test_an_evaluation_ends_where_episodes_need_not(rlweights, tmp_path):
    """CliffWalking has no time limit, and few greedy policies get out of it."""
    keys = {"budget.total_timesteps": 2_048, "evaluation.max_episode_steps": 30, "evaluation.film_frames": 9}
    sets = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    code, output, error = rlweights("train", "--env", "CliffWalking-v1", "--runs", tmp_path, *sets)
    assert (code, error) == (0, "")
    assert "evaluation: 100 of 100 episodes cut off after 30 steps" in output
    (run,) = tmp_path.glob("*/*")
    assert read_scalars(run)["eval/mean_ep_length"][-1][1] == 30.0
    _, output, _ = rlweights("evaluate", run, "--episodes", 3)
    assert "incomplete    3 of 3 episodes cut off after 30 steps: evaluation.max_episode_steps" in output


def test_evaluate_as_json_is_json_and_consistent(rlweights, run):
    code, output, error = rlweights("evaluate", run, "--episodes", 6, "--json")
    assert (code, error) == (0, "")
    facts = json.loads(output)
    returns = np.array(facts["returns"])
    assert len(returns) == facts["episodes"] == 6
    assert facts["mean_reward"] == returns.mean() == facts["mean_ep_length"]  # 1 a step
    assert facts["std_reward"] == returns.std()
    low, high = facts["interval_95"]
    assert returns.min() <= low <= facts["mean_reward"] <= high <= returns.max()
    assert json.loads(rlweights("evaluate", run, "--episodes", 6, "--json")[1]) == facts


def test_evaluate_can_sample_actions_and_take_another_seed(rlweights, run):
    def returns(*options):
        return json.loads(rlweights("evaluate", run, "--episodes", 6, "--json", *options)[1])["returns"]

    assert returns() != returns("--stochastic")
    assert returns() != returns("--seed", 1)


DOUBLE = """
from gymnasium.envs.classic_control import CartPoleEnv


class Double(CartPoleEnv):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, 2 * reward, *rest
"""


def test_a_run_is_evaluated_somewhere_else(rlweights, run, tmp_path):
    """In another environment, and with other arguments; what does not fit is one line."""

    def facts(*options):
        code, output, error = rlweights("evaluate", run, "--episodes", 3, "--json", *options)
        assert (code, re.sub(r"code  .*\n", "", error)) == (0, "")
        return json.loads(output)

    (tmp_path / "mine.py").write_text(DOUBLE)
    lengths = facts("--seed", 3)["returns"]
    assert max(lengths) < 500
    other = facts("--seed", 3, "--env", f"{tmp_path / 'mine.py'}:Double")
    assert other["returns"] == [2 * each for each in lengths]
    punished = facts("--seed", 3, "--env-kwargs", "sutton_barto_reward=true")
    assert punished["returns"] == [-1.0] * 3


def test_somewhere_else_must_fit(rlweights, run):
    def error(*options):
        code, output, said = rlweights("evaluate", run, "--episodes", 3, *options)
        assert (code, output, said.count("\n")) == (2, "", 1)
        return said

    assert "Acrobot-v1" in error("--env", "Acrobot-v1")
    assert "CartPol-v1" in error("--env", "CartPol-v1")
    assert "barto" in error("--env-kwargs", "barto=true")
    assert "--env-kwargs" in error("--env-kwargs", "barto")
