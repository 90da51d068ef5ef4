"""Atari games: episodes end whatever the policy does, and a run goes from the command line to its summary."""

import re
import subprocess
import sys

import numpy as np
import pytest

from rlweights.learning.loops import host
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file
from rlweights.running.records.event_file import read_scalars
from rlweights.weights import compilation
from support.builders import stepper_of

pytest.importorskip("ale_py", reason="needs rlweights[atari]")
pytest.importorskip("cv2", reason="needs rlweights[atari]")

GAMES = ("Pong", "Breakout")


def test_another_game_is_evaluated_like_the_shipped_one():
    shipped, other = (
        agent_file.load(agent_file.find("atari")),
        agent_file.for_environment("ALE/Breakout-v5").agent,
    )
    assert not other.evaluation.deterministic
    assert other.evaluation == shipped.evaluation
    assert other.environment == shipped.environment.model_copy(update={"id": "ALE/Breakout-v5"})
    assert 1_000 <= other.environment.kwargs["max_num_frames_per_episode"] <= 18_000
    assert other.expect is None


def test_an_episode_in_which_nobody_fires_is_truncated():
    agent = agent_file.for_environment(
        "ALE/Breakout-v5", ["environment.kwargs.max_num_frames_per_episode=400"]
    ).agent
    envs = Assembly(agent, "test").environments.vector(1, evaluation=True)
    stepper, steps = stepper_of(envs), 0
    stepper.reset(0)
    while not (step := stepper.step(np.zeros(1, np.int32))).ended[0]:
        steps += 1
        assert steps <= 100
    envs.close()
    assert step.truncated[0]
    assert steps > 80  # a step is four frames, and the first up to 30 are no-ops of the reset


def test_images_are_learnt_from_without_xla(monkeypatch):
    asked = []
    original = compilation.compiled
    noted = lambda f, *specs, xla=True: asked.append(xla) or original(f, *specs, xla=False)  # noqa: E731
    monkeypatch.setattr(host, "compiled", noted)
    for agent in (agent_file.load(agent_file.find("atari")), agent_file.for_environment("CartPole-v1").agent):
        Assembly(agent, "test").make_loop().close()
        assert set(asked) == {agent.environment.id == "CartPole-v1"}
        asked.clear()


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_a_game_from_the_command_line_to_the_summary(game, tmp_path):
    command = f"-m rlweights.train --env ALE/{game}-v5 -n 2048 --runs {tmp_path} --set evaluation.every=1024"
    done = subprocess.run([sys.executable, *command.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^reached .*, mean return of 10 episodes$", done.stdout, re.MULTILINE)
    assert "no film" not in done.stdout
    (run,) = tmp_path.glob("*/*")
    series = read_scalars(run)
    assert [step for step, _ in series["eval/mean_reward"]] == [1024, 2048]
    assert max(length for _, length in series["eval/mean_ep_length"]) <= 4_500
    film = next(run.glob("events.*")).read_bytes()
    assert b"eval/episode" in film
    assert b"GIF89a" in film
