"""Environments as users bring them: made, stepped by random actions and evaluated, without any training."""

import multiprocessing
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from rlweights.errors import BrokenEnvironment, ConfigError
from rlweights.learning.distributions import for_space
from rlweights.learning.evaluation import Result, evaluate
from rlweights.learning.spaces import Translation, action_decoder, observation_encoder
from rlweights.running.building.environments import EnvironmentFactory
from rlweights.running.building.user_code import UserCode
from rlweights.running.config import agent_file, objects


class Brought(gym.Env):
    """Six steps; the tests change what comes in the fourth."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)
    alive = 0

    def __init__(self, size=(1, 2), table=None, bad=False):
        self.size, self.table, self.bad = size, table, bad
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        outcome = [np.zeros(2, np.float32), 1.0, self.steps == 6, False, {"power": self.steps}]
        if self.steps == 4:
            self.fourth(outcome)
        return tuple(outcome)

    def fourth(self, outcome):
        if self.bad:
            raise ConnectionError("gone")


def a_fourth_step(place, value):
    def fourth(self, outcome):
        outcome[place] = value

    return type("Changed", (Brought,), {"fourth": fourth})


def factory(env, *overrides, folder=None) -> EnvironmentFactory:
    text = env if isinstance(env, str) else objects.reference(env)
    small = ["environment.num_envs=2", "evaluation.num_envs=2", *overrides]
    agent = agent_file.for_environment(text, small).agent
    return EnvironmentFactory(agent, UserCode("my.toml", folder or Path()))


def translation(made: EnvironmentFactory) -> Translation:
    observed, acted = made.spaces()
    return Translation(observation_encoder(observed), action_decoder(acted))


def stepped(made: EnvironmentFactory, steps=12) -> list[dict]:
    """What single environments tell of their episodes while they are trained in."""
    distribution, told = for_space(made.spaces()[1]), []
    episodes = made.continued(2, distribution, translation(made))
    try:
        episodes.reset(3)
        for _ in range(steps):
            told += episodes.step(np.zeros(2, np.int64)).told.values()
        episodes.state()
    finally:
        episodes.stepper.envs.close()
    return told


def evaluated(made: EnvironmentFactory, episodes=4, size=2) -> Result:
    distribution = for_space(made.spaces()[1])
    envs = made.vector(size, evaluation=True)
    try:
        return evaluate(
            lambda x: np.zeros((len(x), distribution.parameter_size), np.float32),
            *(envs, distribution, translation(made), episodes, 0, True, made.evaluation_steps),
        )
    finally:
        envs.close()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, np.zeros(3, np.float32), "an observation of shape (3,), float32: expected shape (2,), float32"),
        (0, None, "an observation of shape (), object: expected shape (2,)"),
        (1, None, "the reward None: expected one number"),
        (1, np.ones(1), "the reward [1.] of shape (1,): expected one number"),
        (1, "much", "the reward 'much': expected one number"),
        (2, "yes", "terminated = 'yes': expected True or False"),
        (3, 2, "truncated = 2: expected True or False"),
    ],
)
@pytest.mark.parametrize("play", [stepped, evaluated])
def test_what_misfits_later_on_is_named(place, value, message, play):
    with pytest.raises(BrokenEnvironment) as caught:
        play(factory(a_fourth_step(place, value)))
    role = "environment 0" if play is stepped else "evaluation environment 0"
    assert str(caught.value).startswith(f"Changed: step() of {role} returned {message}")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, [0.5, 0.5]),
        (0, np.zeros(2)),
        (1, 1),
        (1, np.float32(1)),
        (1, np.array(1.0)),
        (2, 0),
        (3, np.bool_(False)),
    ],
)
def test_what_fits_is_taken(place, value):
    made = factory(a_fourth_step(place, value))
    assert [each["reported"] for each in stepped(made)] == [{"power": 6.0}] * 4
    np.testing.assert_array_equal(evaluated(made).returns, [6.0] * 4)


@pytest.mark.parametrize("info", [{"history": np.arange(4)}, {3: 4, "x": None}, {"inner": {"k": [1, 2]}}])
def test_infos_that_nobody_reads_break_nothing(info):
    made = factory(a_fourth_step(4, info))
    stepped(made)
    assert evaluated(made).lengths.tolist() == [6] * 4


def test_success_is_a_share_of_episodes():
    class Succeeds(Brought):
        def step(self, action):
            *outcome, _ = super().step(action)
            return *outcome, {"is_success": bool(self.np_random.random() < 0.5)}

    rate = evaluated(factory(Succeeds), 40).success_rate
    assert rate is not None
    assert 0.1 < rate < 0.9
    assert evaluated(factory(Brought)).success_rate is None


def test_named_infos_are_means_over_an_episode():
    told = stepped(factory(Brought, "logging.info=['power']"))
    assert told[0]["reported"] == {"power": 3.5}


# What raises ---------------------------------------------------------------------------------------


def test_an_error_of_the_users_own_names_its_line_in_evaluations_too():
    for play, role in ((stepped, "environment"), (evaluated, "evaluation environment")):
        with pytest.raises(BrokenEnvironment) as caught:
            play(factory(Brought, "environment.kwargs.bad=true"))
        start = f"Brought: step() of {role} 0 raised ConnectionError: gone (test_user_environments.py, line "
        assert str(caught.value).startswith(start)
        assert "in fourth" in str(caught.value)


def test_an_environment_is_made_anew_so_many_times():
    class Once(Brought):
        left = 1

        def fourth(self, outcome):
            if Once.left:
                Once.left -= 1
                raise ConnectionError("gone")

    told = stepped(factory(Once, "environment.on_error=recreate"))
    assert [each.get("recreated") for each in told].count(1) == 1
    assert "raised ConnectionError: gone" in told[0]["failure"]
    Once.left = 10**6
    with pytest.raises(BrokenEnvironment, match=r"made anew 3 times before \(environment.max_recreations\)"):
        stepped(factory(Once, "environment.on_error=recreate", "environment.max_recreations=3"), 100)


class Dies(Brought):
    def fourth(self, outcome):
        if multiprocessing.parent_process() is not None:
            os._exit(11)


class Hangs(Brought):
    def fourth(self, outcome):
        if multiprocessing.parent_process() is not None:
            time.sleep(3600)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Dies, r"^Dies: the process of environment \d died in step\(\) \(exit code 11\)$"),
        (Hangs, r"^Hangs: environment 0 has not answered step\(\) for 1 seconds .*: environment.timeout$"),
    ],
)
def test_a_process_that_dies_or_hangs_is_named(env, message):
    with pytest.raises(BrokenEnvironment, match=message):
        stepped(factory(env, "environment.vectorization_mode=async", "environment.timeout=1.0"))
    assert not multiprocessing.active_children()


# How many, and which -------------------------------------------------------------------------------


class Alone(Brought):
    """Only one at a time, like a simulator at a fixed port."""

    def __init__(self):
        super().__init__()
        if Alone.alive:
            raise RuntimeError("the port is in use")
        Alone.alive = 1

    def close(self):
        Alone.alive = 0


def test_an_environment_that_there_can_be_one_of():
    made = factory(Alone, "environment.num_envs=1")
    made.spaces()
    one = made.vector(1)
    with pytest.raises(ConfigError, match=r"port is in use .* without evaluation: evaluation.episodes = 0"):
        made.vector(2, evaluation=True)
    one.close()
    with pytest.raises(ConfigError, match=r"number 2 of 2: environment.num_envs are open at once"):
        made.vector(2)
    assert Alone.alive == 0


class Uneven(Brought):
    """Each has one observation more than the one before."""

    made = 0

    def __init__(self):
        super().__init__()
        Uneven.made += 1
        self.observation_space = spaces.Box(-9, 9, (Uneven.made,), np.float32)


def test_environments_that_differ_are_told_apart():
    with pytest.raises(ConfigError, match=r"environment 1 has the observation_space Box.* the first"):
        factory(Uneven).vector(2)


class Spaceless(gym.Env):
    """Says nothing of what is observed."""


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Dict({}), r"unsupported observation space: Dict\(\), which has no parts"),
        (spaces.Box(-1, 1, (0,)), "unsupported observation space: Box.*, which has no entries"),
    ],
)
def test_spaces_with_nothing_in_them_are_refused(space, words):
    with pytest.raises(ConfigError, match="Spaceless has no observation_space"):
        factory(Spaceless).spaces()
    with pytest.raises(ValueError, match=words):
        observation_encoder(space)


def test_spaces_of_a_class_hold_no_generator_that_environments_share():
    envs = factory(Brought).vector(2)
    one, other = (each.unwrapped for each in envs.envs)  # pyright: ignore[reportAttributeAccessIssue]
    for name in ("observation_space", "action_space"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine == theirs
        mine.seed(3)
        expected = [theirs.seed(3), *(theirs.sample() for _ in range(4))][1:]
        theirs.seed(4)
        np.testing.assert_array_equal([mine.sample() for _ in range(4)], expected)
    envs.close()


def test_evaluations_have_a_budget():
    endless = a_fourth_step(0, np.zeros(2, np.float32))
    endless.step = lambda self, action: (np.zeros(2, np.float32), 1.0, False, False, {})
    assert factory(endless).evaluation_steps == 100_000
    result = evaluated(factory(endless, "evaluation.max_steps=50"), 10)
    assert result.lengths.tolist() == [25, 25]
    assert result.cut(None).startswith("2 of 10 episodes made, the last ones cut off: 50 steps were spent")
    assert evaluated(factory(Brought, "evaluation.max_steps=30"), 10).lengths.tolist() == [6] * 4


def test_arrays_become_tuples_where_a_tuple_is_wanted_and_objects_stay():
    table = {1, 2}
    text = objects.reference(table)
    made = factory(Brought, "environment.kwargs.size=[3, 4]", f"environment.kwargs.table='{text}'")
    inside = made.vector(1).envs[0].unwrapped  # pyright: ignore[reportAttributeAccessIssue]
    assert inside.size == (3, 4)
    assert inside.table is table
    assert objects.decoded(objects.encoded({"a": (1, (2, [3])), "b": [4]})) == {"a": (1, (2, [3])), "b": [4]}
    with pytest.raises(ConfigError, match=r"environment.kwargs.table = 'python:set#00000000': set was given"):
        factory(Brought, "environment.kwargs.table='python:set#00000000'").spaces()


def test_arguments_that_are_missing_are_named_by_their_keys():
    class Wants(Brought):
        def __init__(self, seed, table):
            super().__init__()

    with pytest.raises(ConfigError, match=r"'seed' and 'table': environment.kwargs.seed, env.*table$"):
        factory(Wants).spaces()


def test_a_class_from_a_file_a_module_and_an_instance(tmp_path, monkeypatch):
    source = f"import beside\nfrom {__name__} import Brought\nclass Mine(Brought):\n    pass\n"
    (tmp_path / "my_env.py").write_text(source)
    (tmp_path / "beside.py").write_text("")
    made = factory("my_env.py:Mine", folder=tmp_path)
    assert evaluated(made).mean == 6.0
    assert made.home == str(tmp_path)
    assert evaluated(factory(f"{__name__}:Brought")).mean == 6.0
    with pytest.raises(ConfigError, match=r"registers no such environment, and has no such class"):
        factory(f"{__name__}:Brough").spaces()
    instance = Brought()
    alone = factory(instance, "environment.num_envs=1", "evaluation.every=0")
    assert alone.vector(1).envs[0].unwrapped is instance  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match="an instance is one environment"):
        alone.vector(2)


def test_evaluations_in_other_data():
    made = factory(Brought, "evaluation.kwargs.bad=true")
    stepped(made)
    with pytest.raises(BrokenEnvironment, match="gone"):
        evaluated(made)
    with pytest.raises(ConfigError, match=r"evaluation.kwargs.bat = true: is no argument of"):
        factory(Brought, "evaluation.kwargs.bat=true").spaces()


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ("ALE/Pong-v5", "Pong-v5"),
        ("a.b:My-v0", "My-v0"),
        ("some/my_env.py:My", "My"),
        ("python:<lambda>#00000000", "_lambda_"),
    ],
)
def test_run_folders_have_names_that_any_system_takes(env, name):
    assert agent_file.run_name(env).removeprefix("ALE_") == name


class Seen(Brought):
    """Gray pictures, if it was made to draw them."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode

    def render(self):
        return np.full((40, 40, 3), 10 * self.steps, np.uint8)


def test_environments_that_are_seen_as_pixels_are_made_to_draw():
    drawn = ("environment.render_mode=rgb_array", "environment.wrappers=['AddRenderObservation']")
    made = factory(Seen, *drawn)
    assert made.spaces()[0].shape == (40, 40, 3)
    for evaluation in (False, True):
        envs = made.vector(1, evaluation=evaluation)
        envs.reset()
        assert envs.step(np.zeros(1, int))[0].max() == 10
        envs.close()
    with pytest.raises(ConfigError, match="Brought takes no render_mode"):
        factory(Brought, *drawn).spaces()
    with pytest.raises(ConfigError, match="render"):
        factory(Seen, drawn[1]).spaces()


def test_an_id_with_its_module_is_prepared_like_the_id():
    assert agent_file.for_environment("ale_py:ALE/Breakout-v5").agent.environment.wrappers


def test_processes_of_a_killed_run_end_and_say_nothing():
    script = """
import functools, os, gymnasium
from rlweights.learning.environments.processes import WatchedProcesses
envs = WatchedProcesses([functools.partial(gymnasium.make, "CartPole-v1")] * 3, "CartPole-v1", 20.0)
envs.reset(seed=1)
os.kill(os.getpid(), 9)
"""
    # Standard error is read to its end: all processes that hold it are gone then.
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == -9
    assert not re.search("Traceback|Error", done.stderr)  # TensorFlow may greet
