"""Films of an agent: what they show, how long they get, and that nothing depends on them."""

import io
import itertools
import math

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
from tensorboard.util import tensor_util

from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file
from rlweights.running.evaluator import Evaluator
from rlweights.running.trained import TrainedAgent
from rlweights.running.video import LARGEST, film, gif
from support.recorded import pictures
from support.simulated import STEPS, assert_same_result, machine, result
from support.smallruns import small_run


class Counter(gym.Env):
    """Shows the number of its state, and ends after `length` steps with a return of as many."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 40}  # noqa: RUF012
    observation_space = gym.spaces.Box(0, np.inf, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length, size=(4, 6)):
        self.length, self.size, self.state = length, size, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.state += 1
        return np.full(1, self.state, np.float32), 1.0, self.state == self.length, False, {}

    def render(self):
        return np.full((*self.size, 3), self.state, np.uint8)


def shown(length: int, frames: int):
    made = film(Counter(length), lambda observation: 0, 0, frames)
    assert made.total_return == length
    return made, [int(frame[0, 0, 0]) for frame in made.frames]


@pytest.mark.parametrize("frames", [2, 3, 8, 9, 50])
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 31, 100])
def test_a_film_shows_begin_and_end_and_equal_steps_between(length, frames):
    made, states = shown(length, frames)
    assert len(states) <= frames
    assert (states[0], states[-1]) == (0, length)
    every = 40 / made.fps
    assert {b - a for a, b in itertools.pairwise(states[:-1])} <= {every}
    if length + 1 < frames:
        assert states == list(range(length + 1))
    elif frames > 2:
        assert len(states) > frames / 2 - 1


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_film_shows_the_agent_as_it_is_evaluated(deterministic):
    data = {"environment": {"id": "CartPole-v1"}, "evaluation": {"deterministic": deterministic}}
    assembly = Assembly(agent_file.parse(data, "test"), "test")
    undecided = lambda observations: np.zeros((len(observations), 2), np.float32)  # noqa: E731
    actions = []
    for seed in (1, 1, 2):
        act = assembly.performer(undecided, seed)
        actions.append([int(act(np.zeros(4, np.float32))) for _ in range(40)])
    assert actions[0] == actions[1]
    assert (actions[0] == actions[2]) == deterministic
    assert len(set(actions[0])) == (1 if deterministic else 2)


def test_large_pictures_are_thinned_out():
    made = film(Counter(1, (400, 1000)), lambda observation: 0, 0, 5)
    assert made.frames[0].shape == (math.ceil(400 / 4), 250, 3)
    assert max(made.frames[0].shape) <= LARGEST


def test_what_is_no_picture_is_said():
    env = Counter(1)
    env.render = lambda: None
    with pytest.raises(ValueError, match="no picture"):
        film(env, lambda observation: 0, 0, 5)


def animations(folder):
    """Steps and decoded pictures of a run's films."""
    events = EventAccumulator(str(folder), size_guidance={TENSORS: 0}).Reload()
    if "eval/episode" not in events.Tags()["tensors"]:
        return {}
    assert events.SummaryMetadata("eval/episode").plugin_data.plugin_name == "images"
    values = {e.step: tensor_util.make_ndarray(e.tensor_proto) for e in events.Tensors("eval/episode")}
    return {step: Image.open(io.BytesIO(value[2])) for step, value in values.items()}


def test_the_last_evaluation_of_a_run_is_filmed():
    run = small_run()
    ((step, picture),) = animations(run).items()
    assert step == 1024
    assert picture.format == "GIF"
    assert picture.size == (300, 200)
    frames, returns, _ = TrainedAgent(run, "latest").frames(1, seed=10_000)
    assert 0 < getattr(picture, "n_frames", 0) <= returns[0] + 1 == len(frames) <= 150
    first = np.asarray(picture.convert("RGB"), int)
    assert np.abs(first - frames[0][::2, ::2]).mean() < 5.0  # a GIF has 256 colours


@pytest.mark.parametrize("backend", ["gymnasium", "tensorflow"])
def test_films_come_at_their_cadence_and_change_nothing(tmp_path, backend):
    computer = machine(backend)
    without, filmed = computer.folder(tmp_path), computer.folder(tmp_path)
    computer.train(without)
    computer.train(filmed, evaluation={"film_frames": 10, "film_every": 2})
    assert animations(without) == {}
    assert [step // STEPS for step in animations(filmed)] == [6, 12, 14]
    one, other = result(without), result(filmed)
    for each in (one, other):
        del each["progress"]["agent"]  # it says how much is filmed
    assert_same_result(one, other)


def test_a_film_that_fails_is_one_line_and_the_run_goes_on(tmp_path, monkeypatch):
    computer, said = machine(), []

    def broken(*args):
        raise RuntimeError("no display\nno driver")

    monkeypatch.setattr("rlweights.running.evaluator.film", broken)
    folder = computer.folder(tmp_path)
    outcome = computer.train(folder, said=said, evaluation={"film_frames": 10, "film_every": 1})
    assert outcome.evaluation is not None
    (line,) = said
    assert line.endswith("no film of the agent: no display")

    assert animations(folder) == {}


def test_an_animation_may_be_one_frame_and_faster_than_browsers():
    assert Image.open(io.BytesIO(gif(pictures(1)))).n_frames == 1
    assert Image.open(io.BytesIO(gif(pictures(3), fps=200))).info["duration"] == 20


@pytest.mark.parametrize("count", [150, 2_000])
def test_an_animation_in_which_nothing_happens_for_long(count):
    """Frames that are alike become one, and no frame is shown for more than 655 seconds."""
    still = Image.open(io.BytesIO(gif([np.zeros((8, 8, 3), np.uint8)] * count, fps=0.01)))
    assert still.n_frames == 1
    assert still.info["duration"] == min(500 * count, 600_000)


def test_a_film_without_pygame_says_what_brings_it(monkeypatch):
    computer, said = machine(), []

    def absent(*args, **options):
        raise gym.error.DependencyNotInstalled(
            'pygame is not installed, run `pip install "gymnasium[classic_control]"`'
        )

    evaluator = Evaluator(computer.assembly, said.append)
    monkeypatch.setattr("rlweights.running.building.singles.Singles.make", absent)
    assert evaluator.film(lambda x: x) is None
    evaluator.close()
    (line,) = said
    assert line.endswith("pygame is not installed; pip install 'rlweights[classic-control]'")
